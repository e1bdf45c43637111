"""Calls models on inference servers: numpy in, numpy out, without torch.

It needs ``numpy``, ``urllib3`` and, for gRPC, ``tritonclient`` (``pip install gnnscript[client]``),
or, where torch is not wanted, ``pip install --no-deps gnnscript`` and these three.
"""

from gnnscript.client._client import Client
from gnnscript.client._errors import (
    ClientError,
    InvalidInputError,
    RequestTimeoutError,
    ServerFailureError,
    ServerUnavailableError,
    UnknownModelError,
)

__all__ = [
    "Client",
    "ClientError",
    "InvalidInputError",
    "RequestTimeoutError",
    "ServerFailureError",
    "ServerUnavailableError",
    "UnknownModelError",
]

"""What can go wrong between a client and its servers."""

from __future__ import annotations

from gnnscript._errors import GnnscriptError

__all__ = [
    "ClientError",
    "InvalidInputError",
    "RequestTimeoutError",
    "ServerFailureError",
    "ServerUnavailableError",
    "UnknownModelError",
]


class ClientError(GnnscriptError):
    """Base class of the client's errors."""


class InvalidInputError(ClientError, ValueError):
    """The inputs do not fit the model: found by the client, or said by the server."""


class UnknownModelError(ClientError, LookupError):
    """The server has no model of that name that is ready."""


class ServerUnavailableError(ClientError, ConnectionError):
    """No server can be reached, or none accepts the request."""


class RequestTimeoutError(ClientError, TimeoutError):
    """A server has not answered in time."""


class ServerFailureError(ClientError, RuntimeError):
    """The server failed while it worked on the request, which is not at fault."""

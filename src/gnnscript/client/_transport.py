"""One server, reached over HTTP or gRPC by the open inference protocol (KServe v2)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from gnnscript.client._errors import (
    ClientError,
    InvalidInputError,
    RequestTimeoutError,
    ServerFailureError,
    ServerUnavailableError,
    UnknownModelError,
)

__all__ = ["DTYPES", "Array", "Transport", "bfloat16_bits", "connect"]

Array = NDArray[Any]

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": np.float32,
}
"""The protocol's names of dtypes, and what they are in numpy, which has no bfloat16."""

_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}
_NAMES[np.dtype(np.uint16)] = "BF16"  # as what `bfloat16_bits` returns
_CONNECT_TIMEOUT = 2.0
_PROBE_TIMEOUT = 2.0
# What both the server and gRPC count bytes in is a signed 32-bit number.
_MAX_BYTES = 2**31 - 2**16


class Transport(Protocol):
    """The way to one server. Methods may be called from several threads at once."""

    url: str

    def ready(self, model: str) -> bool:
        """Whether the server answers, and has the model ready."""

    def config(self, model: str, timeout: float) -> dict[str, Any]:
        """The configuration of a model."""

    def infer(self, model: str, inputs: Mapping[str, Array], timeout: float) -> dict[str, Array]:
        """Runs a model: arrays by the names of its inputs, to arrays by those of its outputs."""

    def close(self) -> None:
        """Closes the connections."""


def bfloat16_bits(array: Array) -> Array:
    """Numbers of float32 rounded to bfloat16, as the bits that it has, in uint16."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)


def _decoded(datatype: str, data: bytes | memoryview, shape: Sequence[int]) -> Array:
    """A copy of a tensor, because one can write to it."""
    if datatype == "BF16":
        flat = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(data, DTYPES[datatype]).copy()
    return flat.reshape(shape)


def connect(url: str, version: int | None = None) -> Transport:
    """The way to the server at a URL: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``.

    Args:
        url: The URL.
        version: The version of its models that is asked for; None leaves it to the server.
    """
    full = url if "://" in url else f"http://{url}"
    parts = urlsplit(full)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname:
        raise ValueError(
            f"expected a URL such as http://host:8000 or grpc://host:8001, got {url!r}"
        )
    if parts.scheme.startswith("grpc"):
        if port is None:
            raise ValueError(f"expected a URL with a port, such as grpc://host:8001, got {url!r}")
        return _Grpc(full, f"{parts.hostname}:{port}", version, secure=parts.scheme == "grpcs")
    return _Http(full.rstrip("/"), version)


def _check_size(inputs: Mapping[str, Array]) -> None:
    total = sum(array.nbytes for array in inputs.values())
    if total > _MAX_BYTES:
        raise InvalidInputError(
            f"the inputs take {total} bytes, and a request at most {_MAX_BYTES}; send smaller "
            "graphs, each as a request of its own"
        )


def _refused(url: str, status: str, message: str) -> NoReturn:
    """Raises the error for what a server answered, by HTTP's number or gRPC's name."""
    text = message.strip() or f"status {status}"
    lowered = text.lower()
    if status in ("404", "NOT_FOUND") or "unknown model" in lowered or "not ready" in lowered:
        raise UnknownModelError(
            f"{url} has no such model: {text}; compare the name with the model repository"
        )
    if status in ("400", "INVALID_ARGUMENT", "OUT_OF_RANGE"):
        raise InvalidInputError(f"{url} refuses the request: {text}")
    if status in ("413", "RESOURCE_EXHAUSTED"):
        raise InvalidInputError(f"{url} refuses the request as too large: {text}")
    if status in ("502", "503", "504", "UNAVAILABLE", "CANCELLED"):
        raise ServerUnavailableError(f"{url} is not available: {text}")
    if "is not healthy" in lowered:  # the model's process has ended; another server has its own
        raise ServerUnavailableError(f"{url} has lost the model's process: {text}")
    raise ServerFailureError(f"{url} failed: {text}")


class _Http:
    """HTTP, tensors in binary form behind a header in JSON."""

    def __init__(self, url: str, version: int | None) -> None:
        import urllib3

        self.url = url
        self._version = "" if version is None else f"/versions/{version}"
        self._errors = urllib3.exceptions
        self._timeout = urllib3.Timeout
        # As many connections as there are requests at a time; so many idle ones are kept.
        self._pool = urllib3.PoolManager(maxsize=64, retries=False)

    def ready(self, model: str) -> bool:
        try:
            status, _, _ = self._request(
                "GET", f"/v2/models/{model}{self._version}/ready", _PROBE_TIMEOUT
            )
        except ClientError:
            return False
        return status == 200

    def config(self, model: str, timeout: float) -> dict[str, Any]:
        status, _, data = self._request("GET", f"/v2/models/{model}{self._version}/config", timeout)
        if status != 200:
            _refused(self.url, str(status), _message(data))
        config: dict[str, Any] = json.loads(data)
        return config

    def infer(self, model: str, inputs: Mapping[str, Array], timeout: float) -> dict[str, Array]:
        _check_size(inputs)
        header = json.dumps(
            {
                "inputs": [
                    {
                        "name": name,
                        "shape": list(array.shape),
                        "datatype": _NAMES[array.dtype],
                        "parameters": {"binary_data_size": array.nbytes},
                    }
                    for name, array in inputs.items()
                ],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        parts = [header, *(array.tobytes() for array in inputs.values())]
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(header)),
        }
        body = b"".join(parts)
        status, length, data = self._request(
            "POST", f"/v2/models/{model}{self._version}/infer", timeout, body=body, headers=headers
        )
        if status != 200:
            _refused(self.url, str(status), _message(data))
        return _unpacked(data, len(data) if length is None else int(length))

    def close(self) -> None:
        # `clear` alone leaves them open until the garbage collector comes by, and Triton, where it
        # is stopped meanwhile, waits for them.
        self._pool.connection_from_url(self.url).close()
        self._pool.clear()

    def _request(
        self, method: str, path: str, timeout: float, **options: Any
    ) -> tuple[int, str | None, bytes]:
        limits = self._timeout(connect=min(_CONNECT_TIMEOUT, timeout), read=timeout)
        try:
            answer = self._pool.request(method, f"{self.url}{path}", timeout=limits, **options)
        except self._errors.ReadTimeoutError as error:
            raise RequestTimeoutError(
                f"{self.url} did not answer within {timeout:.3g} s"
            ) from error
        except (self._errors.HTTPError, OSError) as error:
            raise ServerUnavailableError(f"{self.url} cannot be reached: {error}") from error
        return answer.status, answer.headers.get("Inference-Header-Content-Length"), answer.data


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return data[:500].decode(errors="replace")


def _unpacked(data: bytes, header: int) -> dict[str, Array]:
    position = header
    outputs: dict[str, Array] = {}
    for output in json.loads(data[:header])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        part = memoryview(data)[position : position + size]
        outputs[output["name"]] = _decoded(output["datatype"], part, output["shape"])
        position += size
    return outputs


class _Grpc:
    """gRPC, by Triton's own client, which several threads may use."""

    def __init__(self, url: str, target: str, version: int | None, *, secure: bool) -> None:
        try:
            import tritonclient.grpc as client
        except ImportError as error:
            raise ClientError(
                "gRPC needs tritonclient: pip install 'tritonclient[grpc]'; or use an http:// URL"
            ) from error
        self.url = url
        self._version = "" if version is None else str(version)
        self._client = client
        self._error = client.InferenceServerException
        # Found again at once when it returns: by itself gRPC waits longer with every attempt.
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", round(1000 * _CONNECT_TIMEOUT)),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._server = client.InferenceServerClient(target, ssl=secure, channel_args=options)

    def ready(self, model: str) -> bool:
        try:
            found = self._server.is_model_ready(model, self._version, client_timeout=_PROBE_TIMEOUT)
            return bool(found)
        except self._error:
            return False

    def config(self, model: str, timeout: float) -> dict[str, Any]:
        try:
            answer = self._server.get_model_config(
                model, self._version, as_json=True, client_timeout=timeout
            )
        except self._error as error:
            self._raise(error, timeout)
        config: dict[str, Any] = answer["config"]
        return config

    def infer(self, model: str, inputs: Mapping[str, Array], timeout: float) -> dict[str, Array]:
        _check_size(inputs)
        tensors = []
        for name, array in inputs.items():
            bits = array.dtype == np.uint16
            kind = "UINT16" if bits else _NAMES[array.dtype]
            tensor = self._client.InferInput(name, array.shape, kind)
            tensor.set_data_from_numpy(array)
            if bits:
                tensor._get_tensor().datatype = _NAMES[array.dtype]
            tensors.append(tensor)
        try:
            result = self._server.infer(model, tensors, self._version, client_timeout=timeout)
        except self._error as error:
            self._raise(error, timeout)
        response = result.get_response()
        return {
            output.name: _decoded(output.datatype, data, output.shape)
            for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    def close(self) -> None:
        self._server.close()

    def _raise(self, error: Any, timeout: float) -> NoReturn:
        status = str(error.status() or "").removeprefix("StatusCode.")
        if status == "DEADLINE_EXCEEDED":
            raise RequestTimeoutError(
                f"{self.url} did not answer within {timeout:.3g} s"
            ) from error
        try:
            _refused(self.url, status, str(error.message()))
        except ClientError as refusal:
            raise refusal from error

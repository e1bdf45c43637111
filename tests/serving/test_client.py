"""What the client does by itself: binding arguments, refusing what does not fit, naming errors."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gnnscript.client import (
    Client,
    ClientError,
    InvalidInputError,
    RequestTimeoutError,
    ServerFailureError,
    ServerUnavailableError,
    UnknownModelError,
)
from gnnscript.client._transport import _refused, connect
from gnnscript.deploy import Server
from serving.served_models import graph

X = np.zeros((4, 5), np.float32)
EDGES = np.array([[0, 1, 2], [1, 2, 3]])

# A process in which torch cannot be imported: whatever asks for it fails.
WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torch_geometric", "wrapt"):
            raise ModuleNotFoundError(f"there is no {name} here", name=name)

sys.meta_path.insert(0, NoTorch())
import json
import numpy as np
import gnnscript
from gnnscript.client import Client

urls, path = sys.argv[1:3], sys.argv[3]
data = np.load(path)
for url in urls:
    with Client(url, "edges") as client:
        found = client(data["x"], data["edge_index"])
        assert np.allclose(found, data["expected"], rtol=1e-4, atol=1e-5), url
        try:
            client(data["x"], data["edge_index"] + 100)
        except gnnscript.client.InvalidInputError as error:
            assert "from 0 to N - 1" in str(error)
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torch_geometric")))
"""


def test_no_torch_is_needed(server: Server, models, run_python, tmp_path: Path) -> None:
    x, edge_index = graph(9, 30)
    expected = models["edges"](x, edge_index).detach()
    np.savez(
        tmp_path / "call.npz", x=x.numpy(), edge_index=edge_index.numpy(), expected=expected.numpy()
    )
    result = run_python(WITHOUT_TORCH, server.http_url, server.grpc_url, tmp_path / "call.npz")
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X,), r"missing: edge_index; call edges\(x: float32 \[N, 5\], edge_index: int64 \[2, E\]"),
        ((X, EDGES, EDGES), "expected at most 2 inputs, got 3"),
        ((X[:, :4], EDGES), r"expected 'x' of shape \[N, 5\], got \[4, 4\]"),
        ((X[0], EDGES), r"expected 'x' of shape \[N, 5\], got \[5\]"),
        ((X, EDGES[0]), r"expected 'edge_index' of shape \[2, E\], got \[3\]"),
        ((X, EDGES.T), r"expected 'edge_index' of shape \[2, E\], got \[3, 2\]"),
        ((X, EDGES + 1), r"expected indices from 0 to N - 1 = 3 in 'edge_index', got 4"),
        ((X, EDGES - 1), r"expected indices from 0 to N - 1 = 3 in 'edge_index', got -1"),
        ((X[:0], EDGES), r"no indices in 'edge_index', as there are no nodes \(N = 0\), got 2"),
        ((X, EDGES.astype(np.float32)), "expected 'edge_index' of dtype int64, got float32"),
        ((X, EDGES.astype(np.uint64) + 2**63), "holds values that int64 cannot hold"),
        ((X.astype(np.float64) + 1e300, EDGES), "'x' holds values that float32 cannot hold"),
        ((X.astype(complex), EDGES), "expected 'x' of dtype float32, got complex128"),
        ((["a"], EDGES), "expected 'x' of dtype float32"),
        (([[1, 2], [3]], EDGES), "'x' is no array"),
        ((X, EDGES > 0), "expected 'edge_index' of dtype int64, got bool"),
        ((np.ma.masked_array(X, X[0, 0] == X), EDGES), "'x' has masked values"),
        (({"part": X[0, 0]}, EDGES), r"expected 'x' of shape \[N, 5\], got \[1\]"),
        ((np.zeros((50_001, 5), np.float32), EDGES), "expected N of at most 50000, got 50001"),
    ],
)
def test_what_does_not_fit_is_not_sent(edges: Client, arguments, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        edges(*arguments)


def test_names_are_checked(edges: Client) -> None:
    with pytest.raises(InvalidInputError, match="unknown: y"):
        edges(X, EDGES, y=X)
    with pytest.raises(InvalidInputError, match="'x' is given twice"):
        edges(X, EDGES, x=X)


def test_whatever_numpy_takes_as_an_array_goes_in(edges: Client, models) -> None:
    x, edge_index = graph(6, 9)
    expected = models["edges"](x, edge_index).detach().numpy()
    for call in (
        (x.double().numpy(), edge_index.int().numpy()),
        (x.tolist(), edge_index.tolist()),
        (x, edge_index),
        (np.asfortranarray(x.numpy()), np.ascontiguousarray(edge_index.T.numpy()).T),
    ):
        np.testing.assert_allclose(edges(*call), expected, rtol=1e-4, atol=1e-5)
    whole = (x * 10).round()  # integers are numbers
    np.testing.assert_array_equal(edges(whole.long(), edge_index), edges(whole, edge_index.byte()))
    result = edges(x, edge_index)
    result += 1  # the caller's own


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_was_forked_has_its_own_connections(url: str, models) -> None:
    x, edge_index = graph(9, 30)
    expected = models["edges"](x, edge_index).detach().numpy()
    with Client(url, "edges", timeout=20) as client:
        client(x, edge_index)
        client.submit(x, edge_index).result()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                found = [client(x, edge_index), client.submit(x, edge_index).result(10)]
                if all(np.allclose(one, expected, rtol=1e-4, atol=1e-5) for one in found):
                    code = 0
            finally:
                os._exit(code)
        for _ in range(5):
            np.testing.assert_allclose(client(x, edge_index), expected, rtol=1e-4, atol=1e-5)
        assert os.waitpid(child, 0)[1] == 0


def test_a_client_is_copied_and_opened_again(url: str, models) -> None:
    x, edge_index = graph(9, 30)
    expected = models["edges"](x, edge_index).detach().numpy()
    client = Client(url, "edges", timeout=20, retries=3, workers=2)
    client(x, edge_index)
    with pickle.loads(pickle.dumps(client)) as copy:
        np.testing.assert_allclose(copy(x, edge_index), expected, rtol=1e-4, atol=1e-5)
    client.submit(x, edge_index).result()
    client.close()
    client.close()
    found = client.submit(x, edge_index).result()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    client.close()


def test_an_unknown_model(url: str) -> None:
    with Client(url, "nothing") as client:
        with pytest.raises(UnknownModelError, match="compare the name with the model repository"):
            client(X, EDGES)
        assert not client.ready()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server(scheme: str) -> None:
    with Client(f"{scheme}://127.0.0.1:{free_port()}", "edges", retries=1, timeout=10) as client:
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError, match=f"no server is available .*{scheme}://"):
            client(X, EDGES)
        assert time.monotonic() - start < 8


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    taken.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in taken:
        connection.close()


def test_a_server_that_does_not_answer(silent_port: int) -> None:
    with Client(f"127.0.0.1:{silent_port}", "edges", timeout=0.5) as client:
        start = time.monotonic()
        with pytest.raises(RequestTimeoutError, match=r"did not answer within 0\.5 s"):
            client(X, EDGES)
        assert time.monotonic() - start < 5


def test_what_is_too_large_for_a_request(edges: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnscript.client._transport._MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match="the inputs take 128 bytes, and a request at most"):
        edges(X, EDGES)


@pytest.mark.parametrize("url", ["ftp://host:8000", "http://", "grpc://host", []])
def test_urls_are_checked(url) -> None:
    with pytest.raises(ValueError, match="expected"):
        Client(url, "edges")


def test_all_errors_have_one_base() -> None:
    assert issubclass(ClientError, Exception)
    for error in (InvalidInputError, UnknownModelError, RequestTimeoutError):
        assert issubclass(error, ClientError)


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        ("500", "Stub process 'edges_0_0' is not healthy.", ServerUnavailableError),
        ("INTERNAL", "Stub process 'edges_0_0' is not healthy.", ServerUnavailableError),
        ("500", "PyTorch execute failure", ServerFailureError),
        ("503", "Server is stopping", ServerUnavailableError),
        ("413", "too long", InvalidInputError),
        ("404", "", UnknownModelError),
    ],
)
def test_what_a_server_answers_has_its_error(
    status: str, message: str, error: type[ClientError]
) -> None:
    with pytest.raises(error, match="http://host"):
        _refused("http://host", status, message)


def test_close_closes_the_connections_at_once() -> None:
    """A server that is stopped then would wait for them."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which leaves connections open

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Says nothing."""

        def finish(self) -> None:
            super().finish()
            ended.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        transport = connect(f"http://127.0.0.1:{listener.server_port}")
        assert transport.ready("model")
        # As a traceback or a cycle holds them until the garbage collector comes by.
        held = transport._pool.connection_from_url(transport.url)
        assert not ended.is_set()
        transport.close()
        assert ended.wait(10)
        assert held.num_connections == 1
        assert transport.ready("model")  # by another connection
        transport.close()
        listener.shutdown()

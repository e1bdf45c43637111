"""The experiment's side: a C++ program without torch sends events and takes clusters."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deploy.conftest import build
from gnnscript.deploy import Installation, Server, triton
from serving.served_models import graph

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "cpp_client"
SIZES = [(8, 20), (60, 300), (5, 0), (1, 1), (30, 90), (2, 3), (700, 4000), (12, 12), (9, 30)]


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Path:
    """The program."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "cpp_client.lock"):
        folder = build(
            SOURCE,
            shared / "cpp_client",
            *curl_of(installation),
            f"-Dnlohmann_json_DIR={Path(__file__).parent / 'cpp'}",
            f"-DJSON_HEADERS={json_headers()}",
            packages="libcurl4-openssl-dev",
        )
    return folder / "events"


def json_headers() -> Path:
    """Where pip has put them."""
    found = importlib.util.find_spec("nlohmann_json")  # its own __init__ needs another package
    assert found is not None, "pip install nlohmann_json"
    assert found.origin is not None
    return Path(found.origin).parent / "include"


def curl_of(installation: Installation) -> list[str]:
    """Options for CMake where the machine has no libcurl to build with: the server's is used."""
    found = [file for folder in installation.libraries for file in folder.glob("libcurl*.so.4*")]
    if shutil.which("curl-config") is not None or not found:
        return []
    # The libraries that it needs itself lie beside it.
    return [
        "-DCURL_NO_CURL_CMAKE=ON",
        f"-DCURL_LIBRARY={found[0]}",
        f"-DCURL_INCLUDE_DIR={Path(__file__).parent / 'cpp'}",
        f"-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags,-rpath,{found[0].parent}",
    ]


def write_graph(path: Path, x: Tensor, edge_index: Tensor) -> Path:
    lines = [f"{x.size(0)} {x.size(1)} {edge_index.size(1)}"]
    lines += [" ".join(map(str, row)) for row in x.tolist()]
    lines += [" ".join(map(str, pair)) for pair in edge_index.t().tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(
    program: Path,
    url: str,
    model: str,
    folder: Path,
    graphs: Sequence[Path],
    *,
    timeout: float = 60,
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program, "--timeout", str(timeout), url, model, folder, *graphs],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_links_no_ml_framework(events: Path) -> None:
    listed = subprocess.run(["ldd", events], capture_output=True, text=True, check=True).stdout
    # Folders and addresses stand beside the names.
    libraries = [Path(line.split()[0]).name for line in listed.splitlines()]
    assert any("libcurl" in library for library in libraries)
    for name in ("torch", "c10", "python", "onnx", "triton"):
        assert not any(name in library for library in libraries)


def test_clusters_are_those_of_the_eager_model(
    events: Path, server: Server, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    check_clusters(events, server, models["edges"], tmp_path)


def test_clusters_from_the_libtorch_backend(
    events: Path, libtorch: Installation, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    two = [graph(8, 20), graph(6, 11)]
    triton(models["edges"], two, tmp_path / "models", "edges", backend="libtorch", threads=1)
    with Server(tmp_path / "models", installation=libtorch) as server:
        check_clusters(events, server, models["edges"], tmp_path)


def check_clusters(events: Path, server: Server, model: torch.nn.Module, tmp_path: Path) -> None:
    graphs = [graph(*size) for size in SIZES]
    files = [write_graph(tmp_path / f"{i}.txt", *pair) for i, pair in enumerate(graphs)]
    completed = run(events, server.http_url, "edges", tmp_path, files)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith(f"{len(files)} events written, 0 failed")
    assert "up to 1 under way" not in completed.stdout
    for file, (x, edge_index) in zip(files, graphs, strict=True):
        with torch.no_grad():
            kept = edge_index[:, model(x, edge_index).argmax(dim=1) != 0]
        found = list(map(int, file.with_suffix(".clusters").read_text().split()))
        matrix = coo_matrix((torch.ones(kept.size(1)), kept.tolist()), shape=[x.size(0)] * 2)
        count, labels = connected_components(matrix, directed=False)
        first_seen = dict.fromkeys(labels.tolist())
        assert found == [list(first_seen).index(label) for label in labels.tolist()]
        assert len(set(found)) == count


def test_a_wrong_event_is_named_and_the_others_arrive(
    events: Path, server: Server, tmp_path: Path
) -> None:
    x, edge_index = graph(8, 20)
    files = [
        write_graph(tmp_path / "good.txt", x, edge_index),
        write_graph(tmp_path / "beyond.txt", x, edge_index + 5),
        write_graph(tmp_path / "features.txt", x[:, :3], edge_index),
        write_graph(tmp_path / "later.txt", x, edge_index),
    ]
    (tmp_path / "cut.txt").write_text("3 2 1\n0.5", encoding="utf-8")
    completed = run(events, server.http_url, "edges", tmp_path, [*files, tmp_path / "cut.txt"])
    assert completed.returncode == 1
    assert completed.stdout.startswith("2 events written, 3 failed")
    errors = dict(line.split(": ", 1) for line in completed.stderr.splitlines() if ": " in line)
    assert "answers 400" in errors["beyond"]
    assert "answers 400" in errors["features"]
    assert "is no graph file" in errors["cut"]
    assert (tmp_path / "good.clusters").read_text() == (tmp_path / "later.clusters").read_text()


def test_unknown_models_and_absent_servers_are_reported(
    events: Path, server: Server, tmp_path: Path
) -> None:
    file = write_graph(tmp_path / "event.txt", *graph(8, 20))
    completed = run(events, server.http_url, "absent", tmp_path, [file])
    assert completed.returncode == 1
    assert "unknown model" in completed.stderr
    completed = run(events, "http://127.0.0.1:9", "edges", tmp_path, [file])
    assert completed.returncode == 1
    assert "http://127.0.0.1:9: " in completed.stderr


# -- servers that fail ----------------------------------------------------------------------------


@dataclass
class Answer:
    """What a server answers, which may be anything."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    silent: bool = False  # closes the connection


class Faulty(ThreadingHTTPServer):
    """Answers whatever it is told to."""

    daemon_threads = True
    config = Answer()
    infer = Answer()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Faulty

    def do_GET(self) -> None:
        self.give(self.server.config)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.give(self.server.infer)

    def give(self, answer: Answer) -> None:
        time.sleep(answer.delay)
        self.close_connection = True
        if answer.silent:
            return
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    with Faulty(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tensors(*outputs: tuple[str, list[int], int], data: bytes, header: str = "") -> Answer:
    """An answer of the protocol, each output with its datatype, shape and size in bytes."""
    described = [
        {"name": f"y{i}", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": n}}
        for i, (kind, shape, n) in enumerate(outputs)
    ]
    text = json.dumps({"outputs": described}).encode()
    size = {"Inference-Header-Content-Length": header or str(len(text))}
    return Answer(text + data, headers=size)


SCORES = ("FP32", [3, 2], 24)
NOT_PROTOCOL = "gives an answer that is not of the inference protocol: "
WRONG: dict[str, tuple[Answer, str]] = {
    "refused": (Answer(b'{"error": "no such node"}', 400), "answers 400: no such node"),
    "no JSON": (Answer(b"<html>Bad Gateway</html>", 502), "answers 502: <html>Bad Gateway"),
    "nothing": (Answer(b"", 503), "answers 503: "),
    "no text": (Answer(b'{"error": {"code": 7}}', 500), 'answers 500: {"error": {"code": 7}}'),
    "malformed": (Answer(b'{"outputs": ['), NOT_PROTOCOL),
    "a list": (Answer(b"[]"), NOT_PROTOCOL),
    "empty": (Answer(b""), NOT_PROTOCOL),
    "no outputs": (Answer(b'{"outputs": []}'), "the model has no output"),
    "not binary": (
        Answer(b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0]}]}'),
        NOT_PROTOCOL,
    ),
    "wrong types": (
        tensors(("FP32", [-3, -2], 24), data=bytes(24)),
        "'y0' is FP32 [-3,-2], and has 24 bytes",
    ),
    "a header without a number": (tensors(SCORES, data=bytes(24), header="many"), NOT_PROTOCOL),
    "a long header": (tensors(SCORES, data=bytes(24), header="9999"), "shorter than its header"),
    "too few bytes": (tensors(SCORES, SCORES, data=bytes(40)), "it ends within 'y1'"),
    "too many bytes": (tensors(SCORES, data=bytes(25)), "it is longer than its tensors"),
    "a negative size": (tensors(("FP32", [3, 2], -1), data=bytes(24)), NOT_PROTOCOL),
    "another shape": (
        tensors(("FP32", [3, 4], 24), data=bytes(24)),
        "'y0' is FP32 [3,4], and has 24 bytes",
    ),
    "a shape beyond all bounds": (tensors(("FP32", [2**62] * 5, 24), data=bytes(24)), "24 bytes"),
    "other edges": (tensors(("FP32", [5, 1], 20), data=bytes(20)), "no scores for the 3 edges"),
    "no classes": (tensors(("FP32", [3, 0], 0), data=b""), "no scores for the 3 edges"),
    "integers": (tensors(("INT64", [3], 24), data=bytes(24)), "no scores for the 3 edges"),
    "cut off": (Answer(b'{"outputs": []}', headers={"Content-Length": "500"}), "http://127.0.0.1"),
    "closed": (Answer(silent=True), "http://127.0.0.1"),
    "late": (Answer(delay=1.5), "Timeout was reached"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_server_that_fails_is_reported(
    events: Path, faulty: Faulty, tmp_path: Path, case: str
) -> None:
    """The error says which event and why; no clusters are written, and nothing waits for ever."""
    faulty.infer, message = WRONG[case]
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    file = write_graph(tmp_path / "event.txt", torch.zeros(4, 2), edge_index)
    start = time.monotonic()
    completed = run(events, faulty.url, "edges", tmp_path, [file], timeout=0.5)
    assert time.monotonic() - start < 20
    assert completed.returncode == 1, completed.stderr
    assert completed.stdout.startswith("0 events written, 1 failed")
    assert completed.stderr.startswith("event: ")
    assert message in completed.stderr
    assert not file.with_suffix(".clusters").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Answer(b"{"), NOT_PROTOCOL),
        (Answer(b"[1]"), NOT_PROTOCOL),
        (Answer(b'{"max_batch_size": "four"}'), NOT_PROTOCOL),
        (Answer(b"busy", 503), "answers 503: busy"),
        (Answer(silent=True), "http://127.0.0.1"),
        (Answer(delay=1.5), "Timeout was reached"),
    ],
)
def test_a_server_that_does_not_say_what_it_serves(
    events: Path, faulty: Faulty, tmp_path: Path, config: Answer, message: str
) -> None:
    faulty.config = config
    file = write_graph(tmp_path / "event.txt", *graph(8, 20))
    completed = run(events, faulty.url, "edges", tmp_path, [file], timeout=0.5)
    assert completed.returncode == 1
    assert completed.stderr.startswith("event: ")
    assert message in completed.stderr


def test_later_events_do_not_suffer(events: Path, faulty: Faulty, tmp_path: Path) -> None:
    """Of all outputs the first is taken: here it keeps the edges with a positive score."""
    good = tensors(("FP32", [3], 12), data=torch.tensor([1.0, -1.0, 2.0]).numpy().tobytes())
    faulty.infer = good
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    first = write_graph(tmp_path / "first.txt", torch.zeros(4, 2), edge_index)
    other = write_graph(tmp_path / "other.txt", torch.zeros(4, 2), edge_index[:, :2])
    last = write_graph(tmp_path / "last.txt", torch.zeros(4, 2), edge_index)
    negative = tmp_path / "negative.txt"
    negative.write_text("-1 2 3\n", encoding="utf-8")
    completed = run(events, faulty.url, "edges", tmp_path, [first, negative, other, last])
    assert completed.returncode == 1
    assert completed.stdout.startswith("2 events written, 2 failed")
    assert "other: the model's output has no scores for the 2 edges" in completed.stderr
    assert "is no graph file" in completed.stderr
    for file in (first, last):
        assert file.with_suffix(".clusters").read_text() == "0\n0\n1\n1\n"


@pytest.mark.parametrize("arguments", [[], ["--timeout", "soon", "http://host", "m", ".", "e.txt"]])
def test_how_it_is_called(events: Path, arguments: list[str]) -> None:
    completed = subprocess.run([events, *arguments], capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert completed.stderr.startswith("usage: events")

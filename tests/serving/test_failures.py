"""What goes wrong: requests get a clear answer, the server lives on, later answers are right."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gnnscript.client import (
    Client,
    ClientError,
    InvalidInputError,
    ServerUnavailableError,
)
from gnnscript.client._transport import Transport, connect
from gnnscript.deploy import Installation, Server, ServerError, kubernetes
from serving.served_models import graph

Models = dict[str, torch.nn.Module]
X, EDGES = (tensor.numpy()[None] for tensor in graph(6, 14))


def changed(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.fixture
def raw(url: str) -> Iterator[Transport]:
    """The protocol alone, without the client's own checks."""
    transport = connect(url)
    yield transport
    transport.close()


# -- the caller's fault ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": changed(X, (0, 3, 1), np.nan)}, r"'x' holds NaN or infinity, first at \[3, 1\]"),
        ({"x": changed(X, (0, 0, 0), -np.inf)}, "'x' holds NaN or infinity"),
        ({"edge_index": changed(EDGES, (0, 1, 3), 6)}, "from 0 to N - 1 = 5 in row 1 of 'edge_in"),
        ({"edge_index": changed(EDGES, (0, 0, 0), -1)}, "row 0 of 'edge_index', got -1"),
        ({"edge_index": changed(EDGES, (0, 0, 0), 2**62)}, f"got {2**62}"),
        ({"edge_index": EDGES.astype(np.int32)}, "data-type is 'INT32'"),
        ({"x": X.astype(np.float64)}, "data-type is 'FP64'"),
        ({"x": X[0]}, "batch size does not match other inputs"),
        ({"x": X[:, :, :4].copy()}, "unexpected shape for input 'x'"),
        ({"edge_index": EDGES[0]}, "unexpected shape for input 'edge_index'|batch"),
        ({"x": X[:, :0].copy()}, r"as there are no nodes \(N = 0\), got \d"),
        ({"x": np.concatenate([X, X]), "edge_index": np.concatenate([EDGES, EDGES])}, "one graph"),
        ({"x": np.zeros((1, 50_001, 5), np.float32)}, "expected N of at most 50000, got 50001"),
        ({"y": X}, "unexpected inference input 'y'|expected 2 inputs but got 3"),
    ],
)
def test_a_wrong_request_is_refused(
    raw: Transport, models: Models, inputs: dict[str, np.ndarray], message: str
) -> None:
    """INVALID_ARGUMENT (400 over HTTP), which both transports raise as InvalidInputError."""
    with pytest.raises(InvalidInputError, match=message):
        raw.infer("edges", {"x": X, "edge_index": EDGES, **inputs}, 30)
    found = raw.infer("edges", {"x": X, "edge_index": EDGES}, 30)["output"][0]
    expected = models["edges"](torch.from_numpy(X[0]), torch.from_numpy(EDGES[0]))
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_missing_input(raw: Transport) -> None:
    with pytest.raises(InvalidInputError, match="expected 2 inputs but got 1"):
        raw.infer("edges", {"x": X}, 30)


def test_what_only_the_model_knows_is_wrong(raw: Transport) -> None:
    """A graph number below zero passes all checks of shape; the model itself refuses it."""
    inputs = {"x": X, "edge_index": EDGES, "batch": np.full((1, 6), -3)}
    with pytest.raises(InvalidInputError, match="the model does not take these inputs"):
        raw.infer("graphs", inputs, 30)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_two_hundred_requests_at_once(server: Server, models: Models, scheme: str) -> None:
    """Graphs of all sizes, a fifth of the requests wrong: each gets its own answer."""
    url = server.http_url if scheme == "http" else server.grpc_url
    transport = connect(url)
    random = np.random.default_rng(3)
    calls = []
    for number in range(200):
        nodes = int(random.choice([0, 1, 3, 20, 400]))
        x, edge_index = graph(nodes, int(random.integers(0, 4 * nodes + 1)), seed=number)
        wrong = number % 5 == 0 and nodes > 0
        if wrong:
            x[0, 0] = torch.nan
        calls.append((x, edge_index, wrong))
    answers: list[np.ndarray | Exception | None] = [None] * len(calls)

    def call(number: int) -> None:
        x, edge_index, _ = calls[number]
        inputs = {"x": x.numpy()[None], "edge_index": edge_index.numpy()[None]}
        try:
            answers[number] = transport.infer("edges", inputs, 120)["output"][0]
        except InvalidInputError as error:
            answers[number] = error

    threads = [threading.Thread(target=call, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()
    for (x, edge_index, wrong), answer in zip(calls, answers, strict=True):
        if wrong:
            assert "holds NaN" in str(answer)
        else:
            expected = models["edges"](x, edge_index).detach().numpy()
            assert isinstance(answer, np.ndarray), answer
            np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_a_large_graph(edges: Client, models: Models) -> None:
    x, edge_index = graph(40_000, 400_000)
    found = edges(x.numpy(), edge_index.numpy())
    with torch.no_grad():
        expected = models["edges"](x, edge_index)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


# -- the repository's fault -----------------------------------------------------------------------


@pytest.fixture
def alone(repository: Path, tmp_path: Path) -> Path:
    """A repository with one model, for a test to spoil."""
    shutil.copytree(repository / "edges", tmp_path / "models" / "edges")
    return tmp_path / "models"


def test_models_that_do_not_load(installation: Installation, alone: Path) -> None:
    """A truncated file, and a manifest that does not match: the reason is said for each."""
    shutil.copytree(alone / "edges", alone / "other")
    file = alone / "edges" / "1" / "model.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    config = alone / "other" / "config.pbtxt"
    text = config.read_text().replace("[ -1, 5 ]", "[ -1, 6 ]").replace('"edges"', '"other"')
    config.write_text(text[: text.index("model_warmup")])
    with pytest.raises(ServerError) as caught:
        Server(alone, installation=installation).start()
    reasons = str(caught.value)
    assert re.search(r"edges: .*model\.pt' is damaged .*; export the model again", reasons)
    assert re.search(r"other: .*does not match the manifest.*x: TYPE_FP32 \[-1, 6\]", reasons)


def test_paths_of_any_letters(
    installation: Installation, repository: Path, tmp_path: Path, models: Models
) -> None:
    folder = tmp_path / "modèles du détecteur"
    shutil.copytree(repository / "edges", folder / "edges")
    x, edge_index = graph(9, 20)
    with Server(folder, installation=installation) as server:
        found = Client(server.http_url, "edges")(x.numpy(), edge_index.numpy())
    with torch.no_grad():
        expected = models["edges"](x, edge_index)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
    file = folder / "edges" / "1" / "model.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ServerError, match=r"model\.pt' is damaged .*; export the model again"):
        Server(folder, installation=installation).start()


def test_configurations_that_cannot_be_read(installation: Installation, alone: Path) -> None:
    """The server would be ready without these models."""
    for name in ("misspelt", "misnamed"):
        shutil.copytree(alone / "edges", alone / name)
    file = alone / "misspelt" / "config.pbtxt"
    text = file.read_text().replace('"edges"', '"misspelt"').replace("dims:", "sizes:", 1)
    file.write_text(text)
    with pytest.raises(ServerError) as caught:
        Server(alone, installation=installation).start()
    reasons = str(caught.value)
    assert f"misspelt: failed to read text proto from {file}: " in reasons
    assert 'has no field named "sizes"' in reasons
    assert re.search("misnamed: .*directory name must equal model name", reasons)
    assert "\nedges: " not in reasons


def test_a_repository_that_is_none(installation: Installation, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="there is no model repository"):
        Server(tmp_path / "nothing", installation=installation)


# -- the server's fault ---------------------------------------------------------------------------


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_port_that_is_taken(server: Server, installation: Installation, alone: Path) -> None:
    """Another server that answers there must not be taken for the new one."""
    for kind, url in (("http", server.http_url), ("grpc", server.grpc_url)):
        port = {f"{kind}_port": port_of(url)}
        with pytest.raises(ServerError, match=f"cannot listen on port {port_of(url)}"):
            Server(alone, installation=installation, **port).start()
    assert server.ready()


def restarted(server: Server, installation: Installation) -> Server:
    """A server in the place of one that has ended."""
    return Server(
        server.repository,
        installation=installation,
        http_port=port_of(server.http_url),
        grpc_port=port_of(server.grpc_url),
    )


def test_a_server_that_is_killed_and_returns(installation: Installation, alone: Path) -> None:
    server = Server(alone, installation=installation).start()
    big = [tensor.numpy() for tensor in graph(40_000, 450_000)]
    with (
        Client(server.http_url, "edges", retries=2) as http,
        Client(server.grpc_url, "edges", retries=2) as grpc,
    ):
        clients = (http, grpc)
        expected = [client(X[0], EDGES[0]) for client in clients]
        # During a request it is said at once, and not after a timeout; and between requests.
        futures = [client.submit(*big) for client in clients for _ in range(2)]
        time.sleep(0.3)
        server.kill()
        start = time.monotonic()
        outcomes = [future.exception(timeout=60) for future in futures]
        assert any(isinstance(error, ServerUnavailableError) for error in outcomes)
        for client in clients:
            with pytest.raises(ServerUnavailableError, match="no server is available"):
                client(X[0], EDGES[0])
            assert not client.ready()
        assert time.monotonic() - start < 30
        with restarted(server, installation) as returned:
            for client, before in zip(clients, expected, strict=True):
                np.testing.assert_allclose(client(X[0], EDGES[0]), before, rtol=1e-6)
            # A stop is no failure: what is in progress is answered first.
            future = http.submit(*big)
            time.sleep(0.5)
            returned.stop()
            assert future.result(timeout=60).shape == (450_000, 4)
            assert not returned.ready()


def outcomes_of(client: Client, models: Models, stop: threading.Event) -> list[str]:
    """Calls until it is told to stop: what each call came to, a right answer as "right"."""
    found = []
    number = 0
    while not stop.is_set():
        number += 1
        x, edge_index = graph(number % 30 + 1, 3 * number % 50, seed=number)
        try:
            answer = client(x, edge_index)
        except ClientError as error:
            found.append(type(error).__name__)
            stop.wait(0.02)
            continue
        expected = models["edges"](x, edge_index).detach().numpy()
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
        found.append("right")
    return found


def test_models_are_unloaded_and_loaded_under_load(
    installation: Installation, alone: Path, models: Models
) -> None:
    """Each request gets its right answer, or is told that the model is not there."""
    options = ("--model-control-mode=explicit", "--load-model=edges")
    with Server(alone, installation=installation, options=options) as server:

        def control(action: str) -> None:
            url = f"{server.http_url}/v2/repository/models/edges/{action}"
            with urllib.request.urlopen(url, data=b"{}", timeout=60) as answer:
                assert answer.status == 200

        stop = threading.Event()
        with (
            Client(server.http_url, "edges", retries=0) as http,
            Client(server.grpc_url, "edges", retries=0) as grpc,
            ThreadPoolExecutor(4) as executor,
        ):
            calls = [
                executor.submit(outcomes_of, c, models, stop) for c in (http, grpc, http, grpc)
            ]
            for action in ("unload", "load", "load", "unload", "load"):
                time.sleep(0.3)
                control(action)
            time.sleep(1)
            stop.set()
            found = [call.result(60) for call in calls]
            known = {"right", "UnknownModelError", "ServerUnavailableError"}
            assert set().union(*found) <= known
            assert all("right" in each and len(set(each)) > 1 for each in found)
            for client in (http, grpc):
                assert client(X[0], EDGES[0]).shape == (14, 4)


def test_a_server_is_terminated_under_load(
    installation: Installation, alone: Path, models: Models
) -> None:
    """What it has taken is answered; what comes later is refused, and nobody waits for it."""
    server = Server(alone, installation=installation).start()
    stop = threading.Event()
    with (
        Client(server.http_url, "edges", retries=0) as http,
        Client(server.grpc_url, "edges", retries=0) as grpc,
        ThreadPoolExecutor(4) as executor,
    ):
        calls = [executor.submit(outcomes_of, c, models, stop) for c in (http, grpc, http, grpc)]
        time.sleep(1)
        server.stop()
        stop.set()
        for call in calls:
            found = call.result(30)
            refused = next((n for n, each in enumerate(found) if each != "right"), len(found))
            assert refused > 0
            # Its models go before it does.
            assert set(found[refused:]) <= {"UnknownModelError", "ServerUnavailableError"}
        for client in (http, grpc):
            with pytest.raises(ServerUnavailableError):
                client(X[0], EDGES[0])


def test_one_of_two_servers_is_killed_under_load(
    installation: Installation, alone: Path, models: Models
) -> None:
    """No request is lost, the other server takes over, and the one that returns is used again."""
    servers = [Server(alone, installation=installation).start() for _ in range(2)]
    graphs = [graph(n, 4 * n, seed=n) for n in range(2, 60)]
    expected = [models["edges"](*call).detach().numpy() for call in graphs]
    done = 0
    wrong: list[str] = []
    stop = threading.Event()
    try:
        with Client([server.http_url for server in servers], "edges") as client:

            def work(offset: int) -> None:
                nonlocal done
                number = offset
                while not stop.is_set():
                    number = (number + 7) % len(graphs)
                    try:
                        found = client(*graphs[number])
                        np.testing.assert_allclose(found, expected[number], rtol=1e-4, atol=1e-5)
                    except Exception as error:
                        wrong.append(repr(error))
                    done += 1

            threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(1.5)
            both = [answered(server) for server in servers]
            servers[1].kill()
            time.sleep(1.5)
            before = answered(servers[0])
            servers[1] = restarted(servers[1], installation).start()
            time.sleep(2.5)
            after = [answered(server) for server in servers]
            stop.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert min(both) > 10  # both were at work,
        assert before > both[0]  # then one alone,
        assert after[1] > 10  # then both again.
        assert done > 100
    finally:
        for server in servers:
            server.stop()


def stubs(server: Server) -> list[int]:
    """The processes of a server's models that are alive."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == server.pid and state != "Z":
                found.append(int(file.parent.name))
    return found


def test_a_model_whose_process_is_killed_under_load_returns(
    installation: Installation, alone: Path, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    """No request is lost: those that it had begun are sent again, until it is back."""
    graphs = [graph(n, 4 * n, seed=n) for n in range(2, 30)]
    expected = [models["edges"](*call).detach().numpy() for call in graphs]
    stop = threading.Event()
    done = [0] * 4
    before = sorted(file.relative_to(alone) for file in alone.rglob("*"))
    with (
        Server(alone, installation=installation) as server,
        Client(server.http_url, "edges", timeout=180, retries=12) as client,
    ):
        (process,) = stubs(server)

        def work(worker: int) -> list[str]:
            wrong = []
            while not stop.is_set():
                number = (7 * done[worker] + worker) % len(graphs)
                try:
                    found = client(*graphs[number])
                    np.testing.assert_allclose(found, expected[number], rtol=1e-4, atol=1e-5)
                except Exception as error:
                    wrong.append(repr(error))
                done[worker] += 1
            return wrong

        with ThreadPoolExecutor(4) as executor:
            workers = [executor.submit(work, n) for n in range(4)]
            time.sleep(0.5)
            os.kill(process, signal.SIGKILL)
            at_death = list(done)
            deadline = time.monotonic() + 120
            while min(now - then for now, then in zip(done, at_death, strict=True)) < 3:
                assert time.monotonic() < deadline, "the model did not return"
                time.sleep(0.1)
            stop.set()
        assert [worker.result() for worker in workers] == [[]] * 4
        assert min(at_death) > 0
        (returned,) = stubs(server)
        assert returned != process
        # By this, Kubernetes finds such a process.
        assert "(triton_python_b) Z" in Path(f"/proc/{process}/stat").read_text()
        probe = yaml.safe_load(kubernetes("image").split("---")[0])["spec"]["template"]["spec"]
        command = probe["containers"][0]["livenessProbe"]["exec"]["command"]
        alive = command[-1].partition("&&")[0]
        assert subprocess.run(["sh", "-c", alive], check=False).returncode == 1
    assert f"the process {process} of the model 'edges' has died" in caplog.text
    # What the server is told, it is told in a folder of its own.
    assert sorted(file.relative_to(alone) for file in alone.rglob("*")) == before


def answered(server: Server) -> int:
    with urllib.request.urlopen(f"{server.http_url}/v2/models/edges/stats") as answer:
        return int(json.load(answer)["model_stats"][0]["inference_stats"]["success"]["count"])

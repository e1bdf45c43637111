"""What the libtorch backend of a real server makes of the repositories written for it.

The server of the wheel does not have it; docs/deployment.md says how to get it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gnnscript
from gnnscript.client import Client, InvalidInputError, ServerFailureError
from gnnscript.client._transport import connect
from gnnscript.deploy import Installation, Server, ServerError, find_server, flat_call, triton
from gnnscript.deploy.installation import linked
from gnnscript.deploy.package import scripted_for
from gnnscript.deploy.structure import Call, flat_outputs
from gnnscript.ops import library
from serving.libtorch_models import CASES
from serving.served_models import Edges, graph
from serving.test_commands import free_ports

NATIVE = pytest.mark.skipif(not library.paths(), reason="the native library is not built")
SIZES = [(8, 20), (6, 11)]
X, EDGES = (tensor.numpy() for tensor in graph(6, 14))


def results(model: torch.nn.Module, call: Call) -> list[Tensor]:
    """What the eager model returns, as flat tensors with dimensions."""
    given = copy.deepcopy(call)  # it may write to them
    found = model(*given) if isinstance(given, tuple) else model(**given)
    return [tensor.detach() for _, tensor in flat_outputs(found, numbers=True)]


def close(found: Any, expected: list[Tensor]) -> None:
    arrays = list(found.values()) if isinstance(found, dict) else found
    arrays = arrays if isinstance(arrays, (list, tuple)) else [arrays]
    for array, want in zip(arrays, expected, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(array), want, rtol=1e-4, atol=1e-5, equal_nan=True
        )


@dataclass
class Service:
    """The models of one kind of ops, served."""

    server: Server
    models: dict[str, torch.nn.Module]
    repository: Path
    kernels: str

    def flat(self, name: str, call: Call) -> dict[str, np.ndarray]:
        scripted = scripted_for(self.models[name], None, [call])
        return {key: tensor.numpy() for key, tensor in flat_call(scripted, call).items()}


@pytest.fixture(scope="module", params=["portable", pytest.param("native", marks=NATIVE)])
def service(
    request: pytest.FixtureRequest,
    libtorch: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    torch.manual_seed(3)
    repository = tmp_path_factory.mktemp(f"models of {request.param} ops")
    models = {name: case.make().eval() for name, case in CASES.items()}
    with gnnscript.kernels(request.param):  # a gradient inside takes portable ones
        for name, case in CASES.items():
            calls = [case.call(*size) for size in SIZES]
            options = {"threads": 1, **case.options}
            triton(models[name], calls, repository, name, backend="libtorch", **options)
    with Server(repository, installation=libtorch) as server:
        yield Service(server, models, repository, request.param)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_eager_model(service: Service, name: str) -> None:
    case, model = CASES[name], service.models[name]
    sizes = [*SIZES, (40, 300), (5, 3), (1, 1)]
    sizes += [(5, 0), (1, 0), (0, 0)] if case.empty else []
    for url in (service.server.http_url, service.server.grpc_url):
        with Client(url, name, timeout=30) as client:
            for size in sizes:
                call = case.call(*size)
                expected = results(model, call)
                close(client(*service.flat(name, call).values()), expected)


def test_inputs_in_any_order_and_some_results(service: Service) -> None:
    x, edge_index = graph(9, 25)
    expected = results(service.models["messages"], (x, edge_index))
    for url in (service.server.http_url, service.server.grpc_url):
        transport = connect(url)
        arrays = {"edge_index": edge_index.numpy(), "x": x.numpy()}
        for given in (arrays, dict(reversed(arrays.items()))):
            found = transport.infer("messages", given, 30)
            close([found["output_0"], found["output_1"]], expected)
        transport.close()
    # The protocol's plain form, with one of two results asked for.
    request = {
        "inputs": [
            {"name": "edge_index", "shape": [2, 25], "datatype": "INT64"},
            {"name": "x", "shape": [9, 5], "datatype": "FP32"},
        ],
        "outputs": [{"name": "output_1"}],
    }
    request["inputs"][0]["data"] = edge_index.tolist()
    request["inputs"][1]["data"] = x.tolist()
    url = f"{service.server.http_url}/v2/models/messages/infer"
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=30) as answer:
        (output,) = json.load(answer)["outputs"]
    assert (output["name"], output["shape"]) == ("output_1", [9, 10])
    torch.testing.assert_close(torch.tensor(output["data"]).view(9, 10), expected[1])


def changed(index: tuple[int, ...], value: int) -> dict[str, np.ndarray]:
    array = EDGES.copy()
    array[index] = value
    return {"edge_index": array}


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (changed((1, 3), 6), ServerFailureError, "PyTorch execute failure"),
        (changed((0, 0), 2**62), ServerFailureError, "PyTorch execute failure"),
        (changed((1, 0), -(2**62)), ServerFailureError, "PyTorch execute failure"),
        ({"x": X[:0]}, ServerFailureError, "PyTorch execute failure"),
        ({"edge_index": EDGES.astype(np.int32)}, InvalidInputError, "data-type is 'INT32'"),
        ({"x": X.astype(np.float64)}, InvalidInputError, "data-type is 'FP64'"),
        ({"x": X[:, :4].copy()}, InvalidInputError, "unexpected shape for input 'x'"),
        ({"x": X[None]}, InvalidInputError, "unexpected shape for input 'x'"),
        ({"edge_index": EDGES[0]}, InvalidInputError, "unexpected shape for input 'edge_index'"),
        ({"y": X}, InvalidInputError, "unexpected inference input 'y'|expected 2 inputs but got 3"),
    ],
)
@pytest.mark.parametrize("name", ["edgenet", "gat"])
def test_a_wrong_request_harms_none_of_the_others(
    service: Service,
    name: str,
    inputs: dict[str, np.ndarray],
    error: type[Exception],
    message: str,
) -> None:
    right = {"x": X, "edge_index": EDGES}
    expected = results(service.models[name], graph(6, 14))
    for url in (service.server.http_url, service.server.grpc_url):
        transport = connect(url)
        with pytest.raises(error, match=message):
            transport.infer(name, {**right, **inputs}, 30)
        close(transport.infer(name, right, 30)["output"], expected)
        transport.close()


def test_many_requests_at_once(service: Service) -> None:
    """Instances share a process: of different sizes, and of several models."""
    sizes = [(n, e) for n in (1, 4, 0, 30, 300) for e in (0, 3, 2000) if n or not e] * 5
    url = [service.server.http_url, service.server.grpc_url]
    names = ("edgenet", "gat", "messages")
    with ThreadPoolExecutor(6) as pool:
        clients = {name: pool.submit(Client, url, name, workers=6).result() for name in names}
        pending = []
        for seed, size in enumerate(sizes):
            for name in names:
                call = graph(*size, seed=seed)
                pending.append((name, call, clients[name].submit(*call)))
        for name, call, future in pending:
            close(future.result(), results(service.models[name], call))
        for client in clients.values():
            client.close()


def test_execution_settings_of_the_backend(
    service: Service, libtorch: Installation, tmp_path: Path
) -> None:
    """A user may set them in the configuration; results stay."""
    settings = [
        {"INFERENCE_MODE": "false"},
        {"DISABLE_OPTIMIZED_EXECUTION": "true"},
        {"ENABLE_JIT_PROFILING": "false", "ENABLE_JIT_EXECUTOR": "false"},
        {"ENABLE_TENSOR_FUSER": "true", "ENABLE_WEIGHT_SHARING": "true"},
    ]
    for number, parameters in enumerate(settings):
        folder = tmp_path / f"model{number}"
        shutil.copytree(service.repository / "gat", folder)
        config = (folder / "config.pbtxt").read_text().replace('"gat"', f'"{folder.name}"')
        for key, value in parameters.items():
            config = re.sub(rf'parameters {{ key: "{key}".*\n', "", config)
            config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        (folder / "config.pbtxt").write_text(config)
    with Server(tmp_path, installation=libtorch) as server:
        for number in range(len(settings)):
            with Client(server.http_url, f"model{number}") as client:
                for size in ((8, 20), (30, 90), (4, 0), (60, 200), (8, 20)):
                    call = graph(*size)
                    close(client(*call), results(service.models["gat"], call))


def test_commands_start_it(service: Service, libtorch: Installation, tmp_path: Path) -> None:
    """`gnnscript serve` with a folder of backends, and `run.sh` with a server on the path."""
    backend = libtorch.backend("pytorch")
    assert backend is not None
    repository = tmp_path / "models"
    repository.mkdir()
    for name in ("gat", "forces"):
        shutil.copytree(service.repository / name, repository / name)
    shutil.copy(service.repository / "run.sh", repository)
    folder = libtorch.gathered(tmp_path / "backends")
    environment = {k: v for k, v in os.environ.items() if k != "GNNSCRIPT_TRITON_BACKENDS"}
    serve = [sys.executable, "-m", "gnnscript", "serve", str(repository)]
    started = [([*serve, f"--backends={backend.parents[1]}"], environment)]
    paths = [str(libtorch.executable.parent), environment["PATH"]]
    environment = {**environment, "PATH": os.pathsep.join(paths)}
    torch_library = linked(backend.resolve(), environment)["libtorch_cpu.so"]
    assert torch_library is not None
    environment["TORCH_LIBRARIES"] = str(torch_library.parent)
    script = [str(repository / "run.sh"), "--http-address=127.0.0.1", "--allow-grpc=false"]
    script += ["--allow-metrics=false"]
    if folder is not None:
        script.append(f"--backend-directory={folder}")
    started.append((script, environment))
    for command, variables in started:
        port = free_ports()[0]
        process = subprocess.Popen(
            [*command, f"--http-port={port}"],
            env={**variables, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            ready = ("ready: ", "Started HTTPService")
            seen: list[str] = []
            for line in process.stderr:
                seen.append(line)
                if any(mark in line for mark in ready):
                    break
            else:
                pytest.fail("".join(seen))
            for name in ("gat", "forces"):
                with Client(f"http://127.0.0.1:{port}", name) as client:
                    close(client(*graph(9, 25)), results(service.models[name], graph(9, 25)))
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
            assert process.wait(60) == 0, log
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


@NATIVE
def test_beside_models_of_the_python_backend(
    service: Service, libtorch: Installation, tmp_path: Path
) -> None:
    model = service.models["gat"]
    shutil.copytree(service.repository / "gat", tmp_path / "gat")
    calls = [graph(*size) for size in SIZES]
    triton(model, calls, tmp_path, "other", kernels=service.kernels, threads=1)
    with Server(tmp_path, installation=libtorch) as server:
        for name in ("gat", "other"):
            with Client(server.grpc_url, name) as client:
                close(client(*graph(30, 90)), results(model, graph(30, 90)))
        # What the server loads before its backend is not for those: they may have another torch.
        environments = [
            (process / "environ").read_bytes()
            for process in Path("/proc").glob("[0-9]*")
            if _parent(process) == server.pid
        ]
        assert environments
        assert not any(b"LD_PRELOAD" in found for found in environments)


def _parent(process: Path) -> int | None:
    try:
        found = re.search(r"^PPid:\s*(\d+)$", (process / "status").read_text(), re.MULTILINE)
    except OSError:  # it has ended
        return None
    return int(found[1]) if found else None


@NATIVE
def test_libraries_that_differ_or_are_missing(libtorch: Installation, tmp_path: Path) -> None:
    for name in ("first", "second"):
        triton(
            Edges(), graph(8, 20), tmp_path, name, backend="libtorch", kernels="native", threads=1
        )
    (found, *_) = (tmp_path / "second" / "1").glob("libgnnscript*.so")
    with found.open("ab") as file:
        file.write(b"another")
    server = Server(tmp_path, installation=libtorch)
    with pytest.raises(ServerError, match=f"first/1/{found.name}' and .*' differ, and a ser"):
        server.start()
    for file in tmp_path.glob("*/1/libgnnscript*.so"):
        file.unlink()
    with pytest.raises(ServerError, match=r"(?s)gnnscript::.*the library beside the model"):
        server.start()


def test_a_model_file_that_is_cut_off(
    service: Service, libtorch: Installation, tmp_path: Path
) -> None:
    for name in ("gat", "edgenet"):
        shutil.copytree(service.repository / name, tmp_path / name)
    file = tmp_path / "gat" / "1" / "model.pt"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    server = Server(tmp_path, installation=libtorch)
    with pytest.raises(ServerError, match="gat: Internal: failed to load model 'gat'"):
        server.start()
    file.write_bytes(content)
    with server, Client(server.http_url, "gat") as client:
        close(client(*graph(9, 25)), results(service.models["gat"], graph(9, 25)))


def test_a_folder_without_backends_is_refused(installation: Installation, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"expected such as pytorch/libtriton_pytorch\.so"):
        find_server(tmp_path)
    (tmp_path / "pytorch").mkdir()
    (tmp_path / "pytorch" / "libtriton_pytorch.so").touch()
    found = find_server(tmp_path)
    assert found == dataclasses.replace(installation, further=tmp_path)
    assert found.backend("pytorch") == tmp_path / "pytorch" / "libtriton_pytorch.so"
    gathered = found.gathered(tmp_path / "all")
    assert gathered is not None
    assert "pytorch" in {folder.name for folder in gathered.iterdir()}

"""The commands that write repositories and serve them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from gnnscript.cli import main
from gnnscript.client import Client
from gnnscript.deploy import DeployError, Installation, kubernetes, triton
from serving.served_models import Edges, graph

MODELS = Path(__file__).with_name("served_models.py")
MODEL = """
import torch
from serving.served_models import Centred, Edges, graph

torch.manual_seed(1)
model = Edges().eval()


def examples():
    return [graph(7, 13), graph(5, 9)]
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "program.py"
    file.write_text(MODEL)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return file


def test_export_and_serve(
    program: Path, installation: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = program.parent / "models"
    export = ["export", f"{program}:model", "--inputs", f"{program}:examples"]
    export += ["--triton", str(repository), "--name", "edges", "--limit", "N=100", "--threads", "1"]
    export += ["--kernels", "portable"]
    assert main(export) == 0
    assert f"serve it by: gnnscript serve {repository}" in capfd.readouterr().out
    assert main(export) == 2
    assert "pass overwrite=True (--overwrite) to replace it" in capfd.readouterr().err
    assert main([*export, "--overwrite"]) == 0
    files = sorted(
        file.relative_to(repository).as_posix() for file in repository.rglob("*") if file.is_file()
    )
    assert files == [
        "Dockerfile",
        "edges/1/model.pt",
        "edges/1/model.py",
        "edges/README.md",
        "edges/config.pbtxt",
        "edges/warmup/edge_index_0",
        "edges/warmup/edge_index_1",
        "edges/warmup/x_0",
        "edges/warmup/x_1",
        "run.sh",
    ]
    ports = [f"--{name}-port={port}" for name, port in zip(KINDS, PORTS, strict=True)]
    serve = subprocess.Popen(
        [sys.executable, "-m", "gnnscript", "serve", str(repository), *ports],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serve.stderr is not None
        line = next(line for line in serve.stderr if line.startswith(("ready: ", "gnnscript: ")))
        assert line == (
            f"ready: http://127.0.0.1:{PORTS[0]}, grpc://127.0.0.1:{PORTS[1]}, "
            f"http://127.0.0.1:{PORTS[2]}/metrics\n"
        )
        with Client(f"127.0.0.1:{PORTS[0]}", "edges") as client:
            assert client(*graph(9, 20)).shape == (20, 4)
            # A server that dies is started again, where it stood long enough.
            time.sleep(5)
            (child,) = Path(f"/proc/{serve.pid}/task/{serve.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGKILL)
            again = [next(serve.stderr)]
            while not again[-1].startswith("ready: "):
                again.append(next(serve.stderr))
            assert any("with exit code -9; starting it again" in text for text in again), again
            with pytest.raises(ProcessLookupError):  # nor is a process of its models left
                os.killpg(int(child), 0)
            assert client(*graph(9, 20)).shape == (20, 4)
        serve.send_signal(signal.SIGTERM)
        serve.stderr.read()
        assert serve.wait(60) == 0
    finally:
        serve.kill()
        serve.wait()
        serve.stderr.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{PORTS[0]}/v2/health/live", timeout=2)


def free_ports() -> list[int]:
    import socket

    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


KINDS = ("http", "grpc", "metrics")
PORTS = free_ports()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "expected --pt, --aoti, --onnx, --triton or --kubernetes and where to write"),
        (
            ["export", "--triton", "models"],
            "a model is exported by its target and --inputs, its example inputs",
        ),
        (["export", "--kubernetes", "file"], "--kubernetes needs --image"),
        (
            ["export", f"{MODELS}:Edges", "--inputs", f"{MODELS}:graph", "--pt", "model.pt"],
            f"expected '{MODELS}:graph' to need no arguments, as it is a function: missing",
        ),
        (["serve"], "expected a model repository to serve, got none"),
        (["serve", "nowhere"], "there is no model repository 'nowhere'"),
    ],
)
def test_what_is_missing_is_named(arguments, message, capsys) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_saved_is_exported(program: Path, capsys) -> None:
    import gnnscript

    saved = program.parent / "saved.pt"
    gnnscript.save(Edges().eval(), saved, example_inputs=graph(6, 10))
    repository = program.parent / "models"
    export = ["export", str(saved), "--inputs", f"{program}:examples", "--triton", str(repository)]
    assert main([*export, "--backend", "libtorch"]) == 0
    config = (repository / "saved" / "config.pbtxt").read_text()
    assert 'platform: "pytorch_libtorch"' in config
    assert "max_batch_size: 0" in config
    assert re.search(r'name: "edge_index"\n  data_type: TYPE_INT64\n  dims: \[ 2, -1 \]', config)
    assert not (repository / "saved" / "1" / "model.py").exists()


def test_names_and_settings_are_checked(tmp_path: Path) -> None:
    example = graph(6, 10)
    with pytest.raises(ValueError, match="expected a name of letters"):
        triton(Edges(), example, tmp_path, "a/b")
    with pytest.raises(ValueError, match="expected backend to be 'python' or 'libtorch'"):
        triton(Edges(), example, tmp_path, "edges", backend="onnx")
    with pytest.raises(DeployError, match="limits are for the sizes N, E, and got M"):
        triton(Edges(), example, tmp_path, "edges", limits={"M": 3})
    assert not list(tmp_path.glob("**/config.pbtxt"))


def test_kubernetes(tmp_path: Path, capsys) -> None:
    file = tmp_path / "deployment.yaml"
    arguments = ["--kubernetes", str(file), "--image", "registry/models:1", "--gpus", "1"]
    assert main(["export", *arguments, "--replicas", "3"]) == 0
    found = {
        (item["kind"], item["metadata"]["name"]): item
        for item in yaml.safe_load_all(file.read_text())
    }
    assert set(found) == {
        ("Deployment", "gnnscript"),
        ("Service", "gnnscript"),
        ("Service", "gnnscript-replicas"),
        ("PodDisruptionBudget", "gnnscript"),
        ("HorizontalPodAutoscaler", "gnnscript"),
    }
    deployment = found["Deployment", "gnnscript"]["spec"]
    assert deployment["replicas"] == 3
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["image"] == "registry/models:1"
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    shell, option, probe = container["livenessProbe"]["exec"]["command"]
    assert (shell, option) == ("sh", "-c")
    # What it finds is tested in test_failures.py.
    assert subprocess.run(["sh", "-n", "-c", probe], check=False).returncode == 0
    labels = deployment["template"]["metadata"]["labels"]
    for name in ("gnnscript", "gnnscript-replicas"):
        assert found["Service", name]["spec"]["selector"] == labels
    assert found["Service", "gnnscript-replicas"]["spec"]["clusterIP"] == "None"
    scaler = found["HorizontalPodAutoscaler", "gnnscript"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 12)
    without = yaml.safe_load(kubernetes("image", name="edge-net").split("---")[0])
    assert without["metadata"]["name"] == "edge-net"
    resources = without["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "8Gi"}


@pytest.mark.parametrize(
    "options",
    [
        *({"name": name} for name in ("A_b", "é", "a-", "", "a" * 60)),
        *({"image": image} for image in ("", "an image", "a: b")),
        *({"replicas": 0}, {"gpus": -1}),
    ],
)
def test_kubernetes_options_are_checked(options) -> None:
    with pytest.raises(ValueError, match="expected"):
        kubernetes(**{"image": "image", **options})


@pytest.mark.parametrize(
    "setting",
    [
        {"instances": 0},
        {"max_batch_size": 0},
        {"threads": -1},
        {"max_queue_delay": -0.1},
        {"limits": {"N": 0}},
    ],
)
def test_settings_of_a_model_are_checked(setting, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to be at least"):
        triton(Edges(), graph(6, 10), tmp_path / "models", "edges", **setting)
    assert not (tmp_path / "models").exists()


def shown(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_run_preloads_the_libraries_of_libtorch_models(tmp_path: Path) -> None:
    """Each once; the Python backend loads its own; two that differ are refused."""
    repository = tmp_path / "models"
    triton(Edges().eval(), graph(6, 10), repository, "edges", backend="libtorch", threads=1)
    for file in repository.glob("*/1/libgnnscript*.so"):
        file.unlink()
    for name, text, python in (("one", "a", False), ("two", "a", False), ("three", "b", True)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "libgnnscript_test.so").write_text(text)
        if python:
            (repository / name / "1" / "model.py").touch()
    # The files are no libraries, so the dynamic linker shows what it would load.
    tools = {
        "ldd": f"echo '  {tmp_path}/tools/own.so (0x1)'; echo '  {tmp_path}/tools/ld.so (0x2)'",
        "ld.so": 'echo "$@"; echo "preloaded: ${LD_PRELOAD:-nothing}, $LD_LIBRARY_PATH"',
        "tritonserver": "exit 2",
    }
    (tmp_path / "tools").mkdir()
    for name, text in tools.items():
        (tmp_path / "tools" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "tools" / name).chmod(0o755)
    run = [str(repository / "run.sh"), "--http-port=9"]
    environment = {**os.environ, "TORCH_LIBRARIES": "/torch", "LD_LIBRARY_PATH": "/own"}
    environment.pop("LD_PRELOAD", None)
    alone = shown(run, **{**environment, "PATH": "/usr/bin:/bin"})
    assert (alone.returncode, alone.stderr) == (1, "run.sh: there is no tritonserver on the path\n")
    environment["PATH"] = os.pathsep.join([str(tmp_path / "tools"), environment["PATH"]])
    output = shown(run, **environment)
    once = repository / "one" / "1" / "libgnnscript_test.so"
    started, preloaded = output.stdout.splitlines()
    assert started.split(" ") == [
        *("--preload", str(once), "--library-path", "/torch:/own"),
        *(f"{tmp_path}/tools/tritonserver", f"--model-repository={repository}", "--http-port=9"),
    ]
    assert preloaded == "preloaded: nothing, /own"
    (repository / "two" / "1" / "libgnnscript_test.so").write_text("c")
    refused = shown(run, **environment)
    assert refused.returncode == 1
    assert "differ; export these models again" in refused.stderr

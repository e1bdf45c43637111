"""What the deployment tests share: C++ programs, built once, and a bare process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from gnnscript.cpp import cmake_prefix
from gnnscript.testing import BareProcess

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process


def build(source: Path, folder: Path, *options: str, packages: str = "") -> Path:
    """Configures and builds a CMake project, and returns the folder of its programs.

    Args:
        source: The folder of its CMakeLists.txt.
        folder: Where to build.
        options: For the configuration.
        packages: What may be missing on the machine: the test is skipped then.
    """
    # `make` installs cmake and ninja beside the Python of the tests.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    if shutil.which("cmake", path=path) is None or shutil.which("c++") is None:
        pytest.skip("cmake and a C++ compiler are needed to build the programs")
    # Without debugging information, which takes half of the time.
    flags = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"]
    commands = [
        ["cmake", "-S", str(source), "-B", str(folder), *flags, *options],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ]
    for command in commands:
        completed = subprocess.run(
            command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        said = " ".join(completed.stderr.lower().split())
        if packages and "could not find" in said:
            pytest.skip(f"needs {packages}, see {source / 'CMakeLists.txt'}")
        if "uses cuda but i cannot find the cuda libraries" in said:
            pytest.skip("CMake finds a torch that was built with CUDA only beside CUDA's toolkit")
        assert completed.returncode == 0, completed.stdout + completed.stderr
    return folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the C++ programs, built against the libtorch of Python's torch."""
    # Parallel workers share the build: it is in the folder above their own.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "cpp.lock"):
        return build(HERE / "cpp", shared / "cpp", f"-DCMAKE_PREFIX_PATH={cmake_prefix()}")


Answer = Callable[..., "dict[str, Tensor] | str"]


@pytest.fixture
def answer(programs: Path, tmp_path: Path) -> Iterator[Answer]:
    """Runs a model in a C++ process: its outputs by name, or the message of its error."""
    process = subprocess.Popen(
        [programs / "answer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(model: Path, inputs: dict[str, Tensor]) -> dict[str, Tensor] | str:
        torch.save(inputs, tmp_path / "inputs")
        print(model, tmp_path / "inputs", tmp_path / "outputs", file=process.stdin, flush=True)
        line = process.stdout.readline()
        kind, _, text = line.rstrip("\n").partition(" ")
        assert kind in ("ok", "error"), f"the C++ program ended with {process.wait()}"
        if kind == "error":
            return text
        # What pickle_save of C++ writes names a function of torch's that is not on its own list.
        found = torch.load(tmp_path / "outputs", weights_only=False)
        return {str(name): tensor for name, tensor in found.items()}

    yield ask
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()

"""The CUDA kernels, as far as a machine without a GPU can tell: all are there, and compute."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gnnscript.ops import library

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "src/gnnscript/csrc"


def registered(pattern: str) -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in CSRC.glob(pattern)]
    return {name for text in texts for name in re.findall(r'm\.impl\("(\w+)"', text)}


def test_every_op_has_a_kernel_on_each_device() -> None:
    schemas = (CSRC / "library.cpp").read_text(encoding="utf-8")
    ops = set(re.findall(r'"(\w+)\(', schemas))
    assert len(ops) >= 13
    ops -= registered("library.cpp")  # for all devices
    # What is shared within a call is kept on the host, for CUDA by the stream that work goes to;
    # on CUDA linear layers are torch's.
    on_cpu = {"shared_csr", "share_plans", "find_known", "keep_known", "linear"}
    on_cuda = {"work_place"}
    assert registered("cpu/*.cpp") == ops - on_cuda
    assert registered("cuda/*.cu") == ops - on_cpu


def test_the_cuda_library_registers_them() -> None:
    found = library.paths()
    path = found[0].with_name("libgnnscript_cuda.so") if found else None
    if path is None or not path.is_file():
        pytest.skip("libgnnscript_cuda.so was not built: make native, where nvcc is found")
    binary = path.read_bytes()
    for name in registered("cuda/*.cu"):
        assert f"\0{name}\0".encode() in binary, name
    assert b"gnnscript_cuda_checks\0" in binary
    for architecture in (b"sm_80", b"sm_90"):
        assert architecture in binary


@pytest.mark.slow
def test_the_kernels_compute_on_an_emulated_gpu(tmp_path: Path) -> None:
    if shutil.which("g++") is None or shutil.which("make") is None:
        pytest.skip("no g++, or no make")
    build = ["make", "emulate", f"NATIVE_PYTHON={sys.executable}", f"EMULATED={tmp_path}"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    environment = {
        **os.environ,
        "GNNSCRIPT_EMULATED": "1",
        "GNNSCRIPT_LIBRARY": str(tmp_path / "libgnnscript.so"),
        "GNNSCRIPT_KERNELS": "native",
    }
    # Every op in single precision; the rest of the grid is for a GPU.
    some = "dtype1 or csr or layouts or checks or unchecked or farthest or no_row or gradients"
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/cuda",
        "-k",
        some,
    ]
    tested = subprocess.run(
        tests, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout[-4000:]
    assert int(re.findall(r"(\d+) passed", tested.stdout)[-1]) > 30

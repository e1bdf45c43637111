"""The native library builds into a wheel, or is left out, and its kernels pass the sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from deploy.conftest import build
from gnnscript.ops import library
from native.wheels import IGNORE_EDITABLE, ROOT, build_and_install, run

USE = f"""
import sys, warnings
warnings.simplefilter("ignore")
{IGNORE_EDITABLE}
import torch
import gnnscript
assert gnnscript.__file__.startswith(sys.argv[1]), gnnscript.__file__
from gnnscript import ops
from gnnscript.ops import library
out = ops.scatter(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 0, 1]), 0, 2)
print(library.implementation(), out.tolist())
"""


SAVE = """
import warnings
warnings.simplefilter("ignore")
import torch
from torch_geometric.nn import SimpleConv
import gnnscript
from gnnscript.cpp import cmake_prefix

class Alike(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = SimpleConv()

    def forward(self, x, edge_index):
        h = x + 0 * self.conv(x, edge_index)
        return 1 - (h[edge_index[0]] - h[edge_index[1]]).abs().sum(dim=1)

example = torch.rand(4, 1), torch.randint(4, (2, 7))
gnnscript.save(Alike(), "model.pt", example_inputs=example)
print(cmake_prefix())
"""
GRAPH = "4 1 3\n0.1\n9.0\n0.2\n9.5\n0 2\n1 3\n2 3\n"


@pytest.mark.slow
def test_a_wheel_brings_its_library(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    wheel, site = build_and_install(tmp_path, "-C", "cmake.define.GNNSCRIPT_CUDA=off")
    assert re.fullmatch(r"gnnscript-[\d.]+-py3-none-\w+\.whl", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "csrc" in name]
    environment = {"PYTHONPATH": str(site), "GNNSCRIPT_KERNELS": "", "GNNSCRIPT_LIBRARY": ""}
    used = run(sys.executable, "-c", USE, site, cwd=tmp_path, **environment)
    assert used.strip() == "native [2.0, 5.0]"
    find_package(site, tmp_path, environment)


def find_package(site: Path, folder: Path, environment: dict[str, str]) -> None:
    """Builds the C++ example against the installed wheel, and runs a native model with it."""
    (folder / "save.py").write_text(f"import sys\n{IGNORE_EDITABLE}{SAVE}", encoding="utf-8")
    prefix = run(sys.executable, "save.py", cwd=folder, **environment).strip()
    assert prefix.startswith(str(site))
    programs = build(ROOT / "docs/examples/cpp", folder / "cpp", f"-DCMAKE_PREFIX_PATH={prefix}")
    (folder / "graph.txt").write_text(GRAPH, encoding="utf-8")
    run(programs / "clusters", "model.pt", "graph.txt", "clusters.txt", cwd=folder)
    found = (folder / "clusters.txt").read_text(encoding="utf-8")
    assert found.split() == ["0", "1", "0", "1"]
    assert (folder / "libgnnscript.so").is_file()  # put beside the file, and loaded from there


def test_without_a_compiler_the_portable_package_is_installed(tmp_path: Path) -> None:
    _, site = build_and_install(tmp_path, CXX="/nowhere/c++")
    assert not list(site.rglob("libgnnscript*"))
    environment = {"PYTHONPATH": str(site), "GNNSCRIPT_KERNELS": "", "GNNSCRIPT_LIBRARY": ""}
    used = run(sys.executable, "-c", USE, site, cwd=tmp_path, **environment)
    assert used.strip() == "portable [2.0, 5.0]"


def test_the_libraries_name_torch_as_needed_and_no_python() -> None:
    readelf = shutil.which("readelf")
    found = [path for path in library.paths() if path.suffix == ".so"]
    if readelf is None or not found:
        pytest.skip("no readelf, or no library")
    cuda = found[0].with_name("libgnnscript_cuda.so")
    for path in [*found, *([cuda] if cuda.is_file() and cuda not in found else [])]:
        needed = set(re.findall(r"NEEDED.*\[(.+)\]", run(readelf, "-d", path)))
        assert needed >= {"libtorch.so", "libtorch_cpu.so", "libc10.so"}
        assert not [name for name in needed if "python" in name]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_kernels_pass_the_sanitizers(sanitizers: str, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}", encoding="utf-8")
    flag = f"-fsanitize={sanitizers}"
    available = subprocess.run(
        [compiler, flag, str(probe), "-o", str(tmp_path / "probe")],
        check=False,
        capture_output=True,
    )
    if available.returncode != 0:
        pytest.skip(f"{compiler} has no {flag}")
    out = run("make", "sanitize", f"SANITIZERS={sanitizers}", f"SANITIZE_BUILD={tmp_path}")
    assert "all kernels: no fault" in out


@pytest.mark.slow
def test_the_library_compiles_for_aarch64_and_its_kernels_are_right_there(tmp_path: Path) -> None:
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if compiler is None:
        pytest.skip("no aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu)")
    sources = ROOT / "src/gnnscript/csrc"
    flags = ["-std=gnu++17", "-Wno-psabi", f"-I{sources}"]
    (torch_root,) = torch.__path__
    for file in sorted([sources / "library.cpp", *sources.glob("cpu/*.cpp")]):
        if not file.name.endswith("_kernels.cpp"):
            run(
                compiler, *flags, "-fsyntax-only", "-isystem", f"{torch_root}/include",
                "-DTORCH_TARGET_VERSION=0x020a000000000000", file,
            )  # fmt: skip
    program = tmp_path / "kernels"
    run(
        compiler, *flags, "-O1", "-static", "-ffp-contract=off", "-DGNNSCRIPT_ISA=baseline",
        ROOT / "tests/native/kernels.cpp", "-pthread", "-o", program,
    )  # fmt: skip
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("it compiles; no qemu-aarch64 to run it (Debian: qemu-user)")
    assert "all kernels: no fault" in run(emulator, program)

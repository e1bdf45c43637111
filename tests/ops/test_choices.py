"""Choosing kernels and checks, and the plans that eager calls keep."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gnnscript
from gnnscript import _config, ops
from gnnscript.ops import library, portable
from gnnscript.ops.plans import cached_csr

RunPython = Callable[..., Any]

# -- kernels and checks ---------------------------------------------------------------------------


def test_a_choice_holds_for_a_block_or_for_good() -> None:
    before = _config.options()
    with gnnscript.kernels("portable"):
        assert _config.options().kernels == "portable"
        with gnnscript.checks(True):
            assert _config.options() == _config.Options("portable", True)
        assert not _config.options().checks
    assert _config.options() == before
    choice = gnnscript.checks(True)
    assert _config.options().checks
    with choice:
        pass
    assert _config.options() == before


def test_the_environment_chooses() -> None:
    read = _config.Options.from_environment
    assert read({}) == _config.Options(None, False)
    environment = {"GNNSCRIPT_KERNELS": "Portable", "GNNSCRIPT_CHECKS": "1"}
    assert read(environment) == _config.Options("portable", True)
    with pytest.raises(ValueError, match="'portable' or 'torch_scatter', got 'fast'"):
        read({"GNNSCRIPT_KERNELS": "fast"})
    with pytest.raises(ValueError, match="GNNSCRIPT_CHECKS to be 0 or 1, got 'maybe'"):
        read({"GNNSCRIPT_CHECKS": "maybe"})
    with pytest.raises(ValueError, match="'portable' or 'torch_scatter', got 'fast'"):
        gnnscript.kernels("fast")


def test_ops_run_on_the_chosen_kernels(native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for module in (native, portable):
        name, csr = module.__name__, module.csr
        monkeypatch.setattr(module, "csr", lambda *a, n=name, f=csr: calls.append(n) or f(*a))
    index = torch.tensor([1, 0])
    for kernels in ("native", "portable", None):
        with gnnscript.kernels(kernels):
            ops.csr(index, 2)
    assert [call.rpartition(".")[2] for call in calls] == ["native", "portable", "native"]


def test_a_missing_library_is_told_once_or_refused_if_asked_for(run_python: RunPython) -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import gnnscript
    from gnnscript import ops
    import torch
    assert not caught  # importing is silent
    for _ in range(2):
        assert ops.csr(torch.tensor([1, 0]), 2)[1].tolist() == [1, 0]
    with gnnscript.kernels("portable"):
        ops.csr(torch.tensor([1, 0]), 2)
(warning,) = caught
print(warning.category.__name__, warning.message)
try:
    with gnnscript.kernels("native"):
        ops.csr(torch.tensor([1, 0]), 2)
except gnnscript.GnnscriptError as error:
    print(error)
"""
    missing = {"GNNSCRIPT_LIBRARY": "/nowhere/libgnnscript.so", "GNNSCRIPT_KERNELS": ""}
    told, refused = run_python(code, env=missing).stdout.splitlines()
    assert told.startswith("NativeLibraryWarning gnnscript runs without its native library")
    assert "it is not installed" in told
    assert "make native" in told
    assert refused.startswith("the native library of gnnscript cannot be used: it is not installed")


def test_a_library_of_another_version_says_so(run_python: RunPython, native: Any) -> None:
    code = (
        "import torch\nfrom gnnscript._errors import GnnscriptError\n"
        "from gnnscript.ops import fake, library\n"
        "def register():\n    torch.library.register_fake('gnnscript::newer', lambda x: x)\n"
        "fake.register = register\n"
        "try:\n    library.load()\nexcept GnnscriptError as error:\n    print(error)\n"
    )
    out = run_python(code).stdout
    assert "was built for another version of gnnscript" in out
    assert "gnnscript::newer" in out
    assert "make native" in out


SCHEMAS = 7, "2af588a0872eff0b"


def test_whoever_changes_schemas_raises_the_interface() -> None:
    source = Path(library.__file__).parents[1] / "csrc"
    text = (source / "library.cpp").read_text(encoding="utf-8")
    schemas = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text[text.index("GNNSCRIPT_DEFINE(m)") :]))
    digest = hashlib.sha256(schemas.encode()).hexdigest()[:16]
    assert (library.INTERFACE, digest) == SCHEMAS, "raise INTERFACE, and write both here"
    told = re.search(r"GNNSCRIPT_INTERFACE (\d+)", (source / "interface.h").read_text("utf-8"))
    assert told is not None
    assert int(told[1]) == library.INTERFACE


@pytest.mark.parametrize(("told", "age"), [(None, "older"), (1, "older"), (9999, "newer")])
def test_a_stale_library_is_refused_when_it_is_loaded(
    run_python: RunPython, tmp_path: Path, told: int | None, age: str
) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    stale = tmp_path / "libgnnscript.so"
    code = "" if told is None else f"int gnnscript_interface(void) {{ return {told}; }}"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(stale)]
    subprocess.run(command, input=code, text=True, check=True)
    code = (
        "import warnings\nimport torch, gnnscript\nfrom gnnscript import ops\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    print(ops.csr(torch.tensor([1, 0]), 2)[1].tolist())\n"
        "print(caught[0].message)\n"
        "try:\n    with gnnscript.kernels('native'):\n        ops.csr(torch.tensor([0]), 1)\n"
        "except gnnscript.GnnscriptError as error:\n    print(error)\n"
    )
    environment = {"GNNSCRIPT_LIBRARY": str(stale), "GNNSCRIPT_KERNELS": ""}
    out, warned, refused = run_python(code, env=environment).stdout.splitlines()
    assert out == "[1, 0]"
    for message in (warned, refused):
        assert f"{stale} was built for another version of gnnscript, which is {age}" in message
        assert "make native" in message


def test_a_library_that_does_not_load_says_why(run_python: RunPython, tmp_path: Path) -> None:
    broken = tmp_path / "libgnnscript.so"
    broken.write_text("no library", encoding="utf-8")
    code = "from gnnscript.ops import library\ntry: library.load()\nexcept Exception as e: print(e)"
    out = run_python(code, env={"GNNSCRIPT_LIBRARY": str(broken)}).stdout
    assert "it does not load:" in out
    assert "libgnnscript.so" in out


def test_a_device_without_kernels_takes_the_portable_ops_and_tells_so_once(
    native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on CUDA, where the library was built without nvcc.
    monkeypatch.setattr(library._state, "devices", ("meta",))
    monkeypatch.setattr(library._state, "warned", False)
    monkeypatch.setattr(native, "csr", None)
    index = torch.tensor([1, 0])
    with gnnscript.kernels(None):
        with pytest.warns(library.NativeLibraryWarning, match="without kernels for cpu"):
            assert ops.csr(index, 2)[1].tolist() == [1, 0]
        assert ops.csr(index, 2)[1].tolist() == [1, 0]
    with gnnscript.kernels("native"), pytest.raises(TypeError):  # what was asked for is called
        ops.csr(index, 2)


def test_a_library_follows_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config._current, "watchers", [])
    told: list[bool] = []
    _config.watch(lambda options: told.append(options.checks))
    with gnnscript.checks(True):
        pass
    assert told == [False, True, False]


# -- plans ----------------------------------------------------------------------------------------


@pytest.fixture
def sorts(native: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the sorts, one number per call of the op."""
    calls: list[int] = []
    op = torch.ops.gnnscript.csr
    monkeypatch.setattr(
        torch.ops.gnnscript, "csr", lambda index, size: calls.append(size) or op(index, size)
    )
    return calls


def test_the_rows_of_an_edge_index_are_sorted_once(sorts: list[int]) -> None:
    edge_index = torch.randint(0, 9, (2, 40))
    for _ in range(3):  # each row is a new tensor every time
        cached_csr(edge_index[0], 9)
        cached_csr(edge_index[1], 9)
    assert len(sorts) == 2
    cached_csr(edge_index[1], 10)
    cached_csr(edge_index[1][::2], 9)
    assert len(sorts) == 4


def test_layers_and_gradients_share_their_plans(sorts: list[int], native: Any) -> None:
    edge_index = torch.randint(0, 9, (2, 40))
    x = torch.randn(9, 3, requires_grad=True)
    out = x
    for _ in range(3):
        out = native.scatter(native.gather(out, edge_index[0], 0), edge_index[1], 0, 9, "mean")
    out.sum().backward()
    assert len(sorts) == 2


def test_a_change_in_place_and_a_new_tensor_are_sorted_anew(sorts: list[int]) -> None:
    index = torch.tensor([2, 0, 1])
    assert cached_csr(index, 3)[1].tolist() == [1, 2, 0]
    index[0] = 0
    assert cached_csr(index, 3)[1].tolist() == [0, 1, 2]
    for _ in range(20):  # addresses and identities are used again
        one = torch.randint(0, 3, (5,))
        assert torch.equal(cached_csr(one, 3)[1], torch.sort(one, stable=True).indices)
        del one
    assert len(sorts) == 22


def test_a_plan_goes_with_its_index(native: Any) -> None:
    import weakref

    index = torch.tensor([2, 0, 1])
    kept = weakref.ref(cached_csr(index, 3)[0])
    assert kept() is not None
    del index
    gc.collect()
    assert kept() is None


def test_recorded_calls_keep_no_plan(sorts: list[int], native: Any) -> None:
    index = torch.tensor([2, 0, 1])
    cached_csr(index, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda i: cached_csr(i, 3), (index,))
    other = torch.tensor([0, 2, 1])
    assert traced(other)[1].tolist() == [0, 2, 1]
    with torch.inference_mode():
        fresh = torch.tensor([1, 0])
        assert cached_csr(fresh, 2)[1].tolist() == [1, 0]
        fresh[0] = 0
        assert cached_csr(fresh, 2)[1].tolist() == [0, 1]

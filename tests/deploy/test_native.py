"""Models of native ops take their library along, and find it again, in Python and in C++."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gnnscript
from conftest import RunPython
from deploy.conftest import Answer
from deploy.deploy_models import node_call
from gnnscript.ops import library

pytestmark = pytest.mark.skipif(not library.paths(), reason="the native library is not built")


class Native(nn.Module):
    """Sums the features of the neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        ptr, perm = torch.ops.gnnscript.csr(edge_index[1], x.size(0))
        values = torch.ops.gnnscript.gather(self.lin(x), edge_index[0])
        return torch.ops.gnnscript.segment_reduce(values, ptr, perm, "sum")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    library.load()
    folder = tmp_path / "model"
    folder.mkdir()
    manifest = gnnscript.save(Native(), folder / "model.pt", example_inputs=node_call(5, 9))
    assert manifest.kernels == "native"
    return folder / "model.pt"


def load_alone(path: Path) -> "subprocess.CompletedProcess[str]":
    """Loads and runs the model in a process in which gnnscript's own library is not there."""
    code = f"""
import torch, gnnscript
model = gnnscript.load({str(path)!r})
print(model(torch.ones(3, 4), torch.tensor([[0, 1], [1, 1]])).shape, torch.ops.loaded_libraries)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = {"GNNSCRIPT_LIBRARY": "/nowhere/libgnnscript.so", "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_manifest_names_library_and_ops(saved: Path) -> None:
    manifest = gnnscript.inspect(saved)
    first = manifest.libraries[0]
    assert first.file == library.paths()[0].name
    assert (saved.parent / first.file).read_bytes() == library.paths()[0].read_bytes()
    names = {schema.split("(")[0] for schema in first.ops}
    assert names == {"gnnscript::csr", "gnnscript::gather", "gnnscript::segment_reduce"}


def test_python_loads_the_library_beside_the_file(saved: Path) -> None:
    completed = load_alone(saved)
    assert completed.returncode == 0, completed.stderr
    assert "[3, 3]" in completed.stdout
    assert str(saved.parent) in completed.stdout
    (saved.parent / library.paths()[0].name).unlink()
    completed = load_alone(saved)
    assert "the model needs libgnnscript" in completed.stderr
    assert "put the file with sha256" in completed.stderr


def test_cpp_loads_the_library_beside_the_file(saved: Path, answer: Answer) -> None:
    loaded = gnnscript.load(saved)
    for sizes in ((5, 9), (12, 40), (4, 0)):
        x, edge_index = node_call(*sizes)
        found = answer(saved, {"x": x, "edge_index": edge_index})
        assert isinstance(found, dict), found
        torch.testing.assert_close(found["output"], loaded(x, edge_index).detach())


def test_cpp_says_which_library_is_missing(saved: Path, answer: Answer) -> None:
    first = gnnscript.inspect(saved).libraries[0]
    (saved.parent / first.file).unlink()
    assert answer(saved, {}) == (
        f"the model needs {first.file}, and there is no '{saved.parent / first.file}'; put the "
        f"file with sha256 {first.sha256} there"
    )


def test_a_library_with_other_ops_is_refused(saved: Path, answer: Answer) -> None:
    data: dict[str, Any] = json.loads(gnnscript.inspect(saved).to_json())
    ops = data["libraries"][0]["ops"]
    ops[0] = ops[0].replace("Tensor index", "Tensor index, bool checked")
    manifest = gnnscript.Manifest.from_json(json.dumps(data))
    extra = {"gnnscript.json": manifest.to_json(), "gnnscript.txt": manifest.to_lines()}
    torch.jit.save(torch.jit.load(saved), saved, _extra_files=extra)
    with pytest.raises(gnnscript.DeployError) as raised:
        gnnscript.load(saved)
    assert f"the model calls '{ops[0]}', and the library loaded here has 'gnn" in str(raised.value)
    assert answer(saved, {}) == str(raised.value)


def test_native_ops_are_not_promised_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(gnnscript.DeployError, match="'Linear' has portable ones alone"):
        gnnscript.save(nn.Linear(2, 2), tmp_path / "model.pt", kernels="native")


def test_a_server_on_the_cpu_leaves_the_kernels_for_cuda_alone(
    saved: Path, run_python: RunPython
) -> None:
    cuda = next((entry for entry in gnnscript.inspect(saved).libraries if not entry.ops), None)
    if cuda is None:
        pytest.skip("the library with kernels for CUDA is not built")
    code = """
import pathlib, sys, torch
from gnnscript.deploy.triton_model import Model
model = Model(pathlib.Path(sys.argv[1]), torch.device("cpu"))
graph = {"x": torch.ones(3, 4), "edge_index": torch.tensor([[0, 1], [1, 1]])}
print(tuple(model.run(graph)[0].shape), torch.ops.loaded_libraries)
"""
    answer = run_python(code, saved, env={"GNNSCRIPT_LIBRARY": "/nowhere/libgnnscript.so"}).stdout
    assert answer.startswith("(3, 3)")
    assert cuda.file not in answer

"""Compiled models compute what eager ones do, for any size, in Python and in C++."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import List

import pytest
import torch
from torch import Tensor, nn

import gnnscript
from deploy.conftest import Answer
from deploy.deploy_models import Edge, edge_call, node_call
from deploy.test_native import Native
from gnnscript import deploy
from gnnscript.deploy.package import scripted_for
from gnnscript.deploy.structure import flat_outputs
from gnnscript.ops import library
from serving.libtorch_models import CASES

# Inductor's own use of torch.
pytestmark = pytest.mark.filterwarnings("ignore")


def compare(model: nn.Module, path: Path, call_of, answer: Answer) -> None:
    model.eval()
    compiled = deploy.load_compiled(path)
    names = [spec.name for spec in gnnscript.inspect(path).inputs]
    for sizes in ((6, 17), (40, 300), (2, 1), (5, 0)):
        call = call_of(*sizes)
        want = model(*call).detach()
        torch.testing.assert_close(compiled(*call), want)
        found = answer(path, dict(zip(names, call, strict=True)))
        assert isinstance(found, dict), found
        torch.testing.assert_close(found["output"], want)


@pytest.mark.slow
def test_portable_ops(tmp_path: Path, answer: Answer) -> None:
    model, path = Edge(), tmp_path / "model.pt2"
    manifest = deploy.aoti(model, edge_call(6, 17), path, kernels="portable")
    assert model.training
    assert gnnscript.inspect(path) == manifest
    assert [str(spec) for spec in manifest.inputs] == [
        "x: float32 [N, 4]",
        "edge_index: int64 [2, E]",
        "edge_attr: float32 [E, 1]",
    ]
    compare(model, path, edge_call, answer)
    x, edge_index, attributes = edge_call(6, 17)
    wrong = {"x": x, "edge_index": edge_index + 6, "edge_attr": attributes}
    assert "expected values of row 0 of 'edge_index' in [0, 6)" in str(answer(path, wrong))
    with pytest.raises(gnnscript.DeployError, match="load_compiled"):
        gnnscript.load(path)


@pytest.mark.slow
@pytest.mark.skipif(not library.paths(), reason="the native library is not built")
def test_native_ops(tmp_path: Path, answer: Answer) -> None:
    library.load()
    model, path = Native(), tmp_path / "model.pt2"
    manifest = deploy.aoti(model, node_call(6, 17), path)
    assert manifest.kernels == "native"
    assert (tmp_path / manifest.libraries[0].file).is_file()
    compare(model, path, node_call, answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("messages", "native"),
        ("typed", "native"),
        ("attention", "portable"),
        ("dynamic", "portable"),
        ("bipartite", "portable"),
        ("settings", "portable"),
    ],
)
def test_models_of_many_forms(name: str, kernels: str, tmp_path: Path, answer: Answer) -> None:
    """Classes of no library, types of nodes and edges, graphs made inside, numbers."""
    if kernels == "native":
        if not library.paths():
            pytest.skip("the native library is not built")
        library.load()
    case, path = CASES[name], tmp_path / "model.pt2"
    model = case.make().eval()
    manifest = deploy.aoti(model, [case.call(8, 20), case.call(6, 11)], path, kernels=kernels)
    assert manifest.kernels == kernels
    compiled = deploy.load_compiled(path)
    taken = {spec.name for spec in manifest.inputs}
    for size in [(40, 300), (6, 11), (1, 1), *([(5, 0)] if case.empty else [])]:
        call = case.call(*size)
        scripted = scripted_for(model, None, [call])
        flat = {k: t for k, t in deploy.flat_call(scripted, call).items() if k in taken}
        found = model(**call) if isinstance(call, dict) else model(*call)
        want = [tensor.detach() for _, tensor in flat_outputs(found, numbers=True)]
        here, there = compiled(**flat), answer(path, flat)
        tensors = [here] if isinstance(here, torch.Tensor) else list(here)
        assert isinstance(there, dict), there
        assert list(there) == [spec.name for spec in manifest.outputs]
        for tensor, other, expected in zip(tensors, there.values(), want, strict=True):
            close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
            close(tensor.reshape(expected.shape), expected)
            close(other.reshape(expected.shape), expected)


class Small(nn.Module):
    """Counts edges; of a single node, and of no node, it makes something else."""

    def forward(self, x: Tensor, edge_index: Tensor, powers: List[int]) -> Tensor:
        degree = torch.bincount(edge_index[1], minlength=x.size(0))
        if x.size(0) == 1:
            return x * 2.0 + degree
        return x ** powers[0] + degree.unsqueeze(-1)


@pytest.mark.slow
def test_sizes_that_it_is_not_compiled_for_are_refused(tmp_path: Path, answer: Answer) -> None:
    model, path = Small().eval(), tmp_path / "model.pt2"
    manifest = deploy.aoti(model, (*node_call(6, 17), [2]), path, kernels="portable")
    assert [spec.name for spec in manifest.inputs] == ["x", "edge_index"]  # numbers are compiled in
    assert manifest.least == {"N": 2}
    assert gnnscript.inspect(path) == manifest
    assert "N = x.size(0), at least 2" in str(manifest)
    compiled = deploy.load_compiled(path)
    for size in ((40, 300), (2, 0), (2, 1)):
        call = node_call(*size)
        torch.testing.assert_close(compiled(*call), model(*call, [2]))
        found = answer(path, dict(zip(("x", "edge_index"), call, strict=True)))
        torch.testing.assert_close(found["output"], model(*call, [2]))
    x, edge_index = node_call(1, 3)
    told = "expected 'x' of shape [N, F] with N of at least 2, as it was compiled for, got [1, 4]"
    with pytest.raises(gnnscript.DeployError, match=re.escape(told)):
        compiled(x, edge_index)
    assert answer(path, {"x": x, "edge_index": edge_index}) == told


def test_an_example_of_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(gnnscript.DeployError, match=r"E of 'edge_index' is 1 in the first example"):
        deploy.aoti(Edge(), edge_call(6, 1), tmp_path / "model.pt2", kernels="portable")


def test_what_cannot_be_compiled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.pt2"):
        deploy.aoti(Edge(), edge_call(6, 17), tmp_path / "model.pt")
    with pytest.raises(gnnscript.DeployError, match="pass the model that was scripted"):
        deploy.aoti(torch.jit.script(nn.Linear(4, 2)), (torch.randn(3, 4),), tmp_path / "m.pt2")

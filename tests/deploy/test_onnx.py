"""ONNX Runtime computes what the eager model does, on graphs of any size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv

import gnnscript
from deploy.deploy_models import (
    Edge,
    Graph,
    Hetero,
    Node,
    edge_call,
    graph_call,
    hetero_call,
    node_call,
)
from gnnscript import deploy
from gnnscript.deploy.structure import flat_outputs, named_tensors

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# The converter's own use of torch, and its look for torchvision.
pytestmark = pytest.mark.filterwarnings("ignore")

CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any], list[tuple[int, ...]]]] = {
    "node": (Node, node_call, [(6, 17), (9, 30), (3, 1)]),
    "edge": (Edge, edge_call, [(6, 17), (11, 30), (2, 5)]),
    "graph": (Graph, graph_call, [(6, 17), (13, 30), (1, 2)]),
    "hetero": (Hetero, hetero_call, [(6, 7, 17), (8, 4, 30), (3, 9, 2)]),
}


@pytest.mark.parametrize("case", CASES)
def test_three_sizes_agree_with_eager(case: str, tmp_path: Path) -> None:
    make, call_of, sizes = CASES[case]
    model = make()
    path = tmp_path / "model.onnx"
    manifest = deploy.onnx(model, call_of(*sizes[0]), path)
    assert model.training
    model.eval()
    assert manifest.check is not None
    assert manifest.check.calls >= 3
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in sizes:
        call = call_of(*size)
        args, kwargs = (call, {}) if isinstance(call, tuple) else ((), call)
        names = [spec.name for spec in manifest.inputs]
        if isinstance(call, tuple):
            given = dict(zip(names, call, strict=True))
        else:
            given = dict(t for k, v in call.items() for t in named_tensors(k, v))
        found = session.run(None, {name: given[name].numpy() for name in names})
        want = [t for _, t in flat_outputs(model(*args, **kwargs))]
        for value, expected in zip(found, want, strict=True):
            torch.testing.assert_close(
                torch.from_numpy(value).reshape(expected.shape), expected.detach()
            )


def test_axes_have_the_manifest_s_names_and_operators_are_onnx_s(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    manifest = deploy.onnx(Edge(), edge_call(6, 17), path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert shapes == {
        "x": ["N", 4], "edge_index": [2, "E"], "edge_attr": ["E", 1], "output": ["E"]
    }  # fmt: skip
    assert {node.domain for node in proto.graph.node} == {""}
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert gnnscript.Manifest.from_json(metadata["gnnscript"]) == manifest


class Decides(nn.Module):
    """Its way depends on values, which no fixed graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if float(x.sum()) > 0:
            return self.conv(x, edge_index)
        return self.conv(-x, edge_index)


class Factorises(nn.Module):
    """Uses an operation that ONNX has no operator for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        return torch.linalg.qr(h.t() @ h)[1]


class Loops(nn.Module):
    """Takes one feature after the other: as many as there are when it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(1, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = torch.zeros(x.size(0), 3)
        for column in range(x.size(1)):
            out = out + self.conv(x[:, column : column + 1], edge_index)
        return out


@pytest.mark.usefixtures("auto")
def test_what_a_loop_fixes_is_named(tmp_path: Path) -> None:
    text = re.escape(
        "F of 'x', [N, F], is open in TorchScript, and for torch.export the code fixes"
    )
    with pytest.raises(gnnscript.DeployError, match=text):
        deploy.onnx(Loops(), node_call(6, 17), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            Decides(),
            r"'Decides' cannot be exported by torch.export: .*:\d+ \(if float\(x.*: it depends on",
        ),
        (Factorises(), "ONNX cannot express 'Factorises'"),
    ],
)
def test_what_onnx_cannot_express_is_refused(model: nn.Module, text: str, tmp_path: Path) -> None:
    with pytest.raises(gnnscript.DeployError, match=text) as raised:
        deploy.onnx(model, node_call(6, 17), tmp_path / "model.onnx")
    assert "gnnscript.save" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_names_stand_for_one_tensor(tmp_path: Path) -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Dict[str, Tensor]:
            return {"x": x[edge_index[0]]}

    with pytest.raises(gnnscript.DeployError, match="'x' is both an input and a result of 'Same'"):
        deploy.onnx(Same(), node_call(6, 17), tmp_path / "model.onnx")


def test_numbers_come_out(tmp_path: Path) -> None:
    class Numbers(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, int, float]:
            return x[edge_index[0]], x.size(0), 2.5

    model = Numbers()
    manifest = deploy.onnx(model, node_call(6, 17), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in ((9, 30), (3, 4)):
        call = node_call(*size)
        names = [spec.name for spec in manifest.inputs]
        given = {n: t.numpy() for n, t in zip(names, call, strict=True)}
        _, *found = session.run(None, given)
        assert [array.tolist() for array in found] == [[number] for number in model(*call)[1:]]


def test_scripted_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(gnnscript.DeployError, match="pass the model that was scripted"):
        deploy.onnx(torch.jit.script(nn.Linear(4, 2)), (torch.randn(3, 4),), tmp_path / "m.onnx")


def test_torch_exports_to_onnx_on_operators_that_onnx_has(tmp_path: Path) -> None:
    """Under auto as without: native ops stay out of what another runtime is to run."""
    model = Node().eval()
    call = node_call(6, 17)
    path = tmp_path / "model.onnx"
    gnnscript.install()
    try:
        with gnnscript.kernels(None):
            torch.onnx.export(model, call, path, dynamo=True, verbose=False)
    finally:
        gnnscript.uninstall()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    given = {name: value.numpy() for name, value in zip(names, call, strict=True)}
    (out,) = session.run(None, given)
    torch.testing.assert_close(torch.from_numpy(out), model(*call))

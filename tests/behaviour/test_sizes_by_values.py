"""Sizes that values decide, in programs of ``torch.compile``, ``torch.export`` and ``torch.fx``."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch_geometric.nn import MessagePassing, SortAggregation
from torch_geometric.utils import coalesce, softmax, to_dense_batch

import gnnscript
import gnnscript.fx
from behaviour.models import Projecting
from conformance.graphs import IN, OUT

Call = tuple[Tensor, ...]
pytestmark = pytest.mark.usefixtures("auto")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def clouds(*sizes: int) -> Call:
    """Graphs of these sizes: features, edges within them, and the graph of each node."""
    random = torch.Generator().manual_seed(sum(sizes))
    nodes = sum(sizes)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    edge_index = torch.randint(nodes, (2, 3 * nodes), generator=random)
    kept = batch[edge_index[0]] == batch[edge_index[1]]
    return torch.randn(nodes, IN, generator=random), edge_index[:, kept], batch


FIRST, SECOND, THIRD = clouds(5, 4, 6), clouds(3, 9), clouds(2, 2, 11, 7, 4)


class Attending(Projecting):
    """Nodes of a graph attend to each other, so all graphs are padded to the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(OUT, 2, batch_first=True)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = self.propagate(edge_index, x=self.lin(x))
        dense, mask = to_dense_batch(h, batch)
        out, _ = self.attention(dense, dense, dense, key_padding_mask=~mask, need_weights=False)
        return out[mask] + h


class Recurrent(Projecting):
    """Reads the nodes of each graph one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(IN, OUT, batch_first=True)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        dense, _ = to_dense_batch(x + 0 * self.lin(x).sum(), batch)
        return self.lstm(dense)[0][:, -1] + self.propagate(edge_index, x=x).sum()


class Pooling(MessagePassing):
    """Keeps a part of the edges, and pools patches of nodes."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.norm = nn.Sequential(nn.BatchNorm1d(IN), nn.Linear(IN, OUT))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        strong = x[edge_index[0], 0] > 0
        alpha = softmax(x[edge_index[0], 0][strong], edge_index[1][strong])
        h = self.norm(x[edge_index[0]][strong])
        patches = math.ceil((int(batch.max()) + 1) / 2)
        pooled = x.new_zeros(patches, OUT).index_add(0, batch[edge_index[0]][strong] // 2, h)
        return self.propagate(edge_index[:, strong], x=x, alpha=alpha), pooled

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha.unsqueeze(-1) * x_j


class Sorting(Projecting):
    """Takes the largest of each graph: of some all, as there are fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.sort = SortAggregation(k=5)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.sort(self.propagate(edge_index, x=self.lin(x)), batch)


class Typed(Projecting):
    """A layer of its own for each of three types, between pointers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(IN, OUT) for _ in range(3))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        kind = batch % 3
        order = kind.argsort(stable=True)
        pointers = torch.searchsorted(kind[order].contiguous(), torch.arange(4))
        ordered, out = x[order], x.new_empty(x.size(0), OUT)
        for i, layer in enumerate(self.layers):
            out[pointers[i] : pointers[i + 1]] = layer(ordered[pointers[i] : pointers[i + 1]])
        back = torch.empty_like(out)
        back[order] = out
        return back + self.propagate(edge_index, x=self.lin(x))


class Scaling(Projecting):
    """Takes numbers out of tensors."""

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        scale = float(batch.max()) + float(x.size(0))
        return self.propagate(edge_index, x=self.lin(x / float(x.abs().max()))) * scale


class Filtering(Projecting):
    """Takes edges out where there is need, and joins those that are double."""

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        apart = edge_index[0] != edge_index[1]
        if not apart.all():
            edge_index = edge_index[:, apart]
        edge_index = coalesce(edge_index, num_nodes=x.size(0))
        near = torch.cdist(x, x[batch == 0]) + self.cdist(x).sum()
        near = torch.floor(near / (1 + near.size(0)))
        return self.propagate(edge_index, x=self.lin(x)) + near.max(dim=1).values[:, None]

    def cdist(self, x: Tensor) -> Tensor:
        return torch.ceil(x / 2)


def _exported(model: nn.Module) -> Callable[..., Any]:
    # From three nodes on there are two pairs of neighbours to compare: torch takes one apart.
    nodes, edges = Dim("nodes", min=3, max=1000), Dim("edges", max=10_000)
    call = FIRST[: len(inspect.signature(model.forward).parameters)]
    shapes = ({0: nodes}, {1: edges}, {0: nodes})[: len(call)]
    return torch.export.export(model, call, dynamic_shapes=shapes).module()


def _compiled(model: nn.Module) -> Callable[..., Any]:
    return torch.compile(model, fullgraph=True, dynamic=True, backend="eager")


LATER = pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="torch 2.10 does not see that slices between the same bounds are of one size",
)
BETWEEN = pytest.param(Typed, marks=LATER)


@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("make", [Attending, Pooling, Sorting, Scaling, BETWEEN, Filtering])
def test_programs_hold_for_other_sizes(make: type[nn.Module], kernels: str) -> None:
    model = make().eval()
    with gnnscript.kernels(kernels):
        exported, compiled = _exported(model), _compiled(model)
        compiled(*FIRST)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for call in (FIRST, SECOND, THIRD):
                expected = model(*call)
                torch.testing.assert_close(exported(*call), expected)
                torch.testing.assert_close(compiled(*call), expected)


def test_recurrent_layers_are_compiled_for_inference() -> None:
    model = Recurrent().eval()
    compiled = _compiled(model)
    with torch.no_grad():
        for call in (FIRST, SECOND, THIRD):
            torch.testing.assert_close(compiled(*call), model(*call))


# Dynamo says what breaks a graph, where it may be broken.
@pytest.mark.filterwarnings("ignore:Dynamo does not know:UserWarning")
@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("make", [Attending, Pooling, Sorting, BETWEEN])
def test_compiled_models_are_trained(make: type[nn.Module], fullgraph: bool) -> None:
    model = make().train()
    compiled = torch.compile(model, fullgraph=fullgraph, dynamic=True, backend="aot_eager")
    for call in (FIRST, SECOND):
        found, expected = (
            torch.autograd.grad(_sum(run(*call)), list(model.parameters()), allow_unused=True)
            for run in (compiled, model)
        )
        torch.testing.assert_close(found, expected)


def _sum(out: Any) -> Tensor:
    return sum(o.square().sum() for o in (out if isinstance(out, tuple) else (out,)))


def test_a_size_for_which_no_program_was_made_raises_naming_the_line() -> None:
    """Torch makes one program for graphs of one node, and another for those of more."""
    model = Attending().eval()
    single = clouds(1, 1, 1)
    assert model(*single).shape == (3, OUT)
    line = Attending.forward.__code__.co_firstlineno + 3
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    compiled(*FIRST)
    for run in (_exported(model), compiled):
        with pytest.raises(RuntimeError, match=rf"test_sizes_by_values\.py:{line} \(at least 2\)"):
            run(*single)


class Joining(Projecting):
    """Joins edges that are double, and their values."""

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        values = x[edge_index[0]] - x[edge_index[1]]
        edge_index, values = coalesce(edge_index, values, x.size(0), reduce="mean")
        return self.lin(values).sum(0) + self.propagate(edge_index, x=self.lin(x))


def test_edges_that_are_double_are_joined_where_there_are_none() -> None:
    model = Joining().eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    x, edge_index, batch = FIRST
    for call in (FIRST, (x, edge_index[:, :0], batch)):
        torch.testing.assert_close(compiled(*call), model(*call))


def test_graphs_take_the_longer_way() -> None:
    model = Filtering().eval()
    graph = gnnscript.fx.symbolic_trace(model, FIRST)
    x, edge_index, batch = SECOND
    for edges in (edge_index, edge_index[:, edge_index[0] != edge_index[1]]):
        torch.testing.assert_close(graph(x, edges, batch), model(x, edges, batch))


class Choosing(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        size = int(batch.max()) + 1
        if size >= 4:
            x = F.relu(x)
        return self.propagate(edge_index, x=self.lin(x))


@pytest.mark.parametrize("door", ["compile", "export"])
def test_a_branch_by_such_a_size_is_still_refused(door: str) -> None:
    report = gnnscript.check(Choosing(), [FIRST, SECOND], doors=[door], convs=False)
    outcome = report.rows[0].outcomes[door]
    assert outcome.status == "failed"
    assert "depends on the values" in outcome.cause
    assert outcome.location.startswith(__file__)


class Loud(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if not x.is_cuda:
            warnings.warn(f"slow: {x.size(0)} nodes on the CPU", stacklevel=2)
        return self.propagate(edge_index, x=self.lin(x))


@pytest.mark.parametrize("door", ["compile", "export"])
def test_a_warning_is_given_when_the_program_is_made(door: str) -> None:
    model = Loud().eval()
    calls = [call[:2] for call in (FIRST, SECOND)]
    make = _compiled if door == "compile" else _exported
    with pytest.warns(UserWarning, match=r"slow: \.\.\. nodes"):
        (run := make(model))(*calls[0])
    for call in calls:
        found = run(*call)
        with pytest.warns(UserWarning, match=r"slow: \d+ nodes"):
            torch.testing.assert_close(found, model(*call))


def test_torch_keeps_its_configuration() -> None:
    config = torch._dynamo.config
    names = ("capture_scalar_outputs", "capture_dynamic_output_shape_ops", "allow_rnn")
    before = [getattr(config, name) for name in names]
    _compiled(Attending().eval())(*FIRST)
    assert [getattr(config, name) for name in names] == before

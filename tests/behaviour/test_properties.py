"""Scripted equals eager on any graph: no edges, one node, isolated nodes, loops, duplicates."""

from collections.abc import Callable
from typing import Any, Optional, Tuple, Union

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.nn import (
    CGConv,
    ChebConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GeneralConv,
    GINConv,
    HypergraphConv,
    MessagePassing,
    PNAConv,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.typing import OptPairTensor, OptTensor
from torch_geometric.utils import scatter, softmax

from conformance.forms import Pair, Plain, SourceSized, ThirdArgument
from conformance.graphs import EDGE, IN, OUT
from gnnscript.testing import _assert_close, _evaluate

pytestmark = pytest.mark.usefixtures("auto")

Edges = list[tuple[int, int]]


@st.composite
def graphs(draw: st.DrawFn, bipartite: bool = False) -> tuple[int, int, Edges, int]:
    """The sizes of both sides, the edges between them, and a seed for the values."""
    num_src = draw(st.integers(1, 6))
    num_dst = draw(st.integers(1, 6)) if bipartite else num_src
    ends = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    return num_src, num_dst, draw(st.lists(ends, max_size=12)), draw(st.integers(0, 2**16))


def tensors(graph: tuple[int, int, Edges, int]) -> dict[str, Any]:
    """The tensors of a graph that was drawn."""
    num_src, num_dst, edges, seed = graph
    random = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(num_src, IN, generator=random),
        "y": torch.randn(num_dst, IN, generator=random),
        "edge_index": torch.tensor(edges, dtype=torch.long).view(-1, 2).t().contiguous(),
        "attr": torch.randn(len(edges), EDGE, generator=random),
        "weight": torch.rand(len(edges), generator=random) + 0.1,
        "kind": torch.randint(3, (len(edges),), generator=random),
        "num_dst": num_dst,
    }


def outcome(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The output and the gradients, or None where the module raises."""
    try:
        return _evaluate(module, inputs, gradients=True)
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return None


def agree(module: nn.Module, scripted: nn.Module, inputs: tuple[Any, ...]) -> None:
    expected, actual = outcome(module, inputs), outcome(scripted, inputs)
    assert (expected is None) == (actual is None), "one of them raises, the other does not"
    if expected is not None:
        _assert_close(expected, actual, 1e-4, 1e-4, "scripted differs from eager")


class Custom(MessagePassing):
    """A user's own: attention over pairs, an own aggregate, sizes, and a residual."""

    def __init__(self) -> None:
        super().__init__(aggr=None)
        self.lin = nn.Linear(IN, OUT)
        self.att = nn.Linear(2 * OUT, 1)

    def forward(
        self,
        x: Union[Tensor, OptPairTensor],
        edge_index: Tensor,
        size: Optional[Tuple[int, int]] = None,
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        x_dst = x[1]
        h = (self.lin(x[0]), None if x_dst is None else self.lin(x_dst))
        out = self.propagate(edge_index, h=h, size=size)
        if h[1] is not None:
            out = out + h[1]
        return out

    def message(
        self, h_j: Tensor, h_i: OptTensor, index: Tensor, dim_size: Optional[int]
    ) -> Tensor:
        both = torch.cat([h_j, h_j if h_i is None else h_i], dim=-1)
        alpha = softmax(self.att(both).squeeze(-1), index, num_nodes=dim_size)
        return alpha.unsqueeze(-1) * h_j

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: Optional[int] = None) -> Tensor:
        total = scatter(inputs, index, dim=0, dim_size=dim_size, reduce="sum")
        low = scatter(inputs, index, dim=0, dim_size=dim_size, reduce="min")
        return total - low


def mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 5), nn.ELU(), nn.Linear(5, OUT))


HOMOGENEOUS: dict[str, Callable[[], MessagePassing]] = {
    "gcn": lambda: GCNConv(IN, OUT),
    "gcn-no-loops": lambda: GCNConv(IN, OUT, add_self_loops=False),
    "sage-max": lambda: SAGEConv(IN, OUT, aggr="max"),
    "sage-many": lambda: SAGEConv(IN, OUT, aggr=["mean", "min", "std", "mul"]),
    "sage-median": lambda: SAGEConv(IN, OUT, aggr="median"),
    "gin": lambda: GINConv(mlp(IN)),
    "gat": lambda: GATConv(IN, OUT, heads=2),
    "gat-no-loops": lambda: GATConv(IN, OUT, add_self_loops=False),
    "gatv2": lambda: GATv2Conv(IN, OUT, heads=2),
    "edge": lambda: EdgeConv(mlp(2 * IN)),
    "transformer": lambda: TransformerConv(IN, OUT, heads=2, beta=True),
    "general": lambda: GeneralConv(IN, OUT, attention=True, heads=2),
    "cg": lambda: CGConv(IN, aggr="mean"),
    "cheb": lambda: ChebConv(IN, OUT, 3),
    "pna": lambda: PNAConv(
        IN, OUT, ["mean", "std", "max"], ["identity", "attenuation"], torch.tensor([1, 4, 2])
    ),
    "custom": Custom,
}
PAIRS = ["sage-max", "sage-many", "gin", "gat-no-loops", "edge", "transformer", "cg", "custom"]

# Whatever hypothesis draws, these are always tried.
NO_EDGES = (3, 3, [], 0)
ONE_NODE = (1, 1, [], 0)
ONE_LOOP = (1, 1, [(0, 0)], 0)
LOOPS_AND_DUPLICATES = (4, 4, [(1, 1), (1, 1), (0, 2), (0, 2), (2, 0)], 0)


@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_any_graph(name, train):
    model = Plain(HOMOGENEOUS[name]()).train(train)
    scripted = torch.jit.script(model)

    @given(graphs())
    @example(NO_EDGES)
    @example(ONE_NODE)
    @example(ONE_LOOP)
    @example(LOOPS_AND_DUPLICATES)
    def run(graph):
        values = tensors(graph)
        agree(model, scripted, (values["x"], values["edge_index"]))

    run()


@pytest.mark.parametrize("name", PAIRS)
def test_any_bipartite_graph(name):
    model = Pair(HOMOGENEOUS[name]())
    scripted = torch.jit.script(model)

    @given(graphs(bipartite=True))
    @example((3, 1, [], 0))
    @example((1, 5, [(0, 4), (0, 4)], 0))
    def run(graph):
        values = tensors(graph)
        agree(model, scripted, (values["x"], values["y"], values["edge_index"]))

    run()


@pytest.mark.parametrize("name", ["sage-max", "gin", "gat-no-loops", "custom"])
def test_any_size_without_destinations(name):
    model = SourceSized(HOMOGENEOUS[name]())
    scripted = torch.jit.script(model)

    @given(graphs(bipartite=True))
    @example((2, 6, [(0, 5)], 0))
    @example((6, 1, [], 0))
    def run(graph):
        values = tensors(graph)
        agree(model, scripted, (values["x"], values["edge_index"], values["num_dst"]))

    run()


THIRD = {
    "gcn": (lambda: GCNConv(IN, OUT), "weight"),
    "gat": (lambda: GATConv(IN, OUT, edge_dim=EDGE), "attr"),
    "rgcn": (lambda: RGCNConv(IN, OUT, 3, num_bases=2), "kind"),
    "cg": (lambda: CGConv(IN, dim=EDGE), "attr"),
}


@pytest.mark.parametrize("name", THIRD)
def test_any_edge_values(name):
    make, key = THIRD[name]
    model = ThirdArgument(make())
    scripted = torch.jit.script(model)

    @given(graphs())
    @example(NO_EDGES)
    @example(ONE_LOOP)
    @example(LOOPS_AND_DUPLICATES)
    def run(graph):
        values = tensors(graph)
        agree(model, scripted, (values["x"], values["edge_index"], values[key]))

    run()


def test_any_hypergraph():
    model = Plain(HypergraphConv(IN, OUT))
    scripted = torch.jit.script(model)

    @given(graphs(bipartite=True))
    @example((3, 2, [], 0))
    def run(graph):
        values = tensors(graph)
        agree(model, scripted, (values["x"], values["edge_index"]))

    run()


def test_order_of_edges_does_not_matter():
    """A property of the scripted model alone."""
    scripted = torch.jit.script(Plain(Custom()))

    @given(graphs(), st.randoms(use_true_random=False))
    def run(graph, random):
        num_src, num_dst, edges, seed = graph
        shuffled = list(edges)
        random.shuffle(shuffled)
        first, second = tensors(graph), tensors((num_src, num_dst, shuffled, seed))
        torch.testing.assert_close(
            scripted(first["x"], first["edge_index"]),
            scripted(first["x"], second["edge_index"]),
            rtol=1e-4,
            atol=1e-4,
        )

    run()

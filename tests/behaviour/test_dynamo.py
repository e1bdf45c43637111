"""``torch.compile`` and ``torch.export.export``, called unchanged on eager models."""

from __future__ import annotations

import copy
import pickle
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch_geometric.nn import (
    GAT,
    GATConv,
    GCNConv,
    HeteroConv,
    HypergraphConv,
    MessagePassing,
    RGCNConv,
    Set2Set,
)
from torch_geometric.utils import add_remaining_self_loops, softmax

import gnnscript
from behaviour.models import Projecting
from conformance.forms import Plain
from conformance.graphs import GRAPHS, IN, OUT, RELATIONS, Graph, make_graph
from gnnscript.ops import library

FIRST, SECOND = ((g.x, g.edge_index) for g in GRAPHS)
NODES, EDGES = Dim("nodes"), Dim("edges")
SHAPES = {"x": {0: NODES}, "edge_index": {1: EDGES}}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No compiled code and no counts of an earlier test."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled(model: nn.Module, backend: str = "eager") -> Any:
    return torch.compile(model, fullgraph=True, dynamic=True, backend=backend)


def _x(g: Graph) -> tuple[Tensor, ...]:
    return g.x, g.edge_index


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: GAT(IN, 8, 2, OUT, v2=True, jk="cat", norm="LayerNorm"), _x),
        (lambda: Plain(RGCNConv(IN, OUT, RELATIONS)), lambda g: (*_x(g), g.kind)),
        (lambda: HypergraphConv(IN, OUT), lambda g: (g.x, g.bipartite)),
    ],
    ids=["GAT", "RGCN", "Hypergraph"],
)
def test_ten_sizes_take_one_compilation(
    make: Callable[[], nn.Module],
    inputs: Callable[[Graph], tuple[Tensor, ...]],
    kernels: str,
) -> None:
    model = make().eval()
    if isinstance(model, Plain):
        model = model.conv
    with _choose(kernels):
        _one_compilation(model, inputs)


def _choose(kernels: str) -> Any:
    if kernels == "native" and not library.paths():
        pytest.skip("no native library: run 'make native'")
    return gnnscript.kernels(kernels)


def _one_compilation(model: nn.Module, inputs: Callable[[Graph], tuple[Tensor, ...]]) -> None:
    fast = compiled(model)
    graphs = [make_graph(7 + 3 * n, 5 + 2 * n, 16 + 5 * n, seed=n) for n in range(10)]
    torch.testing.assert_close(fast(*inputs(graphs[0])), model(*inputs(graphs[0])))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    with torch._dynamo.config.patch(error_on_recompile=True):
        for graph in graphs[1:]:
            torch.testing.assert_close(fast(*inputs(graph)), model(*inputs(graph)))
    assert not torch._dynamo.utils.counters["graph_break"]


class Contrasting(Projecting):
    """Several aggregations of a message of both ends."""

    def __init__(self) -> None:
        super().__init__(aggr=["mean", "max", "softmax"])
        self.out = nn.Linear(3 * OUT, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.out(self.propagate(edge_index, x=self.lin(x)))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return (x_j - x_i).tanh()


class Scoring(Projecting):
    """Heads in a dimension of their own, against the flow, with attention."""

    def __init__(self) -> None:
        super().__init__(node_dim=0, flow="target_to_source")
        self.score = nn.Parameter(torch.randn(1, 2, OUT // 2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        size = x.size(0)
        edge_index, _ = add_remaining_self_loops(edge_index, num_nodes=size)
        return self.propagate(edge_index, x=self.lin(x).view(-1, 2, OUT // 2), size=(size, size))

    def message(self, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: int) -> Tensor:
        alpha = softmax(((x_i + x_j).sigmoid() * self.score).sum(-1), index, num_nodes=size_i)
        return alpha.unsqueeze(-1) * x_j


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("make", [Contrasting, Scoring])
def test_training_takes_one_compilation(make: type[nn.Module], kernels: str) -> None:
    model = make()
    fast = compiled(model, "aot_eager")

    def same(nodes: int, edges: int) -> None:
        random = torch.Generator().manual_seed(nodes)
        x = torch.randn(nodes, IN, generator=random)
        edge_index = torch.randint(nodes, (2, edges), generator=random)
        results = []
        for run in (fast, model):
            out = run(x, edge_index)
            results.append((out, torch.autograd.grad(out.square().sum(), [*model.parameters()])))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)

    with _choose(kernels):
        same(7, 19)
        with torch._dynamo.config.patch(error_on_recompile=True):
            # Sizes of nodes and edges that are equal, or equal a width.
            for sizes in ((9, 13), (IN, 30), (16, IN), (OUT, OUT + 1), (30, 100), (13, 13)):
                same(*sizes)
        # Torch compiles again for sizes 0 and 1.
        for sizes in ((1, 1), (1, 0), (5, 0), (2, 1), (5, 1)):
            same(*sizes)


class Remembering(nn.Module):
    """An LSTM that is given where to start, for which oneDNN has a kernel of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)
        self.read = Set2Set(OUT, 2)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.read(self.conv(x, edge_index), batch)


@pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="torch 2.10 gives the state of an LSTM without oneDNN a dimension too many",
)
@pytest.mark.usefixtures("auto")
def test_recurrent_models_are_trained() -> None:
    model = Remembering()
    fast = compiled(model, "aot_eager")
    for g in GRAPHS:
        out, expected = fast(*_x(g), g.batch), model(*_x(g), g.batch)
        torch.testing.assert_close(out, expected)
        found = torch.autograd.grad(out.square().sum(), [*model.parameters()])
        wanted = torch.autograd.grad(expected.square().sum(), [*model.parameters()])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("auto")
def test_inductor_compiles_forward_and_backward() -> None:
    model = GCNConv(IN, OUT)
    fast = compiled(model, "inductor")
    for call in (FIRST, SECOND):
        torch.testing.assert_close(fast(*call), model(*call))
        expected = torch.autograd.grad(model(*call).square().sum(), list(model.parameters()))
        found = torch.autograd.grad(fast(*call).square().sum(), list(model.parameters()))
        torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("auto")
def test_a_compiled_model_follows_the_eager_one() -> None:
    model = GCNConv(IN, OUT).eval()
    fast = compiled(model)

    def same() -> None:
        torch.testing.assert_close(fast(*FIRST), model(*FIRST))

    same()
    torch.testing.assert_close(
        fast(*FIRST, GRAPHS[0].weight), model(*FIRST, edge_weight=GRAPHS[0].weight)
    )
    with torch.no_grad():
        model.bias.add_(1.0)
    same()
    model.lin.weight = nn.Parameter(torch.randn(OUT, IN))
    same()
    model.load_state_dict(GCNConv(IN, OUT).state_dict(), assign=True)
    same()
    model.normalize = False
    same()
    model.double()
    torch.testing.assert_close(
        fast(FIRST[0].double(), FIRST[1]), model(FIRST[0].double(), FIRST[1])
    )
    assert fast._orig_mod is model
    assert [f"_orig_mod.{key}" for key in model.state_dict()] == list(fast.state_dict())


class Dropping(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.propagate(edge_index, x=self.lin(x))
        return out * 2 if self.training else out


@pytest.mark.usefixtures("auto")
def test_modes_and_state_are_those_of_the_eager_model() -> None:
    model = Dropping()
    fast = compiled(model)
    trained = fast(*FIRST)
    fast.eval()
    assert not model.training
    torch.testing.assert_close(2 * fast(*FIRST), trained)

    cached = GCNConv(IN, OUT, cached=True)
    fast = compiled(cached)
    first = fast(*FIRST)
    assert cached._cached_edge_index is not None
    torch.testing.assert_close(fast(FIRST[0], FIRST[1][:, :3]), first)
    cached._cached_edge_index = None
    torch.testing.assert_close(fast(FIRST[0], FIRST[1][:, :3]), fast._orig_mod(*_cut(FIRST)))


def _cut(call: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return call[0], call[1][:, :3]


@pytest.mark.usefixtures("auto")
def test_functions_registered_on_messages_are_compiled() -> None:
    """torch by itself leaves them out."""
    model = Plain(GCNConv(IN, OUT))
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(*FIRST), model(*FIRST))
    handle = model.conv.register_message_forward_hook(lambda conv, inputs, out: 3 * out)
    for call in (FIRST, SECOND):
        torch.testing.assert_close(compiled(*call), model(*call))
    handle.remove()
    torch.testing.assert_close(compiled(*FIRST), model(*FIRST))


@pytest.mark.usefixtures("auto")
def test_hooks_are_called_with_the_eager_modules() -> None:
    model = Plain(GATConv(IN, OUT))
    fast = torch.compile(model, backend="eager")
    fast(*FIRST)
    seen: list[nn.Module] = []
    handle = model.conv.register_forward_hook(lambda module, args, out: seen.append(module))
    torch.testing.assert_close(fast(*FIRST), model(*FIRST))
    assert len(seen) == 2
    assert all(module is model.conv for module in seen)
    handle.remove()
    fast(*FIRST)
    assert len(seen) == 2


class Unspecialisable(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor, **kwargs: Any) -> Tensor:
        return self.propagate(edge_index, x=x, **kwargs)


@pytest.mark.usefixtures("auto")
def test_what_torch_compiles_and_exports_alone_it_still_does() -> None:
    model = Unspecialisable()
    with pytest.raises(gnnscript.UnsupportedError):
        torch.jit.script(model)
    torch.testing.assert_close(torch.compile(model, backend="eager")(*FIRST), model(*FIRST))
    program = torch.export.export(model, FIRST)
    torch.testing.assert_close(program.module()(*FIRST), model(*FIRST))
    plain = nn.Linear(IN, OUT)
    torch.testing.assert_close(compiled(plain)(FIRST[0]), plain(FIRST[0]))


@pytest.mark.usefixtures("auto")
def test_compiled_models_are_copied_and_pickled() -> None:
    model = Plain(GATConv(IN, OUT)).eval()
    fast = torch.compile(model, backend="eager")
    expected = fast(*FIRST)
    torch.testing.assert_close(copy.deepcopy(fast)(*FIRST), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(*FIRST), expected)


@pytest.mark.usefixtures("auto")
def test_export_has_dynamic_nodes_and_edges() -> None:
    model = GAT(IN, 8, 2, OUT, norm="BatchNorm").eval()
    program = torch.export.export(model, FIRST, dynamic_shapes={**SHAPES})
    assert not [n for n in program.graph.nodes if "propagate" in str(n.target)]
    assert set(program.state_dict) == set(model.state_dict())
    for call in (FIRST, SECOND):
        torch.testing.assert_close(program.module()(*call), model(*call))


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("strict", [False, True])
def test_export_of_sizes_that_values_decide(strict: bool) -> None:
    model = HypergraphConv(IN, OUT).eval()
    shapes = {"x": {0: NODES}, "hyperedge_index": {1: EDGES}}
    calls = [(g.x, g.bipartite) for g in GRAPHS]
    program = torch.export.export(model, calls[0], dynamic_shapes=shapes, strict=strict)
    for call in calls:
        torch.testing.assert_close(program.module()(*call), model(*call))


@pytest.mark.usefixtures("auto")
def test_export_takes_keywords_and_options() -> None:
    conv = GATConv(IN, OUT)
    options = {"edge_index": FIRST[1], "return_attention_weights": True}
    program = torch.export.export(conv, FIRST[:1], options)
    out, (_, alpha) = program.module()(FIRST[0], **options)
    expected, (_, weights) = conv(FIRST[0], **options)
    torch.testing.assert_close((out, alpha), (expected, weights))

    weighted = GCNConv(IN, OUT)
    shapes = (SHAPES["x"], SHAPES["edge_index"], {0: EDGES})
    g, h = GRAPHS
    program = torch.export.export(weighted, (*_x(g), g.weight), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(*_x(h), h.weight), weighted(*_x(h), h.weight))


class Several(Projecting):
    def forward(self, *inputs: Tensor) -> Tensor:
        x, edge_index = inputs
        return self.propagate(edge_index, x=self.lin(x))


@pytest.mark.usefixtures("auto")
def test_shapes_of_several_arguments_are_given_as_without() -> None:
    model = Several().eval()
    for shapes in ({"inputs": tuple(SHAPES.values())}, (tuple(SHAPES.values()),)):
        program = torch.export.export(model, FIRST, dynamic_shapes=shapes)
        for call in (FIRST, SECOND):
            torch.testing.assert_close(program.module()(*call), model(*call))


class ByValue(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if float(x.max()) > 3:
            x = x / x.max()
        return self.propagate(edge_index, x=self.lin(x))


@pytest.mark.usefixtures("auto")
def test_what_cannot_be_exported_names_the_line() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=r"torch\.export does not accept") as info:
        torch.export.export(ByValue(), FIRST)
    assert info.value.location is not None
    assert info.value.location.code == "if float(x.max()) > 3:"


class Checked(Projecting):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if bool(torch.any(x.isnan())) or not torch.all(edge_index >= 0):
            raise ValueError(f"no graph: {x.size()}")
        assert int(edge_index.max()) < x.size(0), "an index is out of range"
        return self.propagate(edge_index, x=self.lin(x))


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("door", ["compile", "export"])
def test_checks_of_values_become_assertions(door: str) -> None:
    model = Checked().eval()
    if door == "export":
        run = torch.export.export(model, FIRST, dynamic_shapes={**SHAPES}).module()
    else:
        run = compiled(model)
    for call in (FIRST, SECOND):
        torch.testing.assert_close(run(*call), model(*call))
    with pytest.raises(Exception, match=r"no graph: \.\.\."):
        run(FIRST[0] * torch.nan, FIRST[1])
    with pytest.raises(Exception, match=r"no graph: \.\.\."):
        run(FIRST[0], FIRST[1] - 9)
    with pytest.raises(Exception, match=r"out of range|Runtime assertion"):
        run(FIRST[0][:3], FIRST[1])


@pytest.mark.usefixtures("auto")
def test_options_that_a_torch_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("capture_scalar_outputs", "an_option_of_tomorrow")
    monkeypatch.setattr("gnnscript.dynamo.compiled._CAPTURED", names)
    model = Plain(GCNConv(IN, OUT)).eval()
    torch.testing.assert_close(compiled(model)(*SECOND), model(*SECOND))


TO, BACK = ("a", "to", "b"), ("b", "rev", "a")


class Relational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = HeteroConv({edge: GATConv((IN, IN), OUT, add_self_loops=False)
                                for edge in (TO, BACK)})  # fmt: skip

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Any:
        out = self.conv(x_dict, edge_index_dict)
        return out, {edge: index + 1 for edge, index in edge_index_dict.items()}


@pytest.mark.usefixtures("auto")
def test_edge_types_stay_tuples_for_those_who_call_as_in_eager() -> None:
    model = Relational().eval()
    calls = [
        ({"a": g.x, "b": g.x_dst}, {TO: g.bipartite, BACK: g.bipartite.flip(0)}) for g in GRAPHS
    ]
    report = gnnscript.check(model, calls, convs=False)
    assert report.ok, str(report)
    fast = compiled(model)
    for call in calls:
        torch.testing.assert_close(fast(*call), model(*call))
    program = torch.export.export(model, calls[0])
    _, edges = program.module()(*calls[0])
    assert list(edges) == [TO, BACK]


def test_uninstall_gives_torch_back() -> None:
    import torch.export._trace as trace

    before = torch.compile, trace._export
    gnnscript.install()
    assert torch.compile is not before[0]
    assert trace._export is not before[1]
    gnnscript.uninstall()
    assert (torch.compile, trace._export) == before


def test_installing_again_waits_for_imports_again(run_python) -> None:
    code = """
        import sys
        import wrapt
        import gnnscript
        gnnscript.install()
        gnnscript.uninstall()
        before = list(sys.meta_path)
        gnnscript.install()
        assert "torch.export._trace" not in sys.modules
        import torch.export._trace
        from torch_geometric.nn import GCNConv
        export = torch.export._trace
        hooked = wrapt.FunctionWrapper
        print(isinstance(export._export, hooked), hasattr(GCNConv, "__gnnscript__"))
        gnnscript.uninstall()
        print(isinstance(export._export, hooked), sys.meta_path == before)
    """
    assert run_python(textwrap.dedent(code)).stdout.split() == ["True", "True", "False", "True"]


@pytest.mark.usefixtures("auto")
def test_specialised_code_adds_shapes_as_python_does() -> None:
    # add_remaining_self_loops adds a tuple and a shape: a list in TorchScript, a tuple in Python.
    model, graph = GCNConv(IN, OUT), GRAPHS[1]
    call = (*_x(graph), graph.weight)
    torch.testing.assert_close(compiled(model)(*call), model(*call))

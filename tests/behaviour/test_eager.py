"""Under auto, eager models behave as they do without it."""

import sys
import tempfile
import warnings
from typing import Optional

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import (
    EdgeConv,
    GATConv,
    GCNConv,
    GraphConv,
    MessagePassing,
    SAGEConv,
)
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import remove_self_loops, spmm, to_torch_coo_tensor, to_torch_csr_tensor

import gnnscript
from conformance.graphs import GRAPHS, IN, OTHER, OUT

pytestmark = pytest.mark.usefixtures("auto")

G = GRAPHS[0]
N = G.x.size(0)


class Custom(MessagePassing):
    """Has every hook there is."""

    def __init__(self, **kwargs):
        super().__init__(aggr="add", **kwargs)
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        x = self.lin(x)
        gate = self.edge_updater(edge_index, x=x)
        return self.propagate(edge_index, x=x, gate=gate)

    def edge_update(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return (x_i * x_j).sum(-1, keepdim=True).sigmoid()

    def message(self, x_j: Tensor, gate: Tensor) -> Tensor:
        return gate * x_j

    def update(self, inputs: Tensor, x: Tensor) -> Tensor:
        return inputs + x


# -- hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripted_first", [False, True])
def test_hooks_of_message_passing(scripted_first):
    conv = Custom()
    if scripted_first:
        torch.jit.script(conv)
    expected = conv(G.x, G.edge_index)
    calls = []

    def note(name, change=None):
        def hook(module, inputs, output=None):
            assert module is conv
            calls.append(name)
            return None if change is None else change(inputs, output)

        return hook

    handles = [
        conv.register_propagate_forward_pre_hook(note("propagate-pre")),
        conv.register_propagate_forward_hook(note("propagate")),
        conv.register_message_forward_pre_hook(note("message-pre")),
        conv.register_message_forward_hook(note("message", lambda _, out: 2 * out)),
        conv.register_aggregate_forward_pre_hook(note("aggregate-pre")),
        conv.register_aggregate_forward_hook(note("aggregate")),
        conv.register_edge_update_forward_pre_hook(note("edge-pre")),
        conv.register_edge_update_forward_hook(note("edge")),
    ]
    hooked = conv(G.x, G.edge_index)
    assert calls == [
        "edge-pre", "edge", "propagate-pre", "message-pre", "message", "aggregate-pre",
        "aggregate", "propagate",
    ]  # fmt: skip
    x = conv.lin(G.x)
    torch.testing.assert_close(hooked - x, 2 * (expected - x))
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(conv(G.x, G.edge_index), expected)


def test_pre_hook_changes_the_arguments_of_propagate():
    conv = SAGEConv(IN, OUT)
    expected = conv(G.x, G.edge_index[:, :4])

    def shorten(_, inputs):
        edge_index, size, kwargs = inputs
        return edge_index[:, :4], size, kwargs

    conv.register_propagate_forward_pre_hook(shorten)
    torch.testing.assert_close(conv(G.x, G.edge_index), expected)


def test_message_pre_hook_changes_messages():
    conv = GCNConv(IN, OUT)

    def silence(_, inputs):
        (kwargs,) = inputs
        return {**kwargs, "x_j": torch.zeros_like(kwargs["x_j"])}

    conv.register_message_forward_pre_hook(silence)
    torch.testing.assert_close(conv(G.x, G.edge_index), conv.bias.expand(N, OUT))


# -- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: GCNConv(IN, OUT), Custom], ids=["gcn", "custom"])
def test_explain_masks_edges(make):
    conv = make()
    expected = conv(G.x, G.edge_index)
    conv.explain = True
    loops = N if isinstance(conv, GCNConv) else 0
    conv._edge_mask = torch.full((G.edge_index.size(1) + loops,), 100.0)
    conv._loop_mask = G.edge_index[0] != G.edge_index[1]
    if loops:
        # The layer drops self loops before it adds its own.
        keep = int(conv._loop_mask.sum())
        conv._edge_mask = torch.full((keep + loops,), 100.0)
    torch.testing.assert_close(conv(G.x, G.edge_index), expected)
    conv._edge_mask = torch.full_like(conv._edge_mask, -100.0)
    assert not torch.allclose(conv(G.x, G.edge_index), expected)
    conv.explain = False
    torch.testing.assert_close(conv(G.x, G.edge_index), expected)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(IN, 6)
        self.second = SAGEConv(6, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


@pytest.mark.filterwarnings("ignore")  # PyG's explainer warns about its own call of torch
def test_gnn_explainer(capsys):
    model = Net()
    torch.jit.script(model)
    explainer = Explainer(
        model,
        algorithm=GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(G.x, G.edge_index, index=1)
    capsys.readouterr()
    assert explanation.edge_mask.shape == (G.edge_index.size(1),)
    assert float(explanation.edge_mask.abs().sum()) > 0


# -- decomposed layers ----------------------------------------------------------------------------


def test_decomposed_layers():
    torch.manual_seed(0)
    whole = GCNConv(IN, OUT)
    parts = GCNConv(IN, OUT, decomposed_layers=2)
    parts.load_state_dict(whole.state_dict())
    torch.testing.assert_close(parts(G.x, G.edge_index), whole(G.x, G.edge_index))
    seen = []
    parts.register_message_forward_hook(lambda _, inputs, out: seen.append(out.size(-1)))
    parts(G.x, G.edge_index)
    assert seen == [OUT // 2] * 2
    parts.decomposed_layers = 1
    seen.clear()
    parts(G.x, G.edge_index)
    assert seen == [OUT]


# -- other kinds of edges -------------------------------------------------------------------------


# What torch and PyG say about sparse tensors and their conversion, with or without us.
sparse_warnings = pytest.mark.filterwarnings(
    "ignore:Sparse (invariant|CSR|CSC)", "ignore:Converting sparse tensor"
)


@sparse_warnings
@pytest.mark.parametrize("sort_order", [None, "row", "col"])
def test_edge_index(sort_order):
    order = slice(None)
    if sort_order is not None:
        order = G.edge_index[0 if sort_order == "row" else 1].argsort(stable=True)
    plain = G.edge_index[:, order]
    edge_index = EdgeIndex(plain, sparse_size=(N, N), sort_order=sort_order)
    for conv in (SAGEConv(IN, OUT), GraphConv(IN, OUT, aggr="max"), GCNConv(IN, OUT), Custom()):
        torch.testing.assert_close(conv(G.x, edge_index), conv(G.x, plain))


class WantsPtr(MessagePassing):
    """Tells whether it was given the pointers of a sorted edge index."""

    seen: Optional[bool] = None

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor, ptr: OptTensor) -> Tensor:
        self.seen = ptr is not None
        return x_j


def test_edge_index_hands_over_its_pointers():
    conv = WantsPtr(aggr="add")
    plain = G.sorted_edge_index
    expected = conv(G.x, plain)
    assert conv.seen is False
    edge_index = EdgeIndex(plain, sparse_size=(N, N), sort_order="col")
    torch.testing.assert_close(conv(G.x, edge_index), expected)
    assert conv.seen is True


@sparse_warnings
@pytest.mark.parametrize("layout", [to_torch_coo_tensor, to_torch_csr_tensor])
def test_sparse_adjacencies(layout):
    # GCN adds self loops to sparse adjacencies that have some already.
    edge_index, _ = remove_self_loops(torch.unique(G.edge_index, dim=1))
    adj_t = layout(edge_index.flip([0]), size=(N, N))
    calls = []

    class Fused(MessagePassing):
        def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
            calls.append("fused")
            return spmm(adj_t, x, reduce=self.aggr)

    convs = [SAGEConv(IN, OUT), GraphConv(IN, OUT), EdgeConv(nn.Linear(2 * IN, OUT)), Fused()]
    for conv in convs:
        torch.testing.assert_close(conv(G.x, adj_t), conv(G.x, edge_index))
    assert calls == ["fused"]
    gcn = GCNConv(IN, OUT)
    torch.testing.assert_close(gcn(G.x, adj_t), gcn(G.x, edge_index))


@sparse_warnings
def test_scripting_does_not_change_eager_kinds_of_edges():
    conv = SAGEConv(IN, OUT)
    adj_t = to_torch_coo_tensor(torch.unique(G.edge_index, dim=1).flip([0]), size=(N, N))
    expected = conv(G.x, adj_t)
    torch.jit.script(conv)
    torch.testing.assert_close(conv(G.x, adj_t), expected)


# -- the same results and errors as without -------------------------------------------------------


class Plainly(MessagePassing):
    """Defined here and used nowhere else, so no other test has made an instance of it."""

    def forward(self, x: tuple[Tensor, Tensor], edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return 2 * x_i - x_j


def test_pairs_flow_as_without_auto():
    """For pairs, PyG's two propagates disagree on which end of a reverse flow is which."""
    gnnscript.uninstall()
    without = Plainly(flow="target_to_source")
    expected = without((G.x, G.x.flip(0)), G.edge_index)
    gnnscript.install()
    under = Plainly(flow="target_to_source")
    torch.testing.assert_close(under((G.x, G.x.flip(0)), G.edge_index), expected)
    torch.testing.assert_close(without((G.x, G.x.flip(0)), G.edge_index), expected)
    scripted = torch.jit.script(under)
    torch.testing.assert_close(scripted((G.x, G.x.flip(0)), G.edge_index), expected)


def test_more_destinations_than_sources():
    """The size that forward hands to edge_updater is obeyed, as it is without auto."""
    torch.manual_seed(0)
    conv = GATConv((IN, OTHER), OUT, add_self_loops=False)
    edge_index = torch.tensor([[0, 1, 2, 2], [8, 0, 11, 8]])
    out = conv((G.x[:3], None), edge_index, size=(3, 12))
    assert out.shape == (12, OUT)
    full = conv((G.x[:3], torch.zeros(12, OTHER)), edge_index)
    torch.testing.assert_close(out, full)


def test_errors_are_those_of_pyg():
    conv = SAGEConv(IN, OUT)
    with pytest.raises(ValueError, match="integer"):
        conv(G.x, G.edge_index.float())
    with pytest.raises(IndexError, match="negative indices"):
        conv(G.x, G.edge_index - 5)
    with pytest.raises(IndexError, match="larger than"):
        conv(G.x, G.edge_index + N)


def test_instances_from_before_and_after():
    under = Custom()
    gnnscript.uninstall()
    before = Custom()
    before.load_state_dict(under.state_dict())
    expected = before(G.x, G.edge_index)
    torch.testing.assert_close(under(G.x, G.edge_index), expected)
    gnnscript.install()
    torch.testing.assert_close(before(G.x, G.edge_index), expected)
    torch.testing.assert_close(torch.jit.script(before)(G.x, G.edge_index), expected)
    torch.testing.assert_close(torch.jit.script(under)(G.x, G.edge_index), expected)


def test_own_propagate_still_runs():
    class Own(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def propagate(self, edge_index, size=None, **kwargs):
            return -super().propagate(edge_index, size=size, **kwargs)

    conv = Own()
    total = torch.zeros_like(G.x).index_add(0, G.edge_index[1], G.x[G.edge_index[0]])
    torch.testing.assert_close(conv(G.x, G.edge_index), -total)


def test_keyword_arguments_that_cannot_be_scripted_still_run():
    class Loose(MessagePassing):
        def forward(self, x, edge_index, **kwargs):
            return self.propagate(edge_index, x=x, **kwargs)

        def message(self, x_j, scale):
            return scale * x_j

    conv = Loose()
    once = conv(G.x, G.edge_index, scale=1.0)
    torch.testing.assert_close(conv(G.x, G.edge_index, scale=2.0), 2 * once)


def test_no_warning_and_the_same_text():  # warnings are errors
    conv = GATConv(IN, OUT, heads=2)
    conv(G.x, G.edge_index)
    assert repr(conv) == f"GATConv({IN}, {OUT}, heads=2)"
    assert type(conv).__name__ == "GATConv"
    assert isinstance(conv, MessagePassing)


def test_templates_come_from_no_temporary_file():
    before = set(sys.modules)

    class Fresh(Custom):
        def message(self, x_j: Tensor, gate: Tensor) -> Tensor:
            return -gate * x_j

    conv = Fresh()
    conv(G.x, G.edge_index)
    torch.jit.script(conv)(G.x, G.edge_index)
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        assert path is None or not path.startswith(tempfile.gettempdir()), name


PROGRAM = """
import sys, tempfile
import gnnscript.auto
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, MessagePassing

def no_files(*args, **kwargs):
    raise AssertionError("a temporary file")

tempfile.NamedTemporaryFile = tempfile.mkstemp = tempfile.mkdtemp = no_files

class Own(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 2]])
for conv in (GATConv(4, 4), Own()):
    conv(x, edge_index)
    torch.jit.script(conv)(x, edge_index)
print("ok")
"""


def test_writes_no_template(run_file):
    assert run_file(PROGRAM).strip() == "ok"


def test_torch_jit_trace_still_traces():
    conv = GCNConv(IN, OUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about Python values, as it does without us
        traced = torch.jit.trace(conv, (G.x, G.edge_index), check_trace=False)
    torch.testing.assert_close(traced(G.x, G.edge_index), conv(G.x, G.edge_index))


def test_lazy_modules():
    conv = SAGEConv(-1, OUT)
    conv(G.x, G.edge_index)
    scripted = torch.jit.script(conv)
    for g in GRAPHS:
        torch.testing.assert_close(scripted(g.x, g.edge_index), conv(g.x, g.edge_index))

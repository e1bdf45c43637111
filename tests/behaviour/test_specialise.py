"""The code a module is specialised to: concrete, without dead code, and of the same parameters."""

# Classes stand here as users write them.
# ruff: noqa: RET504, SIM108

import ast
import enum
import zipfile
from dataclasses import dataclass
from typing import Optional, Union

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import (
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    MessagePassing,
    PNAConv,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

import gnnscript
from conformance.forms import Plain
from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")

CONVS = {
    "gcn": lambda: GCNConv(IN, OUT),
    "sage": lambda: SAGEConv(IN, OUT, aggr=["mean", "max"], project=True),
    "gin": lambda: GINConv(nn.Linear(IN, OUT)),
    "gat": lambda: GATConv(IN, OUT, edge_dim=EDGE, residual=True),
    "gatv2": lambda: GATv2Conv(IN, OUT, share_weights=True),
    "edge": lambda: EdgeConv(nn.Linear(2 * IN, OUT)),
    "transformer": lambda: TransformerConv(IN, OUT, beta=True),
    "rgcn": lambda: RGCNConv(IN, OUT, 3, num_bases=2),
    "pna": lambda: PNAConv(IN, OUT, ["mean", "std"], ["identity"], torch.tensor([0, 3, 2, 1])),
}


def code_of(module: nn.Module) -> ast.Module:
    """The specialised code, which must be Python."""
    return ast.parse(gnnscript.source(module))


def names(tree: ast.AST) -> set[str]:
    """Every name and attribute the code mentions."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found


# -- what may not survive -------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVS)
def test_no_sparse_tensor_no_isinstance_no_union(name):
    text = gnnscript.source(CONVS[name]())
    tree = ast.parse(text)
    for cls in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        # The door of a root asks which form is meant; nothing behind it does.
        cls.body = [n for n in cls.body if "Union" not in names(getattr(n, "args", n))]
    mentioned = names(tree)
    assert "SparseTensor" not in text
    assert not mentioned & {"isinstance", "hasattr", "getattr", "is_torch_sparse_tensor"}
    assert not mentioned & {"Union", "Adj", "torch_sparse", "is_scripting", "is_compiling"}


@pytest.mark.parametrize("name", CONVS)
def test_no_branch_on_a_constant(name):
    for node in ast.walk(code_of(CONVS[name]())):
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            assert not isinstance(node.test, ast.Constant), ast.unparse(node)
            reads = [n for n in ast.walk(node.test) if isinstance(n, (ast.Name, ast.Call))]
            assert reads, f"nothing in this test can vary: {ast.unparse(node.test)}"


@pytest.mark.parametrize("name", CONVS)
def test_scripts_that_are_saved_name_no_sparse_tensor(name, tmp_path):
    conv = CONVS[name]()
    path = tmp_path / "model.pt"
    torch.jit.script(conv if name == "rgcn" else Plain(conv)).save(str(path))
    with zipfile.ZipFile(path) as archive:
        code = [archive.read(file).decode() for file in archive.namelist() if file.endswith(".py")]
    assert code
    assert not any("SparseTensor" in text for text in code)


class Flagged(MessagePassing):
    """Branches on every kind of configuration there is."""

    class Mode(enum.Enum):
        FAST = "fast"
        EXACT = "exact"

    @dataclass(frozen=True)
    class Options:
        depth: int = 2
        bias: bool = False

    def __init__(self, flavour: str = "vanilla", gate: Optional[nn.Module] = None, depth: int = 2):
        super().__init__(aggr="add")
        self.flavour = flavour
        self.gate = gate
        self.mode = self.Mode.FAST
        self.options = self.Options(depth)
        self.sizes = {"in": IN, "out": OUT}
        self.limits = None
        self.lin = nn.Linear(IN, OUT)
        if flavour == "chocolate":
            self.extra = nn.Linear(IN, OUT)

    def forward(self, x: Union[Tensor, SparseTensor], edge_index: Adj, weight: OptTensor = None):
        if isinstance(x, SparseTensor):
            raise ValueError("dead: sparse features")
        if self.flavour == "vanilla":
            hidden = self.lin(x)
        elif self.flavour == "chocolate":
            hidden = self.extra(x) + 1.25
        else:
            raise NotImplementedError(f"dead: {self.flavour}")
        if self.gate is not None:
            hidden = hidden * self.gate(x)
        if self.mode == self.Mode.EXACT:
            hidden = hidden * 12345.0
        if self.options.bias or self.limits is not None:
            hidden = hidden + 54321.0
        for _ in range(self.options.depth):
            hidden = hidden.relu() + hidden / self.sizes["in"]
        if hasattr(self, "extra"):
            hidden = hidden - 0.75
        if is_torch_sparse_tensor(edge_index):
            edge_index = edge_index.t()
        # A plain remark of the author.
        smoothed_features = self.propagate(edge_index, x=hidden, weight=weight)
        return smoothed_features

    def message(self, x_j: Tensor, weight: OptTensor) -> Tensor:
        weighted_messages = x_j if weight is None else weight.view(-1, 1) * x_j
        return weighted_messages


def test_dead_branches_of_configuration():
    vanilla = gnnscript.source(Flagged())
    chocolate = gnnscript.source(Flagged("chocolate", gate=nn.Linear(IN, 1)))
    for text in (vanilla, chocolate):
        assert "dead:" not in text
        assert "12345" not in text
        assert "54321" not in text
        assert not names(ast.parse(text)) & {"flavour", "mode", "options", "limits", "Mode"}
    assert "1.25" not in vanilla
    assert "1.25" in chocolate
    assert "extra" not in vanilla
    assert "gate" not in names(ast.parse(vanilla))
    assert "gate" in names(ast.parse(chocolate))


def test_configuration_of_every_kind(check, check_conv):
    check_conv(Flagged())
    check_conv(Flagged("chocolate", gate=nn.Sequential(nn.Linear(IN, 1), nn.Sigmoid()), depth=1))
    check(Flagged(), *[(g.x, g.edge_index, g.weight) for g in GRAPHS])


def test_dead_branch_raises_as_in_eager():
    model = Flagged("strawberry")
    with pytest.raises(NotImplementedError, match="strawberry"):
        model(GRAPHS[0].x, GRAPHS[0].edge_index)
    # Whether compiling refuses it or running does, the reason is the author's.
    with pytest.raises(Exception, match="strawberry"):
        torch.jit.script(model)(GRAPHS[0].x, GRAPHS[0].edge_index)


def test_helpers_are_folded_too():
    plain = gnnscript.source(GCNConv(IN, OUT, normalize=False))
    normalized = gnnscript.source(GCNConv(IN, OUT, improved=True))
    assert "-0.5" not in plain
    assert "-0.5" in normalized
    assert "target_to_source" not in normalized
    assert "improved" not in names(ast.parse(normalized))
    loops = gnnscript.source(GATConv(IN, OUT, add_self_loops=False))
    assert "add_self_loops" not in names(ast.parse(loops))


# -- what a reader finds --------------------------------------------------------------------------


def test_header_names_class_configuration_and_origin():
    text = gnnscript.source(Flagged(depth=7))
    lines = text.splitlines()
    header = "\n".join(lines[:15])
    assert "Flagged" in header
    assert "test_specialise.py:" in header
    line = Flagged.forward.__code__.co_firstlineno
    numbers = [part.split(":")[1] for part in header.split() if "test_specialise.py:" in part]
    assert any(abs(int(n.rstrip(".,;)")) - line) < 40 for n in numbers), header
    assert "vanilla" in header


def test_statements_of_the_author_are_kept():
    text = gnnscript.source(Flagged())
    assert "smoothed_features" in text
    assert "weighted_messages" in text
    assert "hidden.relu()" in text


def test_source_is_the_same_before_and_after_scripting():
    conv = GATConv(IN, OUT)
    before = gnnscript.source(conv)
    torch.jit.script(Plain(conv))
    assert gnnscript.source(conv) == before


def test_source_of_configurations_differs():
    assert gnnscript.source(GCNConv(IN, OUT)) != gnnscript.source(GCNConv(IN, OUT, bias=False))
    assert gnnscript.source(GCNConv(IN, OUT)) == gnnscript.source(GCNConv(IN, OUT))


@pytest.mark.parametrize("value", [GCNConv, "GCNConv", None], ids=str)
def test_source_of_something_else(value):
    with pytest.raises((TypeError, gnnscript.GnnscriptError)):
        gnnscript.source(value)


def test_errors_at_run_time_quote_the_authors_statement():
    scripted = torch.jit.script(Plain(Flagged()))
    with pytest.raises(Exception, match=r"self\.lin\(x\)"):
        scripted(torch.randn(4, IN + 1), GRAPHS[0].edge_index)


# -- writes, renames ------------------------------------------------------------------------------


class Remembers(MessagePassing):
    """Keeps its last attention and counts its calls."""

    _alpha: OptTensor
    calls: int

    def __init__(self) -> None:
        super().__init__(aggr="add")
        self._alpha = None
        self.calls = 0
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.calls += 1
        self.total += x.detach().sum()
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        alpha = (x_i * x_j).sum(-1).sigmoid()
        self._alpha = alpha
        return alpha.unsqueeze(-1) * x_j


def test_writes_of_attributes(check):
    check(Remembers())
    check(Plain(Remembers()))
    g = GRAPHS[0]
    eager, scripted = Remembers(), torch.jit.script(Remembers())
    for module in (eager, scripted):
        module(g.x, g.edge_index)
        module(g.x + 1, g.edge_index)
    assert scripted.calls == eager.calls == 2
    torch.testing.assert_close(scripted._alpha, eager._alpha)
    torch.testing.assert_close(scripted.total, eager.total)


def test_cache_of_gcn():
    g = GRAPHS[0]
    conv = GCNConv(IN, OUT, cached=True)
    scripted = torch.jit.script(Plain(conv))
    first = scripted(g.x, g.edge_index)
    torch.testing.assert_close(scripted(g.x, g.edge_index.flip([1])[:, :5]), first)
    assert conv._cached_edge_index is None
    torch.testing.assert_close(conv(g.x, g.edge_index), first)


def test_cache_that_is_already_filled():
    g = GRAPHS[0]
    conv = GCNConv(IN, OUT, cached=True)
    expected = conv(g.x, g.edge_index)
    torch.testing.assert_close(torch.jit.script(Plain(conv))(g.x, g.edge_index[:, :3]), expected)


class Renames(MessagePassing):
    """Gives one name values of many types."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Union[Tensor, OptPairTensor], edge_index: Adj) -> Tensor:
        if isinstance(x, Tensor):
            x: OptPairTensor = (x, x)
        size = x[0].size(0)
        out = [self.lin(part) for part in x if part is not None]
        out = torch.stack(out).mean(0)
        weight = size
        weight = torch.full((edge_index.size(1),), 1.0 / weight)
        x = (out, x[1])
        x = x[0]
        alpha = (x, x)
        alpha = self.propagate(edge_index, x=alpha, weight=weight)
        if alpha.dim() == 2:
            weight = alpha.sum(0)
        else:
            weight = alpha
        return weight + alpha

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        weight = weight.unsqueeze(-1)
        return weight * x_j


class RenamesInBranches(MessagePassing):
    def __init__(self, pair: bool, deep: bool) -> None:
        super().__init__(aggr="add")
        self.pair = pair
        self.act = F.relu if deep else torch.tanh

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.pair:
            x = (x, self.act(x))
        else:
            x = (x, None)
        edge_weight = None
        if x[1] is not None:
            edge_weight = x[1][edge_index[0], 0]
        n = x[0].size(0)
        return self.propagate(edge_index, x=x, edge_weight=edge_weight, size=(n, n))

    def message(self, x_j: Tensor, x_i: OptTensor, edge_weight: OptTensor) -> Tensor:
        if x_i is not None:
            x_j = x_j - x_i
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j


def test_renames(check_conv):
    check_conv(Renames())


@pytest.mark.parametrize("pair", [True, False])
@pytest.mark.parametrize("deep", [True, False])
def test_renames_in_branches(pair, deep, check_conv):
    check_conv(RenamesInBranches(pair, deep))

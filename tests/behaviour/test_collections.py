"""Tuples, lists and dictionaries known by their elements: computed once, and never stale."""

from typing import Dict

import pytest
import torch
import torch.nn.functional as F
from tests.behaviour.models import GRAPHS, IN
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, HGTConv, MessagePassing

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")


class Base(MessagePassing):
    def message(self, x_j: Tensor) -> Tensor:
        return x_j

    def run(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)


class DictOfCalls(Base):
    """Each value is computed from its own turn of the comprehension."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found = {k: self.run(x * i, edge_index) for i, k in enumerate(["a", "b", "c"], 1)}
        return found["a"] + 10 * found["b"] + 100 * found["c"]


class ComputedOnce(Base):
    """A value that is drawn at random is the same wherever it is read."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        noise = {k: torch.rand_like(x) for k in "ab"}
        same = noise
        pairs = [y - y for y in (torch.rand_like(x), torch.rand_like(x))]
        return self.run(x, edge_index) + noise["a"] - same["a"] + noise["b"] * 0 + sum(pairs)


class WithNone(Base):
    """Arguments by name, of which one is absent: each is known for what it is."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        given = {"x": x, "edge_index": edge_index, "w": None}
        args = [given[name] for name in ("x", "edge_index", "w")]
        out = self.scaled(*args)
        args[2] = out
        return self.scaled(*args)

    def scaled(self, x: Tensor, edge_index: Tensor, w=None) -> Tensor:
        out = self.run(x, edge_index)
        return out if w is None else out * w


class Starred(Base):
    """Results of layers, unpacked by a star; sizes that a tensor holds, unpacked into arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(IN, IN), nn.LSTM(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor):
        x, *_ = self.gru(self.run(x, edge_index)[:, None])
        x, *rest = self.lstm(x)
        *first, last = self.lstm(x)
        parts = [x, x.repeat(1, 2, 1)]
        sizes = torch.max(torch.tensor([part.shape for part in parts]), 0).values
        sizes[-1] = -1
        joined = torch.cat([part.expand(*sizes) for part in parts], dim=-1)
        return joined, rest[0][0], first[0], last[1]


class NotStale(Base):
    """What a name is given later does not reach a dictionary made before."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        kept = {"x": x, "scale": 2.0}
        x = x + 1
        out = self.propagate(edge_index, x=kept["x"]) * kept["scale"]
        for part in (x, out):
            x = x * 2
            out = out + part
        return out + x + kept["x"]


class Spread(MessagePassing):
    """Keyword arguments are gathered, passed on and spread again."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        options = dict(x=x, gain=2.0)  # noqa: C408
        return self.go(edge_index, shift=x.mean(), **{**options, "gain": 3.0})

    def go(self, edge_index, **extra):
        shift = extra["shift"] * 2
        named = {k: v for k, v in extra.items() if k != "shift"}
        return self.propagate(edge_index, **named) + shift + extra.get("nothing", 1.0)

    def message(self, x_j: Tensor, gain: float) -> Tensor:
        return gain * x_j


class Parameters(Base):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({k: torch.eye(IN) * i for i, k in enumerate("ab", 1)})
        self.scales = nn.ParameterList([torch.ones(IN) * i for i in (2, 3)])
        self.first = "a"

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.run(x @ self.weights[self.first], edge_index)
        for name, weight in self.weights.items():
            out = out + x @ weight * (2.0 if name == "b" else 1.0)
        for scale in self.scales:
            out = out * scale
        return out


class WhileOverNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depth = 3
        for i in range(self.depth):
            setattr(self, f"conv{i}", GCNConv(IN, IN))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        i = 0
        while i < self.depth:
            x = getattr(self, "conv%d" % i)(x, edge_index).relu()  # noqa: UP031
            i += 1
        return x


class Lambdas(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        steps = [lambda t, i=i: t * i for i in (1, 2, 3)]
        for step in steps:
            x = x + step(x)
        return self.run(x, edge_index)


class Norms(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        length = x.norm(dim=-1, keepdim=True) + x.norm() + torch.linalg.norm(x, dim=-1)[:, None]
        return self.run(x / (1 + length + torch.linalg.vector_norm(x)), edge_index)


class NoDropout(Base):
    """Dropout that does nothing draws no random numbers, in TorchScript as in eager."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.dropout(x, p=0.0, training=self.training)
        return F.dropout(self.run(x, edge_index), p=0.5, training=self.training)


class ReturnsDict(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found = self.noise(x)
        return self.propagate(edge_index, **self.arguments(found["a"] - found["b"] + x))

    def noise(self, x: Tensor) -> Dict[str, Tensor]:
        noise = torch.rand_like(x)
        return {"a": noise, "b": noise}

    def arguments(self, x: Tensor) -> Dict[str, Tensor]:
        return {"x": x}


class DictToHook(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, terms={"shift": x.mean(), "gain": x.sum()})

    def message(self, x_j: Tensor, terms: Dict[str, Tensor]) -> Tensor:
        return x_j * terms["gain"] + terms["shift"]


class Swaps(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        parts = [x, x * 2]
        parts[0], parts[1] = parts[1], parts[0]
        named = {"a": x, "b": x * 2}
        named["a"], named["b"] = named["b"], named["a"]
        return self.run(parts[0], edge_index) + parts[1] + 10 * named["a"]


class Chained(Base):
    """The right-hand side is computed once, and both names mean the same tensor."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        a = b = torch.rand_like(x)
        c = d = self.run(x, edge_index)
        d += 1
        repeated = [torch.rand_like(x)] * 2
        return a - b + c + repeated[0] - repeated[1]


class ReadBehindTheLoop(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        total = 0
        for i in range(3):
            out = self.run(x, edge_index)
            x = out + x
            total = total + out * i
        return out * i + total


class NestedLists(Base):
    def __init__(self) -> None:
        super().__init__()
        pairs = [nn.ModuleList([nn.Linear(IN, IN), nn.ReLU()]) for _ in range(2)]
        self.layers = nn.ModuleList(pairs)
        self.skips = nn.ModuleList([nn.Linear(IN, IN) for _ in range(2)])

    def forward(self, x: torch.FloatTensor, edge_index: torch.LongTensor) -> Tensor:
        for (linear, act), skip in zip(self.layers, self.skips, strict=True):
            x = act(linear(x)) + skip(x)
        return self.run(x, edge_index)


CLASSES = [
    Starred,
    WithNone,
    ReturnsDict,
    DictToHook,
    Swaps,
    Chained,
    ReadBehindTheLoop,
    NestedLists,
    DictOfCalls,
    ComputedOnce,
    NotStale,
    Spread,
    Parameters,
    WhileOverNames,
    Lambdas,
    Norms,
    NoDropout,
]


@pytest.mark.parametrize("cls", CLASSES)
def test_runs_as_in_eager(cls, check):
    check(cls(), *[(g.x, g.edge_index) for g in GRAPHS])


class ChangesSet(Base):
    def __init__(self) -> None:
        super().__init__()
        self.seen = {"start"}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.seen.add("again")
        return self.run(x, edge_index)


def test_what_would_go_stale_is_refused():
    model = ChangesSet()
    with pytest.raises(gnnscript.UnsupportedError, match=r"test_collections\.py"):
        torch.jit.script(model)
    assert model.seen == {"start"}


class LocalSparse(Base):
    """A sparse matrix of the model's own, beside convs that are told dense edge indices."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        size = (x.size(0), x.size(0))
        values = torch.ones(edge_index.size(1), dtype=x.dtype)
        adj = torch.sparse_coo_tensor(edge_index, values, size)
        return self.run(x, edge_index) + torch.sparse.mm(adj, x) + adj.to_dense().sum()


def test_sparse_tensors_made_by_the_model():
    model = LocalSparse()
    scripted = torch.jit.script(model)
    with torch.sparse.check_sparse_tensor_invariants():  # torch warns where nobody chose
        for g in GRAPHS:
            out = scripted(g.x, g.edge_index)
            torch.testing.assert_close(out, model(g.x, g.edge_index))


class MissingType(nn.Module):
    """Of its edge types one is given: where that begins is known when it is scripted."""

    def __init__(self):
        super().__init__()
        types = [("a", "to", "b"), ("b", "to", "c")]
        self.conv = HGTConv({"a": IN, "b": IN, "c": IN}, 8, (["a", "b", "c"], types), heads=2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        nodes = {"a": x, "b": x + 1.0, "c": x - 1.0}
        return self.conv(nodes, {("a", "to", "b"): edge_index})["b"]


def test_a_known_dictionary_is_returned_beside_tensors(check):
    check(MissingType())

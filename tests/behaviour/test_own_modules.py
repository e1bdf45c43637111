"""Modules of the user's own that TorchScript would refuse, beside convs of PyG's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch_geometric.nn import GCNConv, GENConv, GINEConv

import gnnscript

pytestmark = pytest.mark.usefixtures("auto")

ACTIVATIONS = {"relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.3)}


class Columns(nn.Module):
    """One embedding for each column of integers, as many as there are."""

    def __init__(self, width: int, name: str = "columns") -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(9, width) for _ in range(3))

    def forward(self, x):
        out = 0
        for i in range(x.shape[1]):
            out += self.embeddings[i](x[:, i])
        return out


class Molecules(nn.Module):
    """The encoders are plain modules; TorchScript does not index a list by a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.bonds = Columns(8), Columns(8)
        self.conv = GINEConv(nn.Linear(8, 4))

    def forward(self, x, edge_index, edge_attr):
        return self.conv(self.atoms(x), edge_index, self.bonds(edge_attr))


class Chosen(nn.Module):
    """A layer, and a head, that arguments choose."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GCNConv(8, 8) for _ in range(3))
        self.heads = nn.ModuleDict({"mean": nn.Linear(8, 2), "max": nn.Linear(8, 2)})

    def forward(self, x, edge_index, layer: int, head: str):
        x = self.convs[layer](x, edge_index).relu() + self.convs[-1](x, edge_index)
        return self.heads[head](x)


class MadeForOneCall(nn.Module):
    """Modules without parameters, made where they are called or kept in a dictionary."""

    def __init__(self, act: str = "leaky") -> None:
        super().__init__()
        self.conv = GCNConv(8, 4)
        self.act = ACTIVATIONS[act]
        self.acts = [nn.Tanh(), torch.sigmoid]
        self.name = act

    def forward(self, x, edge_index):
        x = ACTIVATIONS[self.name](self.conv(x, edge_index))
        for act in self.acts:
            x = act(x)
        target = nn.Softmax(dim=-1)(x)
        loss = nn.KLDivLoss(reduction="batchmean")(F.log_softmax(self.act(x), dim=-1), target)
        return nn.Flatten()(target.view(-1, 2, 2)), loss


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GENConv(8, 8, num_layers=1) for _ in range(2))
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    def step(self, conv, x, edge_index, scale: float = 1.0):
        return conv(x, edge_index).relu() * scale

    def forward(self, x, edge_index):
        for conv in self.convs:
            x = x + checkpoint(self.step, conv, x, edge_index, scale=0.5, use_reentrant=False)
        x = checkpoint(self.convs[0], x, edge_index, use_reentrant=False, preserve_rng_state=True)
        return checkpoint_sequential(self.head, 2, x, use_reentrant=False)


def graphs(*names: str):
    for seed, (nodes, edges) in enumerate(((7, 20), (11, 35))):
        generator = torch.Generator().manual_seed(seed)
        values = {
            "x": torch.randn(nodes, 8, generator=generator),
            "edge_index": torch.randint(nodes, (2, edges), generator=generator),
            "atoms": torch.randint(9, (nodes, 3), generator=generator),
            "bonds": torch.randint(9, (edges, 2), generator=generator),
        }
        yield tuple(values[name] for name in names)


def test_encoders_of_as_many_columns_as_there_are(check) -> None:
    check(Molecules(), *graphs("atoms", "edge_index", "bonds"))


def test_layers_that_arguments_choose(check) -> None:
    (first, second) = graphs("x", "edge_index")
    check(Chosen(), (*first, 1, "max"), (*second, -3, "mean"), (*second, 2, "max"))
    scripted = torch.jit.script(Chosen())
    with pytest.raises(torch.jit.Error, match="no such item"):
        scripted(*first, 3, "max")


class Irreps(tuple):
    """A tuple that does not tell its length, as descriptions of features do not."""

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def dim(self) -> int:
        return sum(mul * (2 * degree + 1) for mul, degree in self)


class Described(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.irreps = Irreps([(2, 0), (2, 1)])
        self.conv = GCNConv(8, self.irreps.dim)

    def forward(self, x, edge_index):
        out = self.conv(x, edge_index).view(-1, self.irreps.dim // 4, 4)
        for mul, degree in self.irreps:
            out = out * (mul + degree)
        return out


@pytest.mark.parametrize("cls", [MadeForOneCall, Checkpointed, Described])
def test_like_eager(cls, check) -> None:
    check(cls(), *graphs("x", "edge_index"))


class Owns(nn.Module):
    def forward(self, x):
        return nn.Linear(8, 8)(x)


class HasOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.owns = GCNConv(8, 4), Owns()

    def forward(self, x, edge_index):
        return self.conv(self.owns(x), edge_index)


def test_modules_with_parameters_are_not_made_by_the_way() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="'Linear' is made while") as caught:
        torch.jit.script(HasOwn())
    assert "test_own_modules.py" in str(caught.value)

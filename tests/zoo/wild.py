"""Habits of published traffic, signed-graph and evolving-graph models, put into small models."""

import math
from typing import List, Optional, Tuple, Union

import torch
import torch.nn as nn
from torch.nn import Parameter
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.utils import degree

from zoo.graphs import on


class GatedCell(nn.Module):
    """A gated cell over a conv: NumPy's names of arguments, and a state that may be missing."""

    def __init__(self, in_channels: int = 8, out_channels: int = 4):
        super().__init__()
        self.out_channels = out_channels
        self.conv = GCNConv(in_channels, out_channels)
        self.gate = nn.Linear(2 * out_channels, out_channels)

    def _state(self, X, H):
        if H is None:
            H = torch.zeros(X.shape[0], self.out_channels).to(X.device)
        return H

    def forward(
        self,
        X: torch.FloatTensor,
        edge_index: torch.LongTensor,
        edge_weight: Optional[torch.FloatTensor] = None,
        H: Optional[torch.FloatTensor] = None,
    ) -> torch.FloatTensor:
        H = self._state(X, H)
        Z = torch.sigmoid(self.gate(torch.cat([self.conv(X, edge_index, edge_weight), H], axis=1)))
        H = Z * H + (1 - Z) * torch.tanh(self.conv(X, edge_index, edge_weight))
        return H / (H.sum(axis=-1, keepdims=True).abs() + H.abs().mean(axis=1, keepdim=True))


class DiffusionWalk(MessagePassing):
    """Chebyshev terms for as many weights as the parameter has rows: its shape is configuration."""

    def __init__(self, steps: int):
        super().__init__(aggr="add")
        self.weight = Parameter(torch.randn(2, steps, 8, 4) / 4)
        self.walks = self.weight.shape[1]

    def forward(self, x: torch.FloatTensor, edge_index: torch.LongTensor):
        row, col = edge_index
        norm = 1.0 / degree(row, x.size(0)).clamp(min=1)[row]
        first_x = x
        out = first_x @ self.weight[0][0] + first_x @ self.weight[1][0]
        if self.weight.size(1) > 1:
            second_x = self.propagate(edge_index, x=x, norm=norm)
            out = out + second_x @ self.weight[0][1]
        for k in range(2, self.weight.size(1)):
            last_x = 2 * self.propagate(edge_index, x=second_x, norm=norm) - first_x
            out = out + last_x @ self.weight[0, k] * self.weight.dim()
            first_x, second_x = second_x, last_x
        return out

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class Evolving(nn.Module):
    """The weight of the conv is the state of a recurrent layer, kept from call to call."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.initial = Parameter(torch.randn(1, channels, channels) / channels)
        self.weight = None
        self.evolve = nn.GRU(channels, channels)
        self.read = nn.LSTM(channels, 4)
        self.conv = GCNConv(channels, channels)

    def forward(self, x: torch.FloatTensor, edge_index: torch.LongTensor):
        if self.weight is None:
            self.weight = self.initial.data
        _, self.weight = self.evolve(self.weight, self.weight)
        x = self.conv(x @ self.weight.squeeze(0), edge_index)
        out, (h, _) = self.read(x.unsqueeze(0))
        return out.squeeze(0) + h[0]


class TwoSides(nn.Module):
    """Optional features of the targets, used where the configuration says that they are given."""

    def __init__(self, directed: bool):
        super().__init__()
        self._directed = directed
        self._hops = Parameter(torch.ones(3, 1))
        self.conv = GCNConv(8, 8)

    def forward(
        self,
        edge_indices: Union[torch.LongTensor, List[torch.LongTensor]],
        x: torch.FloatTensor,
        pair: Tuple[torch.FloatTensor, torch.FloatTensor],
        x_t: Optional[torch.FloatTensor] = None,
    ):
        feat = self._hops[0] * x + pair[0].sum() * pair[1].mean()
        curr = x.clone()
        if self._directed:
            curr = x_t.clone()
            feat = torch.zeros_like(x_t) + self._hops[1] * x_t
        for h in range(1, self._hops.shape[0]):
            curr = self.conv(curr, edge_indices)
            feat += self._hops[h] * curr
        return feat


class Magnetic(MessagePassing):
    """Directed edges as phases: complex constants, real and imaginary parts as messages."""

    def __init__(self, q: float = 0.25):
        super().__init__(aggr="add")
        self.q = q
        self.lin = nn.Linear(8, 4)

    def forward(self, x, edge_index, edge_weight):
        phase = torch.exp(1j * 2 * math.pi * self.q * edge_weight) * (0.5 - 0.25j)
        real = self.propagate(edge_index, x=self.lin(x), norm=phase.real)
        return torch.cat([real, self.propagate(edge_index, x=self.lin(x), norm=phase.imag)], -1)

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class ComplexWaves(MessagePassing):
    """A magnetic Laplacian: complex weights of edges, and messages that are complex themselves."""

    def __init__(self, q: float = 0.25):
        super().__init__(aggr="add")
        self.q = nn.Parameter(torch.tensor(q))
        self.last = None
        self.lin = nn.Linear(8, 4)

    def forward(self, x, edge_index, edge_weight):
        self.last = self.q.detach().item()
        angle = 2 * math.pi * self.q * edge_weight
        norm = torch.complex(angle.cos(), angle.sin())
        real = self.propagate(edge_index, x=self.lin(x), norm=edge_weight)
        wave = self.propagate(edge_index, x=self.lin(x), norm=norm)
        wave = self.propagate(edge_index, x=wave, norm=norm) * self.last
        return torch.cat([real, wave.real, wave.imag], -1)

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class Attraction(MessagePassing):
    """Forces by the gradient of an energy, of positions whose ``requires_grad`` is assigned."""

    def __init__(self):
        super().__init__(aggr="add")
        self.lin = nn.Linear(8, 4)

    def forward(self, x, pos, edge_index):
        with torch.enable_grad():
            pos = pos.detach()
            pos.requires_grad = True
            energy = self.propagate(edge_index, x=self.lin(x), pos=pos).tanh().sum()
            grad = torch.autograd.grad([energy], [pos], create_graph=True)[0]
        assert grad is not None
        return energy, -grad

    def message(self, x_j, pos_i, pos_j):
        return x_j.sigmoid() / (1 + (pos_i - pos_j).pow(2).sum(-1, keepdim=True))


class Masked(MessagePassing):
    """Masks made of bools, flags and comparisons, which pick edges and nodes."""

    directed = True

    def __init__(self):
        super().__init__(aggr="mean")
        self.lin = nn.Linear(8, 4)

    def forward(self, x, edge_index):
        kept = torch.full((edge_index.size(1),), True)
        kept[edge_index[0] > edge_index[1]] = False
        degrees = degree(edge_index[0], x.size(0))
        central = degrees >= degrees.median()
        chosen = kept & (central[edge_index[0]] | (not self.directed))
        first = torch.zeros(x.size(0), dtype=bool)
        first[: x.size(0) // 2] = True
        h = self.propagate(edge_index[:, chosen & self.directed], x=self.lin(x))
        weight = 1 if chosen.sum().item() > 12 else 0.5
        return h[first] * weight, torch.where(first, True, central), chosen.sum().item()

    def message(self, x_j):
        return x_j


class Encoded(nn.Module):
    """Scales and positions by powers of integers; a generator gives the layers and their scales."""

    def __init__(self):
        super().__init__()
        self.near, self.far = GCNConv(8, 8), GCNConv(8, 8)

    def stages(self, count):
        for level in range(count):
            yield 2**level, self.near if level % 2 == 0 else self.far

    def forward(self, x, edge_index):
        position = torch.arange(x.size(0)).unsqueeze(1)
        frequency = 10000 ** (-torch.arange(0, 8, 2) / 8)
        code = torch.zeros(x.size(0), 8)
        code[:, 0::2], code[:, 1::2] = (position * frequency).sin(), (position * frequency).cos()
        x = x + code
        outs = []
        for scale, conv in self.stages(3):
            x = conv(x, edge_index).relu()
            outs.append(x / scale)
        return torch.cat(outs, -1), torch.ones(x.size(0) ** 2).sum()


class Converging(nn.Module):
    """Layers until nothing changes much, one of two readouts, and what was on the way."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(8, 8, bias=False) for _ in range(5)])
        self.mean, self.gated = nn.Linear(8, 2), nn.Sequential(nn.Linear(8, 2), nn.Sigmoid())

    def forward(self, x, edge_index):
        norms = []
        for number, conv in enumerate(self.convs):
            new = conv(x, edge_index)
            norms.append(new.norm())
            if new.norm() < 0.05 * x.norm():
                return self.mean(x), torch.stack(norms)
            if number > 1 and (new - x).abs().max() < 0.4:
                break
            x = 0.5 * (x + new)
        readout = self.mean if x.size(0) > 8 else self.gated
        return readout(x), torch.stack(norms)


XE = on("x", "edge_index")
MODELS = {
    "masked": (Masked, XE),
    "encoded": (Encoded, XE),
    "converging": (Converging, XE),
    # TorchScript has wrong gradients of complex numbers, or none.
    "complex-waves": (ComplexWaves, on("x", "edge_index", "edge_weight"), {"gradients": False}),
    "magnetic": (Magnetic, on("x", "edge_index", "edge_weight"), {"gradients": False}),
    "gated-cell": (GatedCell, on("x", "edge_index")),
    "gated-cell-weighted": (GatedCell, on("x", "edge_index", "edge_weight")),
    "attraction": (Attraction, on("x", "pos", "edge_index")),
    "diffusion-1": (lambda: DiffusionWalk(1), on("x", "edge_index")),
    "diffusion-4": (lambda: DiffusionWalk(4), on("x", "edge_index")),
    "two-sides": (
        lambda: TwoSides(True),
        tuple((e, x, (x, w), x - 1) for e, x, w in on("edge_index", "x", "edge_weight")),
    ),
    "one-side": (
        lambda: TwoSides(False),
        tuple((e, x, (x, w)) for e, x, w in on("edge_index", "x", "edge_weight")),
    ),
    "evolving": (Evolving, on("x", "edge_index"), {"modes": ("eval",), "gradients": False}),
}

"""Particles, materials and simulators: dynamic graphs, condensation, encode-process-decode."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import (
    EdgeConv,
    MessagePassing,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
    knn_graph,
    radius_graph,
)
from torch_geometric.utils import scatter, softmax, to_undirected

from zoo.graphs import GRAPHS, on


def build_mlp(sizes, act=nn.ReLU, norm=False, last_act=False):
    layers = []
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:])):
        layers.append(nn.Linear(a, b))
        if i < len(sizes) - 2 or last_act:
            layers.append(act())
    if norm:
        layers.append(nn.LayerNorm(sizes[-1]))
    return nn.Sequential(*layers)


class EdgeConvBlock(MessagePassing):
    """One block of ParticleNet: neighbours in the space of the features, three layers, a shortcut."""

    def __init__(self, in_feat, out_feats, k=4, aggr="mean"):
        super().__init__(aggr=aggr)
        self.k = k
        self.fcs, self.bns = nn.ModuleList(), nn.ModuleList()
        sizes = [2 * in_feat, *out_feats]
        for i in range(len(out_feats)):
            self.fcs.append(nn.Linear(sizes[i], sizes[i + 1], bias=False))
            self.bns.append(nn.BatchNorm1d(sizes[i + 1]))
        self.num_layers = len(out_feats)
        self.sc = (
            None if in_feat == out_feats[-1] else nn.Linear(in_feat, out_feats[-1], bias=False)
        )
        if self.sc is not None:
            self.sc_bn = nn.BatchNorm1d(out_feats[-1])

    def forward(self, pts, x, batch=None):
        edge_index = knn_graph(pts, self.k, batch, loop=False, flow=self.flow)
        fts = self.propagate(edge_index, x=x)
        sc = x if self.sc is None else self.sc_bn(self.sc(x))
        return F.relu(sc + fts)

    def message(self, x_i, x_j):
        h = torch.cat((x_i, x_j - x_i), dim=1)
        for fc, bn in zip(self.fcs, self.bns):
            h = F.relu(bn(fc(h)))
        return h


class ParticleNet(nn.Module):
    def __init__(self, conv_params=((3, (8, 8)), (4, (12,)))):
        super().__init__()
        self.bn_fts = nn.BatchNorm1d(8)
        self.convs, c = nn.ModuleList(), 8
        for k, channels in conv_params:
            self.convs.append(EdgeConvBlock(c, channels, k))
            c = channels[-1]
        self.fc = nn.Sequential(nn.Linear(c, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 2))

    def forward(self, pos, x, batch):
        fts = self.bn_fts(x)
        pts = pos
        for idx, conv in enumerate(self.convs):
            if idx > 0:
                pts = fts
            fts = conv(pts, fts, batch)
        return self.fc(global_mean_pool(fts, batch)).softmax(-1)


class GravNetBlock(MessagePassing):
    """Distance-weighted neighbours in a learned space, as the calorimeter papers have it."""

    def __init__(self, in_dim, space_dim=3, flr_dim=4, out_dim=8, k=3, potential="exp", scale=10.0):
        super().__init__(flow="target_to_source", aggr=None)
        self.lin_s = nn.Linear(in_dim, space_dim)
        self.lin_h = nn.Linear(in_dim, flr_dim)
        self.lin_out = nn.Linear(in_dim + 2 * flr_dim, out_dim)
        self.k = k
        self.potential = {
            "exp": partial(self._gauss, scale=scale),
            "inv": lambda d: 1.0 / (1.0 + d),
        }[potential]

    @staticmethod
    def _gauss(d, scale):
        return torch.exp(-scale * d)

    def forward(self, x: Tensor, batch: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        s, h = self.lin_s(x), self.lin_h(x)
        edge_index = knn_graph(s, self.k, batch, loop=True, flow=self.flow)
        d2 = (s[edge_index[0]] - s[edge_index[1]]).pow(2).sum(-1)
        out = self.propagate(
            edge_index, h=h, weight=self.potential(d2), size=(x.size(0), x.size(0))
        )
        return self.lin_out(torch.cat([x, out], -1)), s

    def message(self, h_j: Tensor, weight: Tensor) -> Tensor:
        return h_j * weight.unsqueeze(1)

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: Optional[int] = None) -> Tensor:
        m = scatter(inputs, index, dim=self.node_dim, dim_size=dim_size, reduce="mean")
        M = scatter(inputs, index, dim=self.node_dim, dim_size=dim_size, reduce="max")
        return torch.cat([m, M], dim=-1)


class CondensationOutput(NamedTuple):
    beta: Tensor
    coords: Tensor
    properties: Dict[str, Tensor]


class ObjectCondensation(nn.Module):
    """GravNet blocks and the heads of object condensation, with the potential as its loss."""

    def __init__(self, heads=(("energy", 1), ("position", 2)), q_min: float = 0.1):
        super().__init__()
        self.blocks = nn.ModuleList(
            [GravNetBlock(8), GravNetBlock(8, potential="inv"), GravNetBlock(8, k=2)]
        )
        self.post = build_mlp([24, 8, 8], nn.ELU)
        self.beta = nn.Linear(8, 1)
        self.coords = nn.Linear(8, 2, bias=False)
        self.heads = nn.ModuleDict({name: nn.Linear(8, n) for name, n in heads})
        self.q_min = q_min

    def forward(self, x, batch, z):
        feats = []
        for block in self.blocks:
            x, _ = block(x, batch)
            x = torch.tanh(x)
            feats.append(x)
        h = self.post(torch.cat(feats, dim=1))
        out = CondensationOutput(
            torch.sigmoid(self.beta(h)).squeeze(-1),
            self.coords(h),
            {name: head(h) for name, head in self.heads.items()},
        )
        return out.beta, out.coords, out.properties, self.potential(out, z)

    def potential(self, out: CondensationOutput, label: Tensor) -> Tensor:
        q = torch.atanh(out.beta.clamp(max=1 - 1e-4)) ** 2 + self.q_min
        centre = torch.zeros_like(out.coords)
        total = out.beta.new_zeros(())
        for k in label.unique(sorted=True):
            mask = label == k
            alpha = int(q[mask].argmax())
            centre = out.coords[mask][alpha]
            dist = (out.coords - centre).norm(dim=-1)
            v = torch.where(mask, dist**2, (1 - dist).clamp_min(0.0))
            total = total + (v * q).mean() * q[mask][alpha]
        return total


class GarNet(nn.Module):
    """Aggregators instead of edges: all vertices to S points and back."""

    def __init__(self, n_in=8, n_s=4, n_flr=5, n_out=6):
        super().__init__()
        self.s, self.flr = nn.Linear(n_in, n_s), nn.Linear(n_in, n_flr)
        self.out = nn.Linear(n_in + 2 * n_s * n_flr + n_s, n_out)

    def forward(self, x, batch):
        size = int(batch.max()) + 1
        d = self.s(x)
        w = torch.exp(-(d**2))
        f = (w.unsqueeze(-1) * self.flr(x).unsqueeze(1)).flatten(1)
        pooled = torch.cat(
            [op(f, batch, size=size) for op in (global_mean_pool, global_max_pool)], dim=-1
        )
        back = pooled[batch].view(x.size(0), 2, w.size(1), -1) * w[:, None, :, None]
        return torch.tanh(self.out(torch.cat([x, back.flatten(1), w], dim=-1)))


class DynamicReduction(nn.Module):
    """Neighbours, EdgeConv, and a pooling that keeps the better node of each edge."""

    latent = 6

    def __init__(self, k=3):
        super().__init__()
        self.k = k
        self.datanorm = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.inputnet = build_mlp([8, self.latent], nn.ELU, last_act=True)
        for i in (1, 2):
            mlp = build_mlp([2 * self.latent, self.latent], nn.ELU, last_act=True)
            setattr(self, f"edgeconv{i}", EdgeConv(nn=mlp, aggr="add"))
        self.output = build_mlp([self.latent, 4, 1], nn.ELU)

    def forward(self, x, batch):
        x = self.inputnet(self.datanorm * x)
        for i in (1, 2):
            edge_index = to_undirected(
                knn_graph(x, self.k, batch, loop=False, flow="source_to_target")
            )
            x = getattr(self, f"edgeconv{i}")(x, edge_index)
            score = x.norm(dim=-1)
            best = scatter(score[edge_index[0]], edge_index[1], 0, x.size(0), reduce="max")
            keep = score >= best.median()
            x, batch = x[keep], batch[keep]
        return self.output(global_max_pool(x, batch, 2)).squeeze(-1)


class InteractionNetwork(MessagePassing):
    """Relations and objects, each with a model of its own; the message is kept for the edges."""

    def __init__(self, node_dim=3, edge_dim=3, hidden=8, flow="source_to_target"):
        super(InteractionNetwork, self).__init__(aggr="add", flow=flow)
        self.R1 = RelationalModel(2 * node_dim + edge_dim, edge_dim, hidden)
        self.O = RelationalModel(node_dim + edge_dim, node_dim, hidden)
        self.E: Tensor = Tensor()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tuple[Tensor, Tensor]:
        x_tilde = self.propagate(edge_index, x=x, edge_attr=edge_attr, size=None)
        return x_tilde, self.E

    def message(self, x_i, x_j, edge_attr):
        # x_i --> incoming, x_j --> outgoing
        m1 = torch.cat([x_i, x_j, edge_attr], dim=1)
        self.E = self.R1(m1)
        return self.E

    def update(self, aggr_out, x):
        c = torch.cat([x, aggr_out], dim=1)
        return self.O(c)


class RelationalModel(nn.Module):
    def __init__(self, input_size, output_size, hidden_size):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, output_size),
        )

    def forward(self, m):
        return self.layers(m)


class TrackClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_w1, self.in_w2 = InteractionNetwork(), InteractionNetwork(hidden=4)
        self.W = RelationalModel(9, 1, 8)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        x1, e1 = self.in_w1(x, edge_index, edge_attr)
        x2, e2 = self.in_w2(x1, edge_index, e1)
        m2 = torch.cat([x2[edge_index[1]], x2[edge_index[0]], e2], dim=1)
        return torch.sigmoid(self.W(m2))


@dataclass
class SimulatorConfig:
    """What a simulator is made of."""

    latent: int = 6
    steps: int = 3
    radius: float = 1.2
    history: int = 2
    bounds: Tuple[float, float] = (-2.0, 2.0)
    stats: Dict[str, float] = field(default_factory=lambda: {"mean": 0.1, "std": 0.7})


class ProcessorBlock(MessagePassing):
    def __init__(self, dim):
        super().__init__(aggr="add")
        self.edge_fn = build_mlp([3 * dim, dim, dim], norm=True)
        self.node_fn = build_mlp([2 * dim, dim, dim], norm=True)

    def forward(self, x, edge_index, e):
        x_res, e_res = x, e
        x, e = self.propagate(edge_index=edge_index, x=x, e=e)
        return x + x_res, e + e_res

    def message(self, x_i, x_j, e):
        return self.edge_fn(torch.cat([x_i, x_j, e], dim=-1))

    def update(self, x_updated, x, e):
        return self.node_fn(torch.cat([x_updated, x], dim=-1)), e


class LearnedSimulator(nn.Module):
    """Encode, process, decode; positions are integrated from accelerations."""

    def __init__(self, cfg: SimulatorConfig = SimulatorConfig()):  # noqa: B008
        super().__init__()
        self.cfg = cfg
        self.type_embedding = nn.Embedding(9, 4)
        self.node_enc = build_mlp([4 + 3 * cfg.history + 6, cfg.latent, cfg.latent], norm=True)
        self.edge_enc = build_mlp([4, cfg.latent, cfg.latent], norm=True)
        self.processor = nn.ModuleList([ProcessorBlock(cfg.latent) for _ in range(cfg.steps)])
        self.decoder = build_mlp([cfg.latent, cfg.latent, 3])

    def _features(self, history, z, batch):
        recent = history[:, -1]
        velocities = (history[:, 1:] - history[:, :-1] - self.cfg.stats["mean"]) / self.cfg.stats[
            "std"
        ]
        low, high = self.cfg.bounds
        walls = torch.cat([recent - low, high - recent], dim=-1).clamp(-1.0, 1.0)
        edge_index = radius_graph(recent, r=self.cfg.radius, batch=batch, loop=True)
        row, col = edge_index
        disp = (recent[row] - recent[col]) / self.cfg.radius
        dist = disp.norm(dim=-1, keepdim=True)
        x = torch.cat([velocities.flatten(1), walls, self.type_embedding(z)], dim=-1)
        return x, edge_index, torch.cat([disp, dist], dim=-1)

    def forward(self, pos, z, batch):
        steps = torch.arange(self.cfg.history + 1, dtype=pos.dtype)
        history = pos.unsqueeze(1) * (1 + 0.1 * steps.view(1, -1, 1))
        x, edge_index, e = self._features(history, z, batch)
        x, e = self.node_enc(x), self.edge_enc(e)
        for block in self.processor:
            x, e = block(x, edge_index, e)
        acc = self.decoder(x) * self.cfg.stats["std"] + self.cfg.stats["mean"]
        new_velocity = history[:, -1] - history[:, -2] + acc
        return history[:, -1] + new_velocity


class CGConvBlock(MessagePassing):
    """Crystal graphs: a filter and a core of one linear layer, split."""

    def __init__(self, atom_fea_len, nbr_fea_len):
        super().__init__(aggr="add")
        self.atom_fea_len = atom_fea_len
        self.fc_full = nn.Linear(2 * atom_fea_len + nbr_fea_len, 2 * atom_fea_len)
        self.bn1, self.bn2 = nn.BatchNorm1d(2 * atom_fea_len), nn.BatchNorm1d(atom_fea_len)

    def forward(self, atom_fea, edge_index, nbr_fea):
        nbr_summed = self.bn2(self.propagate(edge_index, x=atom_fea, nbr=nbr_fea))
        return F.softplus(atom_fea + nbr_summed)

    def message(self, x_i, x_j, nbr):
        total = self.bn1(self.fc_full(torch.cat([x_i, x_j, nbr], dim=1)))
        nbr_filter, nbr_core = total.chunk(2, dim=1)
        return torch.sigmoid(nbr_filter) * F.softplus(nbr_core)


class CrystalGraph(nn.Module):
    def __init__(self, n_conv=2, n_h=2, dmin=0.0, dmax=3.0, step=0.5):
        super().__init__()
        self.register_buffer("filter", torch.arange(dmin, dmax + step, step), persistent=False)
        self.var = step
        self.embedding = nn.Embedding(9, 6)
        self.convs = nn.ModuleList([CGConvBlock(6, self.filter.numel()) for _ in range(n_conv)])
        self.conv_to_fc = nn.Linear(6, 8)
        if n_h > 1:
            self.fcs = nn.ModuleList([nn.Linear(8, 8) for _ in range(n_h - 1)])
        self.fc_out = nn.Linear(8, 1)

    def forward(self, z, pos, edge_index, batch):
        dist = (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=-1)
        nbr = torch.exp(-((dist.unsqueeze(1) - self.filter) ** 2) / self.var**2)
        x = self.embedding(z)
        for conv_func in self.convs:
            x = conv_func(x, edge_index, nbr)
        crys = F.softplus(self.conv_to_fc(F.softplus(global_mean_pool(x, batch))))
        if hasattr(self, "fcs"):
            for fc in self.fcs:
                crys = F.softplus(fc(crys))
        return self.fc_out(crys)


class GRUMessagePassing(MessagePassing):
    """A network on the edge features makes each message's matrix; a GRU takes the sums."""

    def __init__(self, dim=6, edge_dim=3, steps=3):
        super().__init__(aggr="mean")
        self.dim, self.steps = dim, steps
        self.edge_network = build_mlp([edge_dim, 8, dim * dim])
        self.gru = nn.GRU(dim, dim)
        self.embed = nn.Linear(8, dim)
        self.gate, self.value = nn.Linear(2 * dim, 1), nn.Linear(dim, 4)

    def forward(self, x, edge_index, edge_attr, batch):
        out = start = F.relu(self.embed(x))
        h = out.unsqueeze(0)
        weight = self.edge_network(edge_attr).view(-1, self.dim, self.dim)
        for _ in range(self.steps):
            m = F.relu(self.propagate(edge_index, x=out, weight=weight))
            out, h = self.gru(m.unsqueeze(0), h)
            out = out.squeeze(0)
        gate = softmax(self.gate(torch.cat([out, start], -1)), batch)
        return global_add_pool(gate * torch.tanh(self.value(out)), batch)

    def message(self, x_j, weight):
        return torch.bmm(x_j.unsqueeze(1), weight).squeeze(1)


class MeshEdgeBlock(MessagePassing):
    """Simulation on meshes: two sets of edges, in mesh and in world space, share the nodes."""

    KINDS = ("mesh", "world")

    def __init__(self, dim=6):
        super().__init__(aggr="sum")
        self.edge_fns = nn.ModuleDict(
            {kind: build_mlp([3 * dim, dim], norm=True) for kind in self.KINDS}
        )
        self.node_fn = build_mlp([dim * (1 + len(self.KINDS)), dim], norm=True)

    def forward(self, x, edge_index: Dict[str, Tensor], edge_attr: Dict[str, Tensor]):
        new: Dict[str, Tensor] = {}
        gathered = [x]
        for kind in self.KINDS:
            e = self.edge_updater(edge_index[kind], x=x, e=edge_attr[kind], kind=kind)
            gathered.append(self.propagate(edge_index[kind], e=e, size=(x.size(0), x.size(0))))
            new[kind] = edge_attr[kind] + e
        return x + self.node_fn(torch.cat(gathered, dim=-1)), new

    def edge_update(self, x_i, x_j, e, kind: str):
        return self.edge_fns[kind](torch.cat([x_i, x_j, e], dim=-1))

    def message(self, e):
        return e


class MeshSimulator(nn.Module):
    def __init__(self, dim=6):
        super().__init__()
        self.enc = nn.Linear(8, dim)
        self.edge_enc = nn.ModuleDict({kind: nn.Linear(4, dim) for kind in MeshEdgeBlock.KINDS})
        self.blocks = nn.ModuleList([MeshEdgeBlock(dim) for _ in range(2)])
        self.dec = nn.Linear(dim, 3)

    def forward(self, x, pos, edge_index, edge_attr, batch):
        world = radius_graph(pos, 1.0, batch, max_num_neighbors=3)
        index = {"mesh": edge_index, "world": world}
        attr = {}
        for kind, (row, col) in index.items():
            rel = pos[row] - pos[col]
            attr[kind] = self.edge_enc[kind](torch.cat([rel, rel.norm(dim=1, keepdim=True)], 1))
        h = self.enc(x)
        for block in self.blocks:
            h, attr = block(h, index, attr)
        return self.dec(h), attr["world"].sum(), attr["mesh"]


class PointTransformerLike(MessagePassing):
    """Vector attention over nearest neighbours, with a learned encoding of positions."""

    def __init__(self, dim=6, k=3, share=2):
        super().__init__(aggr="add")
        self.k, self.share = k, share
        self.qkv = nn.Linear(8, 3 * dim)
        self.delta = build_mlp([3, dim, dim])
        self.gamma = build_mlp([dim, dim, dim // share])

    def forward(self, x, pos, batch):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        edge_index = knn_graph(pos, self.k, batch=batch, loop=True)
        return self.propagate(edge_index, q=q, k=k, v=v, pos=pos, size=None)

    def message(self, q_i, k_j, v_j, pos_i, pos_j, index, ptr, size_i):
        delta = self.delta(pos_i - pos_j)
        alpha = self.gamma(q_i - k_j + delta)
        alpha = softmax(alpha / math.sqrt(alpha.size(-1)), index, ptr, size_i)
        v = (v_j + delta).view(alpha.size(0), self.share, -1)
        return (v * alpha.unsqueeze(1)).reshape(alpha.size(0), -1)


POINTS = on("x", "batch")
MODELS = {
    "particle-net": (ParticleNet, on("pos", "x", "batch")),
    "grav-net": (lambda: GravNetBlock(8), POINTS),
    "object-condensation": (ObjectCondensation, on("x", "batch", "z")),
    "gar-net": (GarNet, POINTS),
    "dynamic-reduction": (DynamicReduction, POINTS),
    "interaction-network": (TrackClassifier, on("pos", "edge_index", "edge_attr")),
    "learned-simulator": (
        lambda: LearnedSimulator(SimulatorConfig(steps=2)),
        on("pos", "z", "batch"),
    ),
    "crystal-graph": (CrystalGraph, on("z", "pos", "edge_index", "batch")),
    "gru-message-passing": (GRUMessagePassing, on("x", "edge_index", "edge_attr", "batch")),
    "mesh-simulator": (MeshSimulator, on("x", "pos", "edge_index", "edge_attr", "batch")),
    "point-transformer": (PointTransformerLike, on("x", "pos", "batch")),
}

"""Networks over positions: equivariant, continuous-filter, directional."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn import Linear, ModuleList, Sequential, SiLU
from torch_geometric.nn import MessagePassing, global_add_pool
from torch_geometric.utils import scatter, softmax

from zoo.graphs import on


class E_GCL(MessagePassing):
    """EGNN layer that returns features and coordinates."""

    def __init__(
        self,
        dim,
        edge_dim=0,
        hidden=16,
        act_fn=nn.SiLU(),
        residual=True,
        attention=False,
        normalize=False,
        coords_agg="mean",
        tanh=False,
    ):
        super(E_GCL, self).__init__(aggr=None)
        self.residual = residual
        self.attention = attention
        self.normalize = normalize
        self.coords_agg = coords_agg
        self.tanh = tanh
        self.epsilon = 1e-8
        self.edge_mlp = nn.Sequential(
            nn.Linear(2 * dim + 1 + edge_dim, hidden), act_fn, nn.Linear(hidden, hidden), act_fn
        )
        self.node_mlp = nn.Sequential(
            nn.Linear(hidden + dim, hidden), act_fn, nn.Linear(hidden, dim)
        )
        layer = nn.Linear(hidden, 1, bias=False)
        torch.nn.init.xavier_uniform_(layer.weight, gain=0.001)
        coord_mlp = [nn.Linear(hidden, hidden), act_fn, layer]
        if self.tanh:
            coord_mlp.append(nn.Tanh())
        self.coord_mlp = nn.Sequential(*coord_mlp)
        if self.attention:
            self.att_mlp = nn.Sequential(nn.Linear(hidden, 1), nn.Sigmoid())

    def edge_model(self, source, target, radial, edge_attr):
        if edge_attr is None:
            out = torch.cat([source, target, radial], dim=1)
        else:
            out = torch.cat([source, target, radial, edge_attr], dim=1)
        out = self.edge_mlp(out)
        if self.attention:
            att_val = self.att_mlp(out)
            out = out * att_val
        return out

    def coord2radial(self, pos_i, pos_j):
        coord_diff = pos_i - pos_j
        radial = torch.sum(coord_diff**2, 1).unsqueeze(1)
        if self.normalize:
            norm = torch.sqrt(radial).detach() + self.epsilon
            coord_diff = coord_diff / norm
        return radial, coord_diff

    def forward(self, h, coord, edge_index, edge_attr=None):
        h, coord = self.propagate(edge_index, h=h, pos=coord, edge_attr=edge_attr)
        return h, coord, edge_attr

    def message(self, h_i, h_j, pos_i, pos_j, edge_attr):
        radial, coord_diff = self.coord2radial(pos_i, pos_j)
        m = self.edge_model(h_i, h_j, radial, edge_attr)
        trans = coord_diff * self.coord_mlp(m)
        return m, trans

    def aggregate(self, inputs, index, dim_size):
        m, trans = inputs
        agg = scatter(trans, index, dim=0, dim_size=dim_size, reduce=self.coords_agg)
        return scatter(m, index, 0, dim_size, "sum"), agg

    def update(self, aggr_out, h, pos):
        m, agg = aggr_out
        out = self.node_mlp(torch.cat([h, m], dim=1))
        if self.residual:
            out = h + out
        return out, pos + agg


class EGNN(nn.Module):
    def __init__(self, in_node_nf=8, hidden_nf=12, out_node_nf=4, in_edge_nf=3, n_layers=3, **kw):
        super().__init__()
        self.hidden_nf = hidden_nf
        self.n_layers = n_layers
        self.embedding_in = nn.Linear(in_node_nf, self.hidden_nf)
        self.embedding_out = nn.Linear(self.hidden_nf, out_node_nf)
        for i in range(0, n_layers):
            self.add_module("gcl_%d" % i, E_GCL(self.hidden_nf, in_edge_nf, **kw))

    def forward(self, h, x, edges, edge_attr):
        h = self.embedding_in(h)
        for i in range(0, self.n_layers):
            h, x, _ = self._modules["gcl_%d" % i](h, x, edges, edge_attr=edge_attr)
        h = self.embedding_out(h)
        return h, x


class GaussianSmearing(torch.nn.Module):
    def __init__(self, start=0.0, stop=5.0, num_gaussians=10):
        super().__init__()
        offset = torch.linspace(start, stop, num_gaussians)
        self.coeff = -0.5 / (offset[1] - offset[0]).item() ** 2
        self.register_buffer("offset", offset)

    def forward(self, dist):
        dist = dist.view(-1, 1) - self.offset.view(1, -1)
        return torch.exp(self.coeff * torch.pow(dist, 2))


class ShiftedSoftplus(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.log(torch.tensor(2.0)).item()

    def forward(self, x):
        return F.softplus(x) - self.shift


class CFConv(MessagePassing):
    def __init__(self, hidden, filters, net, cutoff):
        super().__init__(aggr="add")
        self.lin1 = Linear(hidden, filters, bias=False)
        self.lin2 = Linear(filters, hidden)
        self.nn = net
        self.cutoff = cutoff

    def forward(self, x, edge_index, edge_weight, edge_attr):
        C = 0.5 * (torch.cos(edge_weight * math.pi / self.cutoff) + 1.0)
        W = self.nn(edge_attr) * C.view(-1, 1)
        x = self.lin1(x)
        x = self.propagate(edge_index, x=x, W=W)
        return self.lin2(x)

    def message(self, x_j, W):
        return x_j * W


class SchNetForces(torch.nn.Module):
    """Energies by continuous filters, forces by differentiation inside of forward."""

    def __init__(self, hidden=8, filters=6, blocks=2, cutoff=5.0):
        super().__init__()
        self.cutoff = cutoff
        self.embedding = nn.Embedding(10, hidden, padding_idx=0)
        self.distance_expansion = GaussianSmearing(0.0, cutoff, 10)
        self.interactions = ModuleList()
        for _ in range(blocks):
            net = Sequential(Linear(10, filters), ShiftedSoftplus(), Linear(filters, filters))
            self.interactions.append(CFConv(hidden, filters, net, cutoff))
        self.act = ShiftedSoftplus()
        self.lin = Linear(hidden, 1)

    def energy(self, z, pos, batch, edge_index):
        row, col = edge_index
        edge_weight = (pos[row] - pos[col]).norm(dim=-1)
        edge_attr = self.distance_expansion(edge_weight)
        h = self.embedding(z)
        for interaction in self.interactions:
            h = h + self.act(interaction(h, edge_index, edge_weight, edge_attr))
        return scatter(self.lin(h), batch, dim=0, reduce="sum")

    def forward(self, z, pos, batch, edge_index):
        with torch.enable_grad():
            pos = pos.detach().requires_grad_(True)
            energy = self.energy(z, pos, batch, edge_index)
            forces = -torch.autograd.grad(energy.sum(), pos, create_graph=True)[0]
        return energy, forces


class PaiNNMessage(MessagePassing):
    """Scalars [N, F] and vectors [N, F, 3] together."""

    def __init__(self, hidden, num_rbf=5):
        super().__init__(aggr="add", node_dim=0)
        self.hidden = hidden
        self.phi = Sequential(Linear(hidden, hidden), SiLU(), Linear(hidden, 3 * hidden))
        self.filter = Linear(num_rbf, 3 * hidden)
        self.num_rbf = num_rbf

    def rbf(self, d):
        n = torch.arange(1, self.num_rbf + 1, device=d.device, dtype=d.dtype)
        return torch.sin(n * math.pi * d.unsqueeze(-1) / 5.0) / (d.unsqueeze(-1) + 1e-6)

    def forward(self, s, v, edge_index, edge_vec):
        d = edge_vec.norm(dim=-1)
        u = edge_vec / d.clamp(min=1e-6)[:, None]
        W = self.filter(self.rbf(d))
        ds, dv = self.propagate(edge_index, s=self.phi(s), v=v, W=W, u=u, size=None)
        return s + ds, v + dv

    def message(self, s_j, v_j, W, u):
        x, y, w = torch.split(s_j * W, self.hidden, dim=-1)
        vec = v_j * y.unsqueeze(-1) + u.unsqueeze(1) * w.unsqueeze(-1)
        return x, vec

    def aggregate(self, features, index, ptr, dim_size):
        x, vec = features
        x = scatter(x, index, dim=self.node_dim, dim_size=dim_size)
        vec = scatter(vec, index, dim=self.node_dim, dim_size=dim_size)
        return x, vec

    def update(self, inputs):
        return inputs


class PaiNNUpdate(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.U = Linear(hidden, 2 * hidden, bias=False)
        self.net = Sequential(Linear(2 * hidden, hidden), SiLU(), Linear(hidden, 3 * hidden))
        self.hidden = hidden

    def forward(self, s, v):
        v1, v2 = torch.split(self.U(v.transpose(1, 2)).transpose(1, 2), self.hidden, dim=1)
        n = torch.sqrt(torch.sum(v2**2, dim=-1) + 1e-8)
        a, b, c = torch.split(self.net(torch.cat([s, n], dim=-1)), self.hidden, dim=-1)
        return s + a + b * (v1 * v2).sum(-1), v + c.unsqueeze(-1) * v1


class PaiNN(nn.Module):
    def __init__(self, hidden=6, layers=2):
        super().__init__()
        self.emb = nn.Embedding(10, hidden)
        self.messages = ModuleList([PaiNNMessage(hidden) for _ in range(layers)])
        self.updates = ModuleList([PaiNNUpdate(hidden) for _ in range(layers)])
        self.out = Linear(hidden, 1)

    def forward(self, z, pos, edge_index, batch):
        s = self.emb(z)
        v = s.new_zeros(*s.shape, 3)
        edge_vec = pos[edge_index[1]] - pos[edge_index[0]]
        for message, update in zip(self.messages, self.updates):
            s, v = message(s, v, edge_index, edge_vec)
            s, v = update(s, v)
        return global_add_pool(self.out(s), batch), v


def triplets(edge_index, num_nodes: int):
    """Pairs of edges k->j->i, without SparseTensor."""
    row, col = edge_index
    num_edges = row.size(0)
    match = row.view(-1, 1) == col.view(1, -1)  # edge j->i against edge k->j
    match = match & (col.view(-1, 1) != row.view(1, -1))
    idx_ji, idx_kj = match.nonzero(as_tuple=True)
    assert num_edges == match.size(0)
    return col[idx_ji], row[idx_ji], row[idx_kj], idx_kj, idx_ji


class DirectionalBlock(MessagePassing):
    """DimeNet-like: messages between edges, weighted by the angle."""

    def __init__(self, hidden, num_spherical=3):
        super().__init__()
        self.lin = nn.Linear(hidden, hidden)
        self.angles = nn.Linear(num_spherical, hidden, bias=False)
        self.num_spherical = num_spherical

    def forward(self, m, angle, idx_kj, idx_ji):
        basis = torch.stack([torch.cos(k * angle) for k in range(self.num_spherical)], dim=-1)
        line_graph = torch.stack([idx_kj, idx_ji], dim=0)
        return m + self.propagate(
            line_graph, m=self.lin(m), sbf=self.angles(basis), size=(m.size(0), m.size(0))
        )

    def message(self, m_j, sbf):
        return F.silu(m_j) * sbf


class DimeNetLike(nn.Module):
    def __init__(self, hidden=6, num_blocks=2):
        super().__init__()
        self.num_blocks = num_blocks
        self.emb = nn.Linear(8 * 2 + 1, hidden)
        for i in range(num_blocks):
            setattr(self, f"block{i}", DirectionalBlock(hidden))
        self.out = nn.Linear(hidden, 2)

    def forward(self, x, pos, edge_index):
        j, i = edge_index
        dist = (pos[i] - pos[j]).pow(2).sum(dim=-1).sqrt()
        idx_i, idx_j, idx_k, idx_kj, idx_ji = triplets(edge_index, num_nodes=x.size(0))
        pos_ji, pos_ki = pos[idx_j] - pos[idx_i], pos[idx_k] - pos[idx_i]
        a = (pos_ji * pos_ki).sum(dim=-1)
        b = torch.cross(pos_ji, pos_ki, dim=1).norm(dim=-1)
        angle = torch.atan2(b, a)
        m = self.emb(torch.cat([x[i], x[j], dist.unsqueeze(-1)], dim=-1)).relu()
        for k in range(self.num_blocks):
            m = getattr(self, "block{}".format(k))(m, angle, idx_kj, idx_ji)
        return scatter(self.out(m), i, dim=0, dim_size=x.size(0), reduce="add")


MODELS = {
    "egnn": (EGNN, on("x", "pos", "edge_index", "edge_attr")),
    "egnn-attention": (
        lambda: EGNN(attention=True, normalize=True, tanh=True, coords_agg="sum"),
        on("x", "pos", "edge_index", "edge_attr"),
    ),
    "schnet-forces": (SchNetForces, on("z", "pos", "batch", "edge_index")),
    "painn": (PaiNN, on("z", "pos", "edge_index", "batch")),
    "dimenet": (DimeNetLike, on("x", "pos", "edge_index")),
}

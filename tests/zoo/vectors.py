"""Networks with vector features: vector neurons, geometric perceptrons, equivariant attention."""

from typing import Optional

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import scatter, softmax

from zoo.graphs import on


class VectorNeuron(MessagePassing):
    """Features [N, C, 3], a linear map over the channels."""

    def __init__(self, cin, cout, negative_slope=0.2):
        super(VectorNeuron, self).__init__(aggr="mean", node_dim=-3)
        self.map_to_feat = nn.Linear(cin * 2, cout, bias=False)
        self.map_to_dir = nn.Linear(cin * 2, 1, bias=False)
        self.negative_slope = negative_slope

    def forward(self, v, edge_index):
        return self.propagate(edge_index, v=v)

    def message(self, v_i, v_j):
        feat = torch.cat((v_j - v_i, v_i), dim=1)
        p = self.map_to_feat(feat.transpose(1, -1)).transpose(1, -1)
        d = self.map_to_dir(feat.transpose(1, -1)).transpose(1, -1)
        dotprod = (p * d).sum(2, keepdim=True)
        mask = (dotprod >= 0).float()
        d_norm_sq = (d * d).sum(2, keepdim=True)
        slope = self.negative_slope
        return slope * p + (1 - slope) * (
            mask * p + (1 - mask) * (p - (dotprod / (d_norm_sq + 1e-6)) * d)
        )


class VectorNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = VectorNeuron(2, 4)

    def forward(self, pos, edge_index):
        v = torch.stack((pos, pos.roll(1, dims=0)), dim=1)
        return self.conv(v, edge_index)


class GVP(nn.Module):
    """A module that maps a tuple to a tuple."""

    def __init__(self, in_dims, out_dims, activations=(F.relu, torch.sigmoid)):
        super().__init__()
        self.si, self.vi = in_dims
        self.so, self.vo = out_dims
        self.h_dim = max(self.vi, self.vo)
        self.wh = nn.Linear(self.vi, self.h_dim, bias=False)
        self.ws = nn.Linear(self.h_dim + self.si, self.so)
        if self.vo:
            self.wv = nn.Linear(self.h_dim, self.vo, bias=False)
        self.scalar_act, self.vector_act = activations

    def forward(self, x):
        s, v = x
        v = torch.transpose(v, -1, -2)
        vh = self.wh(v)
        vn = torch.sqrt(torch.clamp(torch.sum(torch.square(vh), -2), min=1e-8))
        s = self.ws(torch.cat([s, vn], -1))
        v = torch.transpose(self.wv(vh), -1, -2)
        if self.vector_act:
            v = v * self.vector_act(torch.norm(v, dim=-1, keepdim=True))
        if self.scalar_act:
            s = self.scalar_act(s)
        return (s, v)


def tuple_cat(*args, dim=-1):
    dim %= len(args[0][0].shape)
    s_args, v_args = list(zip(*args))
    return torch.cat(s_args, dim=dim), torch.cat(v_args, dim=dim)


def merge(s, v):
    v = torch.reshape(v, v.shape[:-2] + (3 * v.shape[-2],))
    return torch.cat([s, v], -1)


def split(x, nv: int):
    s = x[..., : -3 * nv]
    v = torch.reshape(x[..., -3 * nv :], (x.shape[0], nv, 3))
    return s, v


class GVPConv(MessagePassing):
    def __init__(self, dims, n_layers=2):
        super().__init__(aggr="mean")
        self.so, self.vo = dims
        si, vi = dims
        layers = [GVP((2 * si, 2 * vi), dims)]
        for _ in range(n_layers - 2):
            layers.append(GVP(dims, dims))
        layers.append(GVP(dims, dims, activations=(None, None)))
        self.message_func = nn.Sequential(*layers)

    def forward(self, x_s, x_v, edge_index):
        message = self.propagate(edge_index, s=x_s, v=x_v.reshape(x_v.shape[0], 3 * x_v.shape[1]))
        return split(message, self.vo)

    def message(self, s_i, v_i, s_j, v_j):
        v_j = v_j.view(v_j.shape[0], v_j.shape[1] // 3, 3)
        v_i = v_i.view(v_i.shape[0], v_i.shape[1] // 3, 3)
        message = tuple_cat((s_j, v_j), (s_i, v_i), dim=1)
        message = self.message_func(message)
        return merge(*message)


class GVPNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GVPConv((8, 2))

    def forward(self, x, pos, edge_index):
        v = torch.stack([pos, 2 * pos + 1.0], dim=-2)
        s, v = self.conv(x, v, edge_index)
        return s, v


class TorchMDAttention(MessagePassing):
    """Attention with distances, vector features, and reset of attributes."""

    def __init__(
        self, hidden_channels=8, num_heads=2, attn_activation=nn.SiLU, distance_influence="both"
    ):
        super().__init__(aggr="add", node_dim=0)
        assert hidden_channels % num_heads == 0, (
            f"The number of hidden channels ({hidden_channels}) must be divisible by "
            f"the number of attention heads ({num_heads})"
        )
        self.distance_influence = distance_influence
        self.num_heads = num_heads
        self.head_dim = hidden_channels // num_heads
        self.hidden_channels = hidden_channels
        self.attn_activation = attn_activation()
        self.q_proj = nn.Linear(hidden_channels, hidden_channels)
        self.k_proj = nn.Linear(hidden_channels, hidden_channels)
        self.v_proj = nn.Linear(hidden_channels, hidden_channels * 3)
        self.dk_proj = None
        if distance_influence in ["keys", "both"]:
            self.dk_proj = nn.Linear(1, hidden_channels)
        self.dv_proj = None
        if distance_influence in ["values", "both"]:
            self.dv_proj = nn.Linear(1, hidden_channels * 3)

    def forward(self, x, vec, edge_index, r_ij, f_ij, d_ij):
        q = self.q_proj(x).reshape(-1, self.num_heads, self.head_dim)
        k = self.k_proj(x).reshape(-1, self.num_heads, self.head_dim)
        v = self.v_proj(x).reshape(-1, self.num_heads, self.head_dim * 3)
        vec = vec.reshape(-1, 3, self.num_heads, self.head_dim)
        dk = (
            self.attn_activation(self.dk_proj(f_ij)).reshape(-1, self.num_heads, self.head_dim)
            if self.dk_proj is not None
            else None
        )
        dv = (
            self.attn_activation(self.dv_proj(f_ij)).reshape(-1, self.num_heads, self.head_dim * 3)
            if self.dv_proj is not None
            else None
        )
        # propagate_type: (q: Tensor, k: Tensor, v: Tensor, vec: Tensor, dk: Optional[Tensor], dv: Optional[Tensor], r_ij: Tensor, d_ij: Tensor)
        x, vec = self.propagate(
            edge_index, q=q, k=k, v=v, vec=vec, dk=dk, dv=dv, r_ij=r_ij, d_ij=d_ij, size=None
        )
        return x.reshape(-1, self.hidden_channels), vec.reshape(-1, 3, self.hidden_channels)

    def message(self, q_i, k_j, v_j, vec_j, dk, dv, r_ij, d_ij):
        if dk is None:
            attn = (q_i * k_j).sum(dim=-1)
        else:
            attn = (q_i * k_j * dk).sum(dim=-1)
        attn = self.attn_activation(attn) * (r_ij < 5.0).float().unsqueeze(1)
        if dv is not None:
            v_j = v_j * dv
        x, vec1, vec2 = torch.split(v_j, self.head_dim, dim=2)
        x = x * attn.unsqueeze(2)
        vec = vec_j * vec1.unsqueeze(1) + vec2.unsqueeze(1) * d_ij.unsqueeze(2).unsqueeze(3)
        return x, vec

    def aggregate(self, features, index, ptr, dim_size):
        x, vec = features
        x = scatter(x, index, dim=self.node_dim, dim_size=dim_size)
        vec = scatter(vec, index, dim=self.node_dim, dim_size=dim_size)
        return x, vec

    def update(self, inputs):
        return inputs


class TorchMDNet(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.attn = TorchMDAttention(**kwargs)

    def forward(self, x, pos, edge_index):
        diff = pos[edge_index[0]] - pos[edge_index[1]]
        r = diff.norm(dim=-1)
        vec = torch.zeros(x.size(0), 3, x.size(1), device=x.device)
        x, vec = self.attn(x, vec, edge_index, r, r[:, None], diff / r[:, None])
        x, vec = self.attn(x, vec, edge_index, r, r[:, None], diff / r[:, None])
        return x, vec


class SE3Attention(MessagePassing):
    """Attention whose weights are kept in an attribute, and read behind the call."""

    def __init__(self, dim=8):
        super().__init__(node_dim=0, aggr="sum")
        self.qkv = nn.Linear(dim, 3 * dim)
        self.scale = dim**-0.5
        self.alpha = None

    def forward(self, x, pos, edge_index):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        out = self.propagate(edge_index, q=q, kv=(k, v), pos=pos, size=None)
        alpha = self.alpha
        self.alpha = None
        assert alpha is not None
        return out, alpha

    def message(self, q_i, kv, pos_i, pos_j, index, edge_index_j):
        k, v = kv
        logits = (q_i * k[edge_index_j]).sum(-1) * self.scale
        logits = logits - (pos_i - pos_j).norm(dim=-1)
        alpha = softmax(logits, index)
        self.alpha = alpha
        return alpha.unsqueeze(-1) * v[edge_index_j]


MODELS = {
    "vector-neurons": (VectorNet, on("pos", "edge_index")),
    "gvp": (GVPNet, on("x", "pos", "edge_index")),
    "torchmd": (TorchMDNet, on("x", "pos", "edge_index")),
    "torchmd-keys": (
        lambda: TorchMDNet(distance_influence="keys", attn_activation=nn.Tanh),
        on("x", "pos", "edge_index"),
    ),
    "torchmd-none": (lambda: TorchMDNet(distance_influence="none"), on("x", "pos", "edge_index")),
    "se3-attention": (SE3Attention, on("x", "pos", "edge_index")),
}

"""Whole models, as they are written: PyG's jit example, an EdgeNet, and convs nested anywhere."""

# Classes stand here as users write them.
# ruff: noqa: B905, PERF401

from collections import OrderedDict
from typing import Dict, List, Optional, Tuple

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import (
    EdgeConv,
    GATConv,
    GCNConv,
    GINEConv,
    MessagePassing,
    NNConv,
    SAGEConv,
    TransformerConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


class GAT(nn.Module):
    """The GAT of PyG's jit example."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, heads: int = 4):
        super().__init__()
        self.conv1 = GATConv(in_channels, hidden, heads, dropout=0.6)
        self.conv2 = GATConv(hidden * heads, out_channels, heads=1, concat=False, dropout=0.6)

    def forward(self, x, edge_index):
        x = F.dropout(x, p=0.6, training=self.training)
        x = F.elu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.6, training=self.training)
        x = self.conv2(x, edge_index)
        return F.log_softmax(x, dim=-1)


def test_gat(check):
    check(GAT(IN, 5, OUT))


class EdgeNet(nn.Module):
    """Six EdgeConvs, each on the hidden state next to the inputs, and an edge classifier."""

    def __init__(self, inputs: int = 5, hidden: int = 16, classes: int = 4, depth: int = 6):
        super().__init__()
        self.datanorm = nn.Parameter(torch.tensor([1 / 500, 1 / 500, 1 / 54, 1 / 25, 1 / 1000]))
        self.inputnet = nn.Sequential(
            nn.Linear(inputs, 2 * hidden), nn.Tanh(), nn.Linear(2 * hidden, hidden), nn.Tanh()
        )
        width = hidden + inputs
        self.convs = nn.ModuleList(
            EdgeConv(
                nn.Sequential(
                    nn.Linear(2 * width, 2 * hidden), nn.ELU(), nn.Linear(2 * hidden, hidden),
                    nn.ELU(),
                ),
                aggr="add",
            )
            for _ in range(depth)
        )  # fmt: skip
        self.edgenetwork = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.ELU(), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.datanorm * x
        h = torch.cat([self.inputnet(x), x], dim=-1)
        for conv in self.convs:
            h = torch.cat([conv(h, edge_index), x], dim=-1)
        ends = torch.cat([h[edge_index[0]], h[edge_index[1]]], dim=-1)
        return F.log_softmax(self.edgenetwork(ends), dim=-1)


def test_edge_net(check):
    scale = torch.tensor([500.0, 500.0, 54.0, 25.0, 1000.0])
    check(EdgeNet(), *[(g.x[:, :5] * scale, g.edge_index) for g in GRAPHS])


# -- containers -----------------------------------------------------------------------------------


class Residual(nn.Module):
    """One level: a conv, a norm and a skip connection."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + self.drop(self.norm(self.conv(x, edge_index)).relu())


class Stack(nn.Module):
    """Two levels: blocks in a list, a dict and a sequential."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [Residual(SAGEConv(channels, channels), channels) for _ in range(2)]
        )
        self.branches = nn.ModuleDict(
            {
                "gcn": Residual(GCNConv(channels, channels), channels),
                "gat": Residual(GATConv(channels, channels // 2, heads=2), channels),
            }
        )
        self.members = nn.Sequential(
            OrderedDict(
                first=TransformerConv(channels, channels), act=nn.ReLU(),
                second=GCNConv(channels, channels),
            )
        )  # fmt: skip

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, edge_index)
        out = torch.zeros_like(x)
        for name, branch in self.branches.items():
            out = out + branch(x, edge_index) * (2.0 if name == "gat" else 1.0)
        x = self.members.first(out, edge_index)
        x = self.members.act(x)
        return self.members.second(x, edge_index) + self.branches["gcn"](x, edge_index)


class Encoder(nn.Module):
    """Three levels, and one module that occurs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = Stack(IN)
        self.heads = nn.ModuleList([nn.ModuleList([SAGEConv(IN, OUT)]) for _ in range(2)])
        self.same = self.heads[0][0]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.stack(x, edge_index)
        outs = [self.same(x, edge_index)]
        for head in self.heads:
            for conv in head:
                outs.append(conv(x, edge_index))
        return torch.stack(outs).sum(0)


def test_convs_in_containers(check):
    check(Encoder(), atol=1e-4)  # five layers deep: gradients of order one, summed in float32


class Weights(nn.Module):
    """Convs of different classes in one list, called alike."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                GATConv(IN, IN, edge_dim=EDGE),
                GINEConv(nn.Linear(IN, IN), edge_dim=EDGE),
                TransformerConv(IN, IN, edge_dim=EDGE),
                NNConv(IN, OUT, nn.Linear(EDGE, IN * OUT)),
            ]
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x, edge_index, edge_attr=edge_attr)
            if i < len(self.convs) - 1:
                x = x.relu()
        return x


def test_different_convs_in_one_list(check):
    check(Weights(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])


# -- tasks ----------------------------------------------------------------------------------------


class GraphClassifier(nn.Module):
    """Several graphs in a batch, PyG's norms and pools, and an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, IN)
        self.convs = nn.ModuleList([GCNConv(IN, IN), GCNConv(IN, IN)])
        self.norms = nn.ModuleList([pyg.BatchNorm(IN), pyg.GraphNorm(IN)])
        self.lin = pyg.Linear(3 * IN, OUT)

    def forward(
        self,
        atoms: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        edge_weight: Optional[Tensor] = None,
    ) -> Tensor:
        x = self.embed(atoms)
        x = self.norms[0](self.convs[0](x, edge_index, edge_weight)).relu()
        x = self.norms[1](self.convs[1](x, edge_index, edge_weight), batch).relu()
        pooled = [global_mean_pool(x, batch), global_add_pool(x, batch), global_max_pool(x, batch)]
        return self.lin(torch.cat(pooled, dim=-1))


def test_graph_classifier(check):
    batches = []
    for count in (2, 3):
        data = [
            Data(
                atoms=torch.arange(g.x.size(0)) % 10,
                edge_index=g.edge_index,
                edge_weight=g.weight,
                num_nodes=g.x.size(0),
            )
            for g in (GRAPHS * 2)[:count]
        ]
        batches.append(Batch.from_data_list(data))
    check(GraphClassifier(), *[(b.atoms, b.edge_index, b.batch) for b in batches])
    check(GraphClassifier(), *[(b.atoms, b.edge_index, b.batch, b.edge_weight) for b in batches])


class LinkPredictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"first": SAGEConv(IN, 6), "second": SAGEConv(6, OUT)})

    def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.encoder["first"](x, edge_index).relu()
        return self.encoder["second"](x, edge_index)

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:
        z = self.encode(x, edge_index)
        return (z[pairs[0]] * z[pairs[1]]).sum(dim=-1)


def test_link_predictor(check):
    check(LinkPredictor(), *[(g.x, g.edge_index, g.edge_index.flip([0])) for g in GRAPHS])


class Recurrent(nn.Module):
    """A conv and a recurrent cell over a sequence of graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)
        self.cell = nn.GRUCell(OUT, OUT)

    def forward(
        self, xs: List[Tensor], edges: List[Tensor], state: Optional[Tensor] = None
    ) -> Tuple[Tensor, List[Tensor]]:
        outs: List[Tensor] = []
        for x, edge_index in zip(xs, edges):
            h = self.conv(x, edge_index)
            state = self.cell(h) if state is None else self.cell(h, state)
            outs.append(state)
        assert state is not None
        return state, outs


def test_recurrent(check):
    sequences = [([g.x, g.x + 1], [g.edge_index, g.edge_index.flip([0])]) for g in GRAPHS]
    check(Recurrent(), *sequences)


class Typed(nn.Module):
    """A conv for each type of edge, of a heterogeneous graph in plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = SAGEConv((IN, IN), OUT)
        self.cites = SAGEConv(IN, OUT)

    def forward(self, xs: Dict[str, Tensor], edges: Dict[str, Tensor]) -> Dict[str, Tensor]:
        papers = self.writes((xs["author"], xs["paper"]), edges["writes"])
        papers = papers + self.cites(xs["paper"], edges["cites"])
        return {"paper": papers}


def test_typed_edges(check):
    inputs = [
        (
            {"paper": g.x_dst, "author": g.x},
            {"writes": g.bipartite, "cites": g.bipartite[:, :4] % g.x_dst.size(0)},
        )
        for g in GRAPHS
    ]
    check(Typed(), *inputs)


class EGNN(MessagePassing):
    """An equivariant layer as users write it."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="mean")
        self.mlp_msg = nn.Sequential(
            nn.Linear(2 * channels + 1, channels), nn.LayerNorm(channels), nn.SiLU()
        )
        self.mlp_pos = nn.Sequential(
            nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1)
        )
        self.mlp_upd = nn.Sequential(nn.Linear(2 * channels, channels), nn.SiLU())

    def forward(self, h, pos, edge_index):
        """Returns new features and new positions."""
        out = self.propagate(edge_index, h=h, pos=pos)
        h_out, pos_out = out[:, :-3], out[:, -3:]
        return h + self.mlp_upd(torch.cat([h, h_out], dim=-1)), pos + pos_out

    def message(self, h_i, h_j, pos_i, pos_j):
        pos_diff = pos_i - pos_j
        dists = torch.norm(pos_diff, dim=-1).unsqueeze(1)
        msg = self.mlp_msg(torch.cat([h_i, h_j, dists], dim=-1))
        pos_diff = pos_diff * self.mlp_pos(msg)
        return torch.cat([msg, pos_diff], dim=-1)


class EGNNModel(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.lin_in = nn.Linear(IN, 8)
        self.convs = nn.ModuleList([EGNN(8) for _ in range(depth)])
        self.lin_pred = nn.Linear(8, 1)

    def forward(self, x, pos, edge_index, batch):
        h = self.lin_in(x)
        for conv in self.convs:
            h_update, pos_update = conv(h, pos, edge_index)
            h = h + h_update
            pos = pos_update
        return self.lin_pred(global_add_pool(h, batch)).view(-1)


def test_egnn(check):
    """Without self loops: the gradient of a norm at zero depends on the order of operations."""
    inputs = []
    for g in GRAPHS:
        keep = g.edge_index[0] != g.edge_index[1]
        inputs.append((g.x, g.x[:, :3], g.edge_index[:, keep], g.batch))
    check(EGNNModel(), *inputs)


# -- PyG's own models -----------------------------------------------------------------------------


# A dropout of probability zero draws random numbers once TorchScript has differentiated it, and
# none in eager mode. Models with such a dropout before another one are compared without any.
DROPOUT = {"GCN": 0.2, "GraphSAGE": 0.2, "GAT": 0.2, "GIN": 0.0, "EdgeCNN": 0.0}


@pytest.mark.parametrize("name", DROPOUT)
@pytest.mark.parametrize("jk", [None, "cat"])
def test_models_of_pyg(name, jk, check):
    kwargs = {"norm": "BatchNorm"} if name == "GIN" else {}
    cls = getattr(pyg, name)
    check(cls(IN, 8, num_layers=2, out_channels=OUT, dropout=DROPOUT[name], jk=jk, **kwargs))


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gnn = pyg.GraphSAGE(IN, 8, num_layers=2, out_channels=OUT)
        self.post = pyg.MLP([OUT, 6, 2])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.post(self.gnn(x, edge_index))


def test_a_model_of_pyg_inside_a_model(check):
    check(Around())


# -- how they are used ----------------------------------------------------------------------------


def test_training_goes_the_same_way():
    """The same losses, step by step, with dropout and Adam."""
    losses = []
    for script in (lambda model: model, torch.jit.script):
        torch.manual_seed(1)
        model = script(GAT(IN, 8, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        history = []
        for step in range(20):
            g = GRAPHS[step % 2]
            optimizer.zero_grad()
            loss = F.nll_loss(model(g.x, g.edge_index), g.batch)
            loss.backward()
            optimizer.step()
            history.append(loss.detach())
        losses.append(torch.stack(history))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)


def test_saved_and_loaded_model_has_the_state_of_the_eager_one(tmp_path):
    model = Encoder().eval()
    path = tmp_path / "model.pt"
    torch.jit.script(model).save(str(path))
    loaded = torch.jit.load(str(path))
    state = model.state_dict()
    assert set(loaded.state_dict()) == set(state)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    for g in GRAPHS:
        torch.testing.assert_close(loaded(g.x, g.edge_index), model(g.x, g.edge_index))
    again = tmp_path / "again.pt"
    loaded.save(str(again))
    g = GRAPHS[0]
    torch.testing.assert_close(
        torch.jit.load(str(again))(g.x, g.edge_index), model(g.x, g.edge_index)
    )

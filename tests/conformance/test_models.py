"""The models of torch_geometric.nn.models, with the options that change their code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
import torch_geometric.nn.models as models
import torch_geometric.utils as utils
from torch import Tensor, nn
from torch_geometric.nn.models.schnet import GaussianSmearing, InteractionBlock

import gnnscript
from conformance.graphs import EDGE, GRAPHS, IN, OUT, Graph
from conformance.modules import ModuleCase, cases, check
from gnnscript.testing import BareProcess

EVAL = ("eval",)


def edges(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index


def batched(g: Graph) -> tuple[Any, ...]:
    return g.x, g.edge_index, g.batch


def atoms(g: Graph) -> tuple[Any, ...]:
    return (g.x[:, 0].abs() * 3).long() + 1, g.x[:, :3].contiguous(), g.batch


def labels(g: Graph) -> tuple[Any, ...]:
    return (g.x[:, 0] > 0).long(), g.edge_index


BASIC = {
    "GCN": models.GCN,
    "GraphSAGE": models.GraphSAGE,
    "GIN": models.GIN,
    "GAT": models.GAT,
    "EdgeCNN": models.EdgeCNN,
}
FAMILY = [
    *(ModuleCase(f"{name}-jk-{jk}", lambda c=c, jk=jk: c(IN, 8, 3, OUT, jk=jk, norm="batch",
                                                         act="elu"), edges)
      for name, c in BASIC.items() for jk in (None, "last", "cat", "max", "lstm")
      if name == "GCN" or jk in (None, "cat")),
    *(ModuleCase(f"{name}-dropout", lambda c=c: c(IN, 8, 2, OUT, dropout=0.5, act_first=True,
                                                  act="leaky_relu",
                                                  act_kwargs={"negative_slope": 0.3}),
                 edges, EVAL) for name, c in BASIC.items()),
    *(ModuleCase(f"GCN-norm-{norm}", lambda norm=norm, kw=kw: models.GCN(
        IN, 8, 2, OUT, norm=norm, norm_kwargs=kw), edges)
      for norm, kw in [("layer", None), ("graph", None), ("instance", None), ("pair", None),
                       ("diff_group", {"groups": 2})]),
    ModuleCase("GCN-one-layer", lambda: models.GCN(IN, 8, 1, act=None), edges),
    ModuleCase("GCN-weights", lambda: models.GCN(IN, 8, 2, OUT),
               lambda g: (*edges(g), g.weight)),
    ModuleCase("GCN-batch", lambda: models.GCN(IN, 8, 2, OUT, norm="graph"),
               lambda g: (*edges(g), None, None, g.batch, 2)),
    ModuleCase("GAT-v2", lambda: models.GAT(IN, 8, 2, OUT, v2=True, heads=2, edge_dim=EDGE),
               lambda g: (*edges(g), None, g.attr)),
    ModuleCase("GraphSAGE-lazy", lambda: models.GraphSAGE(-1, 8, 2, OUT), edges, lazy=True),
    ModuleCase("PNA", lambda: models.PNA(
        IN, 8, 2, OUT, aggregators=["mean", "std", "max"], scalers=["identity", "amplification"],
        deg=torch.tensor([1, 4, 6, 4, 2])), edges),
]  # fmt: skip


class Trimmed(nn.Module):
    """Leaves out, layer by layer, what sampling has brought in for those before."""

    def __init__(self) -> None:
        super().__init__()
        self.model = models.GraphSAGE(IN, 8, 2, OUT)

    def forward(self, x, edge_index):
        return self.model(
            x,
            edge_index,
            num_sampled_nodes_per_hop=[3, 2, 1],
            num_sampled_edges_per_hop=[5, 3],
        )


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = models.MLP(
            in_channels=IN, hidden_channels=8, out_channels=OUT, num_layers=3, norm="layer_norm"
        )

    def forward(self, x, batch):
        return self.mlp(x, batch, return_emb=True)


class Jump(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.jump = models.JumpingKnowledge(mode, IN, 2)

    def forward(self, x):
        return self.jump([x, x * 2])


class HeteroJump(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.jump = models.HeteroJumpingKnowledge(["a", "b"], "lstm", IN, 2)

    def forward(self, x, y):
        out = self.jump({"a": [x, x * 2], "b": [y, y + 1]})
        return out["a"], out["b"]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(IN, 6)
        self.act = nn.PReLU(6)

    def forward(self, x, edge_index):
        return self.act(self.conv(x, edge_index))


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mu, self.logstd = pyg.GCNConv(IN, 6), pyg.GCNConv(IN, 6)

    def forward(self, x, edge_index):
        return self.mu(x, edge_index), self.logstd(x, edge_index)


class AutoEncoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x, edge_index):
        z = self.model.encode(x, edge_index)
        return self.model.decode(z, edge_index), self.model.decoder.forward_all(z)


class Divergence(AutoEncoder):
    def forward(self, x, edge_index):
        z = self.model.encode(x, edge_index)
        return self.model.decode(z, edge_index), self.model.kl_loss()


class Adversarial(AutoEncoder):
    def forward(self, x, edge_index):
        return self.model.reg_loss(self.model.encode(x, edge_index))


def corruption(x, edge_index):
    return x.flip(0), edge_index


def summary(z, *args, **kwargs):
    return torch.sigmoid(z.mean(dim=0))


class Edges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * IN + EDGE + 5, 6)

    def forward(self, src, dst, edge_attr, u, batch):
        return self.lin(torch.cat([src, dst, edge_attr, u[batch]], 1))


class EdgesAlone(nn.Module):
    """Not annotated, nor needing all that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * IN + EDGE, 6)

    def forward(self, src, dst, edge_attr, u, batch):
        return self.lin(torch.cat([src, dst, edge_attr], 1))


class Nodes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(IN + 6 + 5, 7)

    def forward(self, x, edge_index, edge_attr, u, batch):
        mean = utils.scatter(edge_attr, edge_index[1], 0, x.size(0), "mean")
        return self.lin(torch.cat([x, mean, u[batch]], 1))


class Globals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(7 + 5, 5)

    def forward(self, x, edge_index, edge_attr, u, batch):
        return self.lin(torch.cat([u, utils.scatter(x, batch, 0, reduce="mean")], 1))


class Meta(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = pyg.MetaLayer(Edges(), Nodes(), Globals())

    def forward(self, x, edge_index, attr, u, batch):
        x, attr, u = self.layer(x, edge_index, attr, u, batch)
        return x, attr, u


class Deep(nn.Module):
    def __init__(self, block: str) -> None:
        super().__init__()
        conv, norm = pyg.GCNConv, pyg.LayerNorm
        self.layers = nn.ModuleList(
            models.DeepGCNLayer(conv(IN, IN), norm(IN), nn.ReLU(), block=block) for _ in range(2)
        )

    def forward(self, x, edge_index, weight):
        x = self.layers[0].conv(x, edge_index, weight)
        for layer in self.layers:
            x = layer(x, edge_index, weight)
        return x


class Corrected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = models.CorrectAndSmooth(2, 0.8, 2, 0.8, autoscale=True)

    def forward(self, x, y, mask, edge_index, weight):
        soft = self.model.correct(x[:, :2].softmax(-1), y[mask], mask, edge_index, weight)
        return self.model.smooth(soft, y[mask], mask, edge_index)


class CorrectedByMask(Corrected):
    """Fixes the errors of the training nodes in each step, by a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.model = models.CorrectAndSmooth(2, 0.8, 2, 0.8, autoscale=False, scale=1.5)


class Propagated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = models.LabelPropagation(3, 0.9)

    def forward(self, y, edge_index, weight):
        return self.model(y, edge_index, None, weight, lambda t: t.clamp(-1, 1))


def deep(block: str) -> nn.Module:
    return models.DeepGCNLayer(
        pyg.GENConv(IN, IN), nn.BatchNorm1d(IN), nn.ReLU(), block=block, dropout=0.0
    )


OTHERS = [
    ModuleCase("GraphSAGE-trimmed", Trimmed, edges),
    ModuleCase("MLP", lambda: models.MLP([IN, 8, OUT]), lambda g: (g.x,)),
    ModuleCase("MLP-options", lambda: models.MLP(
        [IN, 8, 8, OUT], norm="graph_norm", act="gelu", plain_last=False,
        bias=[True, False, True]), lambda g: (g.x, g.batch)),
    ModuleCase("MLP-embedding", Embedding, lambda g: (g.x, g.batch)),
    *(ModuleCase(f"JumpingKnowledge-{mode}", lambda mode=mode: Jump(mode), lambda g: (g.x,))
      for mode in ("cat", "max", "lstm")),
    ModuleCase("JumpingKnowledge-root", lambda: models.JumpingKnowledge("max"),
               lambda g: ([g.x, g.x * 2],)),
    ModuleCase("HeteroJumpingKnowledge", HeteroJump, lambda g: (g.x, g.x_dst)),
    ModuleCase("AttentiveFP", lambda: models.AttentiveFP(IN, 8, OUT, EDGE, 2, 2),
               lambda g: (*edges(g), g.attr, g.batch)),
    ModuleCase("SchNet", lambda: models.SchNet(8, 8, 2, 6, 5.0), atoms),
    ModuleCase("SchNet-mean", lambda: models.SchNet(8, 8, 1, 6, 5.0, readout="mean"), atoms),
    ModuleCase("InteractionBlock", lambda: InteractionBlock(IN, EDGE, 6, 4.0),
               lambda g: (*edges(g), g.weight, g.attr)),
    ModuleCase("GaussianSmearing", lambda: GaussianSmearing(0, 5, 4), lambda g: (g.weight,)),
    ModuleCase("ViSNet", lambda: models.ViSNet(
        hidden_channels=8, num_layers=2, num_heads=2, num_rbf=4, cutoff=4.0, max_z=20), atoms),
    ModuleCase("ViSNet-options", lambda: models.ViSNet(
        lmax=2, vecnorm_type="max_min", hidden_channels=8, num_layers=1, num_heads=2, num_rbf=4,
        cutoff=4.0, max_z=20, vertex=True, reduce_op="mean"), atoms),
    *(ModuleCase(f"DeepGCNLayer-{block}", lambda block=block: deep(block), edges)
      for block in ("res+", "res", "dense", "plain")),
    ModuleCase("DeepGCNLayer-inside", lambda: Deep("res+"), lambda g: (*edges(g), g.weight)),
    ModuleCase("GraphUNet", lambda: models.GraphUNet(IN, 8, OUT, 2, 0.5), edges),
    ModuleCase("GraphUNet-options", lambda: models.GraphUNet(
        IN, 8, OUT, 2, [0.8, 0.5], sum_res=False, act="elu"), batched),
    ModuleCase("MetaLayer", Meta, lambda g: (*edges(g), g.attr, torch.ones(2, 5), g.batch)),
    ModuleCase("LightGCN", lambda: models.LightGCN(20, 8, 2), lambda g: (g.edge_index,)),
    ModuleCase("LightGCN-weights", lambda: models.LightGCN(20, 8, 2),
               lambda g: (g.edge_index, g.edge_index[:, :3], g.weight)),
    ModuleCase("LabelPropagation", lambda: models.LabelPropagation(3, 0.9), labels,
               gradients=False),
    ModuleCase("LabelPropagation-step", Propagated, lambda g: (*labels(g), g.weight),
               gradients=False),
    ModuleCase("CorrectAndSmooth", Corrected, lambda g: (
        g.x, torch.arange(g.x.size(0)) % 2, torch.arange(g.x.size(0)) < 5, g.edge_index,
        g.weight)),
    ModuleCase("CorrectAndSmooth-mask", CorrectedByMask, lambda g: (
        g.x, torch.arange(g.x.size(0)) % 2, torch.arange(g.x.size(0)) < 5, g.edge_index,
        g.weight)),
    ModuleCase("MetaLayer-root", lambda: pyg.MetaLayer(EdgesAlone()),
               lambda g: (*edges(g), g.attr)),
    ModuleCase("DeepGraphInfomax", lambda: models.DeepGraphInfomax(
        6, Encoder(), summary, corruption), edges),
    ModuleCase("GAE", lambda: models.GAE(Encoder()), edges),
    ModuleCase("GAE-decoded", lambda: AutoEncoder(models.GAE(Encoder())), edges),
    ModuleCase("VGAE", lambda: Divergence(models.VGAE(Variational())), edges),
    ModuleCase("ARGA", lambda: Adversarial(models.ARGA(Encoder(), nn.Linear(6, 1))), edges),
    ModuleCase("SignedGCN", lambda: models.SignedGCN(IN, 8, 2),
               lambda g: (*edges(g), g.edge_index.flip(0))),
    ModuleCase("RECT_L", lambda: models.RECT_L(IN, 8), lambda g: (*edges(g), g.weight)),
    ModuleCase("LINKX", lambda: models.LINKX(12, IN, 8, OUT, 2, num_edge_layers=2),
               lambda g: (g.x.new_ones(12, IN), g.edge_index)),
    ModuleCase("PMLP", lambda: models.PMLP(IN, 8, OUT, 2, dropout=0.0), edges),
    ModuleCase("NeuralFingerprint", lambda: models.NeuralFingerprint(IN, 8, OUT, 2), batched),
    ModuleCase("SGFormer", lambda: models.SGFormer(IN, 8, OUT), batched, EVAL),
    ModuleCase("Polynormer", lambda: models.Polynormer(IN, 8, OUT), batched, EVAL),
    ModuleCase("MaskLabel", lambda: models.MaskLabel(3, IN),
               lambda g: (g.x, (g.x[:, 0] > 0).long(), g.x[:, 1] > 0)),
    *(ModuleCase(name, lambda name=name: getattr(pyg, name)(20, 3, 8),
                 lambda g: (g.edge_index[0], g.kind, g.edge_index[1]))
      for name in ("TransE", "ComplEx", "DistMult", "RotatE")),
]  # fmt: skip


@pytest.mark.usefixtures("auto")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch's, at its use
@cases([*FAMILY, *OTHERS])
def test_models(case: ModuleCase, bare: BareProcess) -> None:
    with torch.sparse.check_sparse_tensor_invariants():  # torch warns where nobody chose
        check(case, bare)


@pytest.mark.usefixtures("auto")
def test_a_signature_is_that_of_what_is_wrapped() -> None:
    """Arguments that are passed on are those of the module that they reach."""
    scripted = torch.jit.script(deep("res+"))
    arguments = [argument.name for argument in scripted.forward.schema.arguments[1:]]
    assert arguments == ["x", "edge_index", "edge_attr", "size"]
    graph = GRAPHS[0]
    by_name = scripted(x=graph.x, edge_index=graph.edge_index)
    torch.testing.assert_close(by_name, scripted(graph.x, graph.edge_index))


@pytest.mark.usefixtures("auto")
def test_lazy_layers_say_what_to_do() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match="run the model once in Python"):
        torch.jit.script(models.GraphSAGE(-1, 8, 2, OUT))


class Jittered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = models.GAE(Encoder())

    def forward(self, x: Tensor, edge_index: Tensor):
        z = self.model.encode(x, edge_index)
        return self.model.recon_loss(z, edge_index)


@pytest.mark.usefixtures("auto")
def test_a_loss_that_draws_negative_edges() -> None:
    model = Jittered()
    loss = torch.jit.script(model)(*edges(GRAPHS[1]))
    loss.backward()
    assert 0.5 < loss.item() < 3
    assert all(p.grad.abs().sum().item() > 0 for p in model.parameters())


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


class OwnBackward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.SAGEConv(IN, OUT)

    def forward(self, x, edge_index):
        return Halved.apply(self.conv(x, edge_index))


@pytest.mark.usefixtures("auto")
def test_what_cannot_be_expressed_says_why() -> None:
    cause = "a backward pass of its own in Python"
    with pytest.raises(gnnscript.UnsupportedError, match=cause) as caught:
        torch.jit.script(OwnBackward())
    assert caught.value.location is not None

"""Call forms: every way a model calls a conv gets its own concrete types."""

from typing import Dict, List, Optional, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import (
    CGConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    MessagePassing,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.typing import OptTensor

from conformance.graphs import EDGE, GRAPHS, IN, OTHER, OUT

pytestmark = pytest.mark.usefixtures("auto")


class ManyForms(nn.Module):
    """One conv, called in every form it has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GATConv(IN, OUT, edge_dim=EDGE, add_self_loops=False)

    def forward(
        self, x: Tensor, y: Tensor, edge_index: Tensor, attr: Tensor, cross: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        out = self.conv(x, edge_index)
        out = out + self.conv(x, edge_index, attr)
        out = out + self.conv(x, edge_index=edge_index, edge_attr=attr)
        out = out + self.conv(edge_attr=attr, edge_index=edge_index, x=x)
        size = (x.size(0), y.size(0))
        dst = self.conv((x, y), cross)
        dst = dst + self.conv((x, y), cross, attr)
        dst = dst + self.conv((x, None), cross, None, size)
        dst = dst + self.conv((x, None), cross, size=size, edge_attr=attr)
        pair = (x, y)
        dst = dst + self.conv(pair, cross, size=None)
        more, (edges, alpha) = self.conv((x, y), cross, attr, return_attention_weights=True)
        last, weights = self.conv(x, edge_index, return_attention_weights=True)
        return out + last, dst + more, alpha.sum() + weights[1].sum() + edges.sum()


def test_one_conv_in_every_form(check):
    inputs = [(g.x, g.x_dst, g.edge_index, g.attr, g.bipartite) for g in GRAPHS]
    check(ManyForms(), *inputs)


class Several(nn.Module):
    """Convs of one class, called in different forms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = SAGEConv(IN, IN)
        self.second = SAGEConv((IN, OTHER), OUT)
        self.third = SAGEConv(IN, OUT, aggr="max")

    def forward(self, x: Tensor, y: Tensor, edge_index: Tensor, cross: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        y = self.second((x, y), cross)
        return y + self.third((x, None), cross, size=(x.size(0), y.size(0)))


def test_convs_of_one_class_in_different_forms(check):
    check(Several(), *[(g.x, g.x_other, g.edge_index, g.bipartite) for g in GRAPHS])


class Flags(nn.Module):
    """False is no request for attention to GATConv, and is one to TransformerConv."""

    def __init__(self) -> None:
        super().__init__()
        self.gat = GATConv(IN, OUT)
        self.gatv2 = GATv2Conv(IN, OUT)
        self.transformer = TransformerConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, Tensor]:
        out = self.gat(x, edge_index, return_attention_weights=False)
        out = out + self.gatv2(x, edge_index, return_attention_weights=None)
        more, (_, alpha) = self.transformer(x, edge_index, return_attention_weights=False)
        return out + more, alpha


def test_return_attention_weights_false(check):
    check(Flags())


class Handed(nn.Module):
    """Hands on values whose types are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gcn = GCNConv(IN, IN)
        self.cg = CGConv(IN, dim=EDGE)
        self.sage = SAGEConv(IN, OUT)

    def forward(
        self,
        x: Tensor,
        edges: Dict[str, Tensor],
        weight: Optional[Tensor] = None,
        attrs: Optional[List[Tensor]] = None,
    ) -> Tensor:
        edge_index = edges["all"]
        x = self.gcn(x, edge_index, weight)
        if attrs is not None:
            for attr in attrs:
                x = self.cg(x, edge_index, attr)
        if weight is not None:
            x = self.gcn(x, edge_index, weight * 2)
        return self.sage(x, edge_index)


def test_optional_values_of_the_model(check):
    check(Handed(), *[(g.x, {"all": g.edge_index}) for g in GRAPHS])
    check(
        Handed(),
        *[(g.x, {"all": g.edge_index}, g.weight, [g.attr, 2 * g.attr]) for g in GRAPHS],
    )


class Method(nn.Module):
    """Calls its convs from a method of its own and from an exported one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def embed(self, x: Tensor, edge_index: Tensor, weight: OptTensor = None) -> Tensor:
        return self.conv(x, edge_index, weight).tanh()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.embed(x, edge_index)

    @torch.jit.export
    def score(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        z = self.embed(x, edge_index, weight)
        return (z[edge_index[0]] * z[edge_index[1]]).sum(-1)


def test_methods_of_the_model(check):
    check(Method())
    model = Method()
    scripted = torch.jit.script(model)
    for g in GRAPHS:
        args = g.x, g.edge_index, g.weight
        torch.testing.assert_close(scripted.score(*args), model.score(*args))


# -- the conv as the root -------------------------------------------------------------------------


def test_root_has_one_forward(check):
    conv = GATConv(IN, OUT, edge_dim=EDGE)
    examples = [(GRAPHS[0].x, GRAPHS[0].edge_index)]
    for scripted, x in (
        (torch.jit.script(conv), "Union[Tensor, Tuple[Tensor, Optional[Tensor]]]"),
        (torch.jit.script(conv, example_inputs=examples), "Tensor"),
    ):
        schema = scripted.forward.schema
        assert schema.name == "forward"
        types = {argument.name: argument.type.annotation_str for argument in schema.arguments}
        assert types["x"] == x
        assert types["edge_index"] == "Tensor"
        assert [str(value.type) for value in schema.returns] == ["Tensor"]
    check(conv, *[(g.x, g.edge_index, g.attr) for g in GRAPHS])
    check(conv, *[{"x": g.x, "edge_index": g.edge_index} for g in GRAPHS])


def test_root_takes_keywords_and_keeps_defaults(check):
    check(
        GCNConv(IN, OUT),
        *[{"edge_weight": g.weight, "x": g.x, "edge_index": g.edge_index} for g in GRAPHS],
    )


class PairsOnly(MessagePassing):
    def forward(self, x: Tuple[Tensor, Optional[Tensor]], edge_index: Tensor, num_dst: int):
        return self.propagate(edge_index, x=x, size=(x[0].size(0), num_dst))

    def message(self, x_j: Tensor, x_i: OptTensor) -> Tensor:
        return x_j if x_i is None else x_j * x_i


def test_root_with_a_pair(check):
    check(PairsOnly(), *[((g.x, g.x_dst), g.bipartite, g.x_dst.size(0)) for g in GRAPHS])
    check(PairsOnly(), *[((g.x, None), g.bipartite, g.x_dst.size(0)) for g in GRAPHS])


def test_a_conv_as_root_and_nested(check):
    conv = SAGEConv(IN, OUT)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor, y: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv((x, y), edge_index)

    check(conv)
    check(Model(), *[(g.x, g.x_dst, g.bipartite) for g in GRAPHS])
    check(conv)


# -- other convs' own overloads -------------------------------------------------------------------


class OwnOverloads(MessagePassing):
    """Returns its messages' weights when asked, in a class of a user's own."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, OUT)
        self.att = nn.Linear(2 * OUT, 1)

    def forward(self, x: Tensor, edge_index: Tensor, return_weights: bool = False):
        h = self.lin(x)
        gate = self.edge_updater(edge_index, h=h)
        out = self.propagate(edge_index, h=h, gate=gate)
        if return_weights:
            return out, gate
        return out

    def edge_update(self, h_i: Tensor, h_j: Tensor) -> Tensor:
        return self.att(torch.cat([h_i, h_j], dim=-1)).sigmoid()

    def message(self, h_j: Tensor, gate: Tensor) -> Tensor:
        return gate * h_j


class OwnOverloadsModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = OwnOverloads()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tuple[Tensor, Tensor]:
        out, gate = self.conv(x, edge_index, return_weights=True)
        return out + self.conv(x, edge_index), gate


def test_result_that_depends_on_a_flag(check):
    check(OwnOverloadsModel())
    check(OwnOverloads())


def test_wrong_call_is_refused():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(IN, OUT)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index, no_such_argument=x)

    with pytest.raises(Exception, match="no_such_argument"):
        torch.jit.script(Wrong())


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lin = GCNConv(IN, OUT), nn.Linear(OUT, OUT)

    def head(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.lin(x).tanh() * scale

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = checkpoint(self.conv, x, edge_index, use_reentrant=False)
        if self.training:
            return checkpoint(self.head, x, scale=2.0, use_reentrant=False)
        return self.head(x, 2.0)


def test_checkpoints_compute_what_they_hold(check):
    check(Checkpointed())

"""Heterogeneous models: dictionaries over node and edge types, inside a model and at its door."""

from __future__ import annotations

import io
from typing import Any, Dict

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.typing import EdgeType, NodeType

import gnnscript
from conformance.graphs import GRAPHS, IN, OUT, Graph
from conformance.modules import ModuleCase, cases, check
from gnnscript.testing import BareProcess

AB, BA, AA = ("a", "to", "b"), ("b", "rev", "a"), ("a", "self", "a")
METADATA = (["a", "b"], [AB, BA, AA])


def hetero_conv(aggr: str | None = "sum") -> pyg.HeteroConv:
    return pyg.HeteroConv(
        {
            AB: pyg.SAGEConv((IN, IN), OUT),
            BA: pyg.GATConv((IN, IN), OUT, add_self_loops=False),
            AA: pyg.GCNConv(IN, OUT),
        },
        aggr=aggr,
    )


class Encoder(nn.Module):
    """What `to_hetero` turns into one layer for each edge type."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = pyg.SAGEConv((-1, -1), 16)
        self.conv2 = pyg.SAGEConv((-1, -1), OUT)
        self.lin = pyg.Linear(-1, 3)

    def forward(self, x, edge_index):
        x = self.conv1(x, edge_index).relu()
        return self.lin(self.conv2(x, edge_index))


class AttentionEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GATConv((-1, -1), 4, heads=2, add_self_loops=False)
        self.lin = pyg.Linear(-1, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x, edge_index):
        return self.norm(self.conv(x, edge_index) + self.lin(x)).relu()


class Based(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = pyg.SAGEConv((IN, IN), 8)
        self.conv2 = pyg.GraphConv((8, 8), OUT, aggr="mean")

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


class Layers(nn.Module):
    """The usual model of several `HeteroConv`: no annotations, a comprehension between layers."""

    def __init__(self) -> None:
        super().__init__()
        second = {AB: pyg.SAGEConv((OUT, OUT), OUT), BA: pyg.SAGEConv((OUT, OUT), OUT)}
        self.convs = nn.ModuleList([hetero_conv(), pyg.HeteroConv(second, aggr="mean")])
        self.lin = nn.Linear(OUT, 3)

    def forward(self, x_dict, edge_index_dict):
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
            x_dict = {key: x.relu() for key, x in x_dict.items()}
        return {"a": self.lin(x_dict["a"])}


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin_dict = nn.ModuleDict({kind: pyg.Linear(-1, 8) for kind in METADATA[0]})
        self.convs = nn.ModuleList([pyg.HGTConv(8, 8, METADATA, 2) for _ in range(2)])

    def forward(self, x_dict, edge_index_dict):
        x_dict = {kind: self.lin_dict[kind](x).relu_() for kind, x in x_dict.items()}
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
        return x_dict


class Annotated(nn.Module):
    """Changes the dictionary it gets, and returns one with edge types as keys."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = hetero_conv()

    def forward(
        self, x_dict: Dict[NodeType, Tensor], edge_index_dict: Dict[EdgeType, Tensor]
    ) -> Dict[EdgeType, Tensor]:
        h_dict = self.conv(x_dict, edge_index_dict)
        h_dict["a"] = h_dict["a"] * 2
        for kind in h_dict:
            h_dict[kind] += 1
        return {edge: h_dict[edge[0]][index[0]] for edge, index in edge_index_dict.items()}


class Semantic(nn.Module):
    """Asks for the second result of HANConv, a dictionary as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.HANConv(IN, 8, METADATA, heads=2)

    def forward(self, x_dict, edge_index_dict):
        out, attention = self.conv(x_dict, edge_index_dict, return_semantic_attention_weights=True)
        return out, attention


class Weighted(nn.Module):
    """Gives some edge types weights by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.HeteroConv({AB: pyg.SAGEConv((IN, IN), 4), AA: pyg.GCNConv(IN, 4)})

    def forward(self, x_dict, edge_index_dict):
        weight = edge_index_dict[AA][0].to(torch.float) + 1
        return self.conv(x_dict, edge_index_dict, edge_weight_dict={AA: weight})


class KeysInCode(nn.Module):
    """Was made for no types: its code names those that it reads. Its head is a plain module."""

    def __init__(self) -> None:
        super().__init__()
        self.across, self.within = pyg.SAGEConv((IN, IN), 4), pyg.GCNConv(IN, 4)
        self.head = Pairs()

    def forward(self, x_dict, edge_index_dict):
        h_dict = {"b": self.across((x_dict["a"], x_dict["b"]), edge_index_dict[("a", "to", "b")])}
        h_dict["a"] = self.within(x_dict["a"], edge_index_dict[AA])
        return {"pairs": self.head(h_dict["a"], h_dict["b"], edge_index_dict["a", "to", "b"])}


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 1)

    def forward(self, z_src, z_dst, edge_label_index):
        row, col = edge_label_index
        return self.lin(torch.cat([z_src[row], z_dst[col]], dim=-1)).view(-1)


class MisAnnotated(nn.Module):
    """Annotates the keys of both dictionaries as node types."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = hetero_conv()

    def forward(
        self, x_dict: Dict[NodeType, Tensor], edge_index_dict: Dict[NodeType, Tensor]
    ) -> Dict[NodeType, Tensor]:
        for conv in (self.conv,):
            x_dict = conv(x_dict, edge_index_dict)
            x_dict = self.activated(x_dict)
        return x_dict

    def activated(self, x_dict):
        for kind, x in x_dict.items():
            x_dict[kind] = x.relu()
        return x_dict


class Inside(nn.Module):
    """Takes tensors, and makes the dictionaries itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_a: Tensor, x_b: Tensor, ab: Tensor, ba: Tensor, aa: Tensor) -> Any:
        edge_index_dict = {AB: ab, BA: ba}
        edge_index_dict[AA] = aa
        return self.model({"a": x_a, "b": x_b}, edge_index_dict)


class Joined(Inside):
    def forward(self, x_a: Tensor, x_b: Tensor, ab: Tensor, ba: Tensor, aa: Tensor) -> Any:
        out = self.model({"a": x_a, "b": x_b}, {AB: ab, BA: ba, AA: aa})
        return torch.cat([value.flatten() for value in out.values()])


MODELS = {
    "HeteroConv": hetero_conv,
    "HeteroConv-mean": lambda: hetero_conv("mean"),
    "HeteroConv-min": lambda: hetero_conv("min"),
    "HeteroConv-cat": lambda: hetero_conv("cat"),
    "HeteroConv-none": lambda: hetero_conv(None),
    "HGTConv": lambda: pyg.HGTConv(IN, 8, METADATA, heads=2),
    "HGTConv-channels": lambda: pyg.HGTConv({"a": IN, "b": IN}, 4, METADATA),
    "HANConv": lambda: pyg.HANConv(IN, 8, METADATA, heads=2),
    "HANConv-attention": Semantic,
    "to_hetero": lambda: pyg.to_hetero(Encoder(), METADATA),
    "to_hetero-mean": lambda: pyg.to_hetero(AttentionEncoder(), METADATA, aggr="mean"),
    "to_hetero-model": lambda: pyg.to_hetero(pyg.GraphSAGE((-1, -1), 16, 2, OUT), METADATA),
    "to_hetero_with_bases": lambda: pyg.to_hetero_with_bases(
        Based(), METADATA, num_bases=2, in_channels={"x": IN}
    ),
    "layers": Layers,
    "transformer": Transformer,
    "annotated": Annotated,
    "keys-in-code": KeysInCode,
    "mis-annotated": MisAnnotated,
    "weighted": Weighted,
}


def tensors(g: Graph) -> tuple[Tensor, ...]:
    return g.x, g.x_dst, g.bipartite, g.bipartite.flip(0), g.edge_index


def dictionaries(g: Graph) -> tuple[dict[str, Tensor], dict[EdgeType, Tensor]]:
    x_a, x_b, ab, ba, aa = tensors(g)
    return {"a": x_a, "b": x_b}, {AB: ab, BA: ba, AA: aa}


AT_THE_DOOR = [ModuleCase(name, make, dictionaries, lazy=True) for name, make in MODELS.items()]


def inside(name: str) -> nn.Module:
    several = name in ("HANConv-attention", "to_hetero-model")
    return Inside(MODELS[name]()) if several else Joined(MODELS[name]())


@pytest.mark.usefixtures("auto")
@cases([
    ModuleCase(name, lambda name=name: Named(inside(name)), tensors, lazy=True) for name in MODELS
])  # fmt: skip
def test_inside_a_model(case: ModuleCase, bare: BareProcess) -> None:
    check(case, bare)


class Named(nn.Module):
    """Gives back plain tensors, as TorchScript's outputs name edge types by strings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_a: Tensor, x_b: Tensor, ab: Tensor, ba: Tensor, aa: Tensor) -> Any:
        out = self.model(x_a, x_b, ab, ba, aa)
        if isinstance(out, tuple):
            return [value.sum() for part in out for value in part.values()]
        if isinstance(out, dict):
            return [value.sum() for value in out.values()]
        return out


def spelled(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(spelled(part) for part in value)
    return gnnscript.hetero.to_script(value) if isinstance(value, dict) else value


@pytest.mark.usefixtures("auto")
@cases(AT_THE_DOOR)
def test_at_the_door(case: ModuleCase) -> None:
    torch.manual_seed(0)
    model = case.make().eval()
    model(*dictionaries(GRAPHS[0]))
    scripted = torch.jit.script(model)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for graph in GRAPHS:
        call = dictionaries(graph)
        expected = spelled(model(*call))
        torch.testing.assert_close(scripted(*map(spelled, call)), expected)
        torch.testing.assert_close(loaded(*map(spelled, call)), expected)


@pytest.mark.usefixtures("auto")
def test_examples_say_which_keys_there_are() -> None:
    model = hetero_conv().eval()
    x_dict, edge_index_dict = dictionaries(GRAPHS[0])
    del edge_index_dict[BA]
    scripted = torch.jit.script(model, example_inputs=[(x_dict, edge_index_dict)])
    assert [a.name for a in scripted.forward.schema.arguments[1:]] == ["x_dict", "edge_index_dict"]
    expected = model(x_dict, edge_index_dict)
    torch.testing.assert_close(scripted(x_dict, spelled(edge_index_dict)), expected)


@pytest.mark.usefixtures("auto")
def test_tuple_keys_are_refused_with_the_remedy() -> None:
    scripted = torch.jit.script(hetero_conv())
    with pytest.raises(TypeError, match=r"gnnscript\.hetero\.to_script.*'a__to__b'"):
        scripted(*dictionaries(GRAPHS[0]))


def test_keys_there_and_back() -> None:
    entries = {"a": 1, AB: 2, ("x__y", "to", "b"): 3}
    script = gnnscript.hetero.to_script(entries)
    assert script == {"a": 1, "a__to__b": 2, "x__y__to__b": 3}
    assert gnnscript.hetero.from_script(script) == {"a": 1, AB: 2, "x__y__to__b": 3}
    assert gnnscript.hetero.from_script(script, [AB, ("x__y", "to", "b")]) == entries
    with pytest.raises(ValueError, match="stay apart"):
        gnnscript.hetero.to_script({("a", "b", "c"): 1, "a__b__c": 2})


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lins = pyg.HeteroDictLinear({"a": IN, "b": IN}, OUT)

    def forward(self, x_a: Tensor, x_b: Tensor) -> Any:
        out = self.lins({"a": x_a, "b": x_b})
        return out["a"], out["b"]


TYPED = [
    ModuleCase("HeteroDictLinear", Linears, lambda g: (g.x, g.x_dst)),
    ModuleCase("HeteroLinear", lambda: pyg.HeteroLinear(IN, OUT, 3), lambda g: (
        g.x, (g.x[:, 0] > 0).long())),
    ModuleCase("HeteroLinear-sorted", lambda: pyg.HeteroLinear(IN, OUT, 2, is_sorted=True),
               lambda g: (g.x, g.batch)),
    ModuleCase("HEATConv", lambda: pyg.HEATConv(IN, 8, 2, 3, 4, 3, 4, heads=2),
               lambda g: (g.x, g.edge_index, g.batch, g.kind, g.attr)),
    ModuleCase("HeteroBatchNorm", lambda: pyg.HeteroBatchNorm(IN, 3), lambda g: (g.x, g.batch)),
    ModuleCase("HeteroLayerNorm", lambda: pyg.HeteroLayerNorm(IN, 3), lambda g: (g.x, g.batch)),
]  # fmt: skip


@pytest.mark.usefixtures("auto")
@cases(TYPED)
def test_typed_layers(case: ModuleCase, bare: BareProcess) -> None:
    check(case, bare)

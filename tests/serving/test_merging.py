"""Whether requests run as one is decided by comparing results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GINConv, global_mean_pool

from gnnscript.deploy import DeployError, triton
from gnnscript.deploy.triton_model import InputError, Merge, Model, measure
from serving.served_models import Bipartite, Centred, Edges, Graphs, graph


def plan_of(folder: Path) -> dict | None:
    config = (folder / "config.pbtxt").read_text()
    found = re.search(r'key: "merge" value { string_value: (".*") }', config)
    return None if found is None else json.loads(json.loads(found[1]))


class Types(torch.nn.Module):
    """A vector of integers that counts no graphs: the types of nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(4, 6)
        self.conv = GINConv(torch.nn.Linear(6, 3))

    def forward(self, kind: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.embed(kind), edge_index)


class Pooled(torch.nn.Module):
    """One result for all nodes, with no way to tell graphs apart."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return global_mean_pool(x[edge_index[0]], None)


class Attention(torch.nn.Module):
    """Returns weights of edges and of self loops in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GATConv(5, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.conv(x, edge_index, return_attention_weights=True)
        return out[1][1]


EXAMPLES = [graph(8, 20), graph(6, 11)]


def test_plans(tmp_path: Path) -> None:
    kinds = [(torch.arange(n) % 4, e) for n, (_, e) in zip((8, 6), EXAMPLES, strict=True)]
    assert plan_of(triton(Types(), kinds, tmp_path, "types")) == {
        "inputs": {
            "kind": {"dim": 0, "offset": [None]},
            "edge_index": {"dim": 1, "offset": ["N", "N"]},
        },
        "outputs": [{"dim": 0, "size": "N"}],
    }
    batches = [(*g, torch.arange(g[0].size(0)) // 4) for g in EXAMPLES]
    plan = plan_of(triton(Graphs(), batches, tmp_path, "graphs"))
    assert plan is not None
    assert plan["inputs"]["batch"] == {"dim": 0, "offset": ["max"]}
    assert plan["outputs"] == [{"dim": 0, "size": "max"}]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Centred, "'output_1' of shape [1] cannot be taken apart"),
        (Pooled, "let it take `batch`"),
        (Attention, "'output' of shape [?, 1] cannot be taken apart"),
    ],
)
def test_models_whose_requests_stay_apart(model, reason: str, tmp_path: Path) -> None:
    folder = triton(model(), EXAMPLES, tmp_path, "model")
    assert plan_of(folder) is None
    assert "max_batch_size: 0" in (folder / "config.pbtxt").read_text()
    assert reason in (folder / "README.md").read_text()
    with pytest.raises(DeployError, match="requests cannot be merged"):
        triton(model(), EXAMPLES, tmp_path, "forced", merge=True)
    assert not (tmp_path / "forced").exists()


def test_influence_is_found(tmp_path: Path) -> None:
    class Centre(torch.nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return (x - x.mean(dim=0))[edge_index[0]]

    folder = triton(Centre(), EXAMPLES, tmp_path, "centre")
    assert plan_of(folder) is None
    assert "influence each other" in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """What the server runs, without the server."""
    folder = triton(Edges().eval(), EXAMPLES, tmp_path_factory.mktemp("models"), "edges")
    model = Model(folder / "1" / "model.pt", torch.device("cpu"))
    plan = plan_of(folder)
    assert plan is not None
    model.merge, model.rows = Merge(plan), 1000
    return model


def graphs_of(sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    return [dict(zip(("x", "edge_index"), graph(*size), strict=True)) for size in sizes]


def test_one_wrong_graph_harms_no_other(served: Model) -> None:
    graphs = graphs_of([(5, 9), (3, 3), (0, 0), (7, 30), (4, 0)])
    graphs[1]["edge_index"][0, 0] = 3
    answers = served.run_all(graphs)
    assert isinstance(answers[1], InputError)
    for number in (0, 2, 3, 4):
        (found,) = answers[number]
        torch.testing.assert_close(found, served.run(graphs[number])[0])


def test_where_the_merged_graph_fails_each_runs_alone(
    served: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Merge, *arguments: object) -> None:
        raise RuntimeError("not enough memory")

    graphs = graphs_of([(5, 9), (3, 3)])
    expected = [served.run(one)[0] for one in graphs]
    monkeypatch.setattr(Merge, "join", fail)
    for (found,), want in zip(served.run_all(graphs), expected, strict=True):
        torch.testing.assert_close(found, want)


def test_merged_graphs_stay_below_the_limit_of_rows(served: Model) -> None:
    assert served.merge is not None
    counts = [{"N": 300, "E": 300}, {"N": 10, "E": 200}, {"N": 1, "E": 1000}, {"N": 2, "E": 3}]
    assert served.merge.groups(counts, 1000) == [[0, 1], [2], [3]]
    features = [{"N": 3, "F": width} for width in (5, 6, 5, 6)]
    assert served.merge.groups(features, 1000) == [[0, 2], [1, 3]]


def test_measure() -> None:
    inputs = [
        {"name": "x", "shape": ["N", 5], "index": []},
        {"name": "edge_index", "shape": [2, "E"], "index": ["N", "N"]},
        {"name": "weight", "shape": ["E"], "index": []},
    ]
    x, edge_index = graph(4, 6)
    weight = torch.ones(6)
    assert measure(inputs, {"x": x, "edge_index": edge_index, "weight": weight}) == {
        "N": 4,
        "E": 6,
    }
    with pytest.raises(InputError, match=r"expected 'weight' of shape \[E\], got \[5\], and 'edge"):
        measure(inputs, {"x": x, "edge_index": edge_index, "weight": weight[:5]})
    x[2, 2] = torch.inf
    measure(inputs, {"x": x, "edge_index": edge_index, "weight": weight}, finite=False)
    with pytest.raises(InputError, match=r"first at \[2, 2\]"):
        measure(inputs, {"x": x, "edge_index": edge_index, "weight": weight})


def test_pairs_are_merged(tmp_path: Path) -> None:
    pairs = [
        ((torch.randn(n, 5), torch.randn(m, 5)), torch.randint(min(n, m), (2, e)), torch.rand(e))
        for n, m, e in ((7, 4, 9), (6, 5, 8))
    ]
    folder = triton(Bipartite(), pairs, tmp_path, "bipartite")
    plan = plan_of(folder)
    assert plan is not None
    assert plan["inputs"]["edge_index"]["offset"] == ["N", "N2"]

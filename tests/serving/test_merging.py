"""Whether requests run as one is decided by comparing results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Optional, Tuple

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv, GINConv, global_mean_pool

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
        (Centred, "influence each other"),
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


class Looks(torch.nn.Module):
    """Looks at other nodes than those that edges lead from."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.norm = torch.nn.BatchNorm1d(5, track_running_stats=False)
        self.rnn = torch.nn.GRU(5, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.how == "mean":
            x = x - x.mean(dim=0)
        elif self.how == "hardly":
            x = x - 1e-5 * x.mean(dim=0)
        elif self.how == "seldom":
            x = torch.minimum(x, 0.9 * x.abs().max())
        elif self.how == "large":
            x = x / 2 if x.size(0) > 60 else x
        elif self.how == "statistics":
            x = self.norm(x)
        elif self.how == "before":
            x = x.cumsum(0)
        elif self.how == "sequence":
            x = self.rnn(x)[0]
        elif self.how == "random":
            x = torch.nn.functional.dropout(x, 0.5)
        return x[edge_index[0]] + x[edge_index[1]]


@pytest.mark.parametrize(
    "how", ["mean", "hardly", "seldom", "large", "statistics", "before", "sequence", "random"]
)
def test_influence_is_found(how: str, tmp_path: Path) -> None:
    folder = triton(Looks(how), EXAMPLES, tmp_path, "looks")
    assert plan_of(folder) is None
    assert "influence each other" in (folder / "README.md").read_text()


def test_without_influence_graphs_are_merged(tmp_path: Path) -> None:
    assert plan_of(triton(Looks("not"), EXAMPLES, tmp_path, "looks")) is not None


def test_influence_of_integers_is_found(tmp_path: Path) -> None:
    class Frequency(torch.nn.Module):
        def forward(self, kind: Tensor, edge_index: Tensor) -> Tensor:
            return kind[edge_index[0]] * (kind == 0).float().mean()

    kinds = [(torch.arange(n) % 4, e) for n, (_, e) in zip((8, 6), EXAMPLES, strict=True)]
    folder = triton(Frequency(), kinds, tmp_path, "frequency")
    assert plan_of(folder) is None
    assert "influence each other" in (folder / "README.md").read_text()


class Remembers(torch.nn.Module):
    """Keeps something from call to call."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.conv = GCNConv(5, 5, cached=what == "edges")
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("calls", torch.zeros(1))
        self.first: Optional[Tensor] = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.calls += 1
        if self.what == "mean":
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        elif self.what == "first":
            first = self.first
            if first is None:
                first = x.mean(0)
                self.first = first
            x = x - first
        elif self.what == "calls":
            x = x * self.calls
        return self.conv(x - self.mean, edge_index)


@pytest.mark.parametrize("what", ["edges", "mean", "first", "calls"])
def test_models_that_remember_are_not_served(what: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="'Remembers' remembers earlier calls"):
        triton(Remembers(what), EXAMPLES, tmp_path, "remembers")
    assert not (tmp_path / "remembers").exists()


def test_what_is_only_counted_does_not_matter(tmp_path: Path) -> None:
    assert plan_of(triton(Remembers("nothing"), EXAMPLES, tmp_path, "counts")) is not None


class Reconstruction(torch.nn.Module):
    """Numbers of hits and of tracks in events, settings, and a result that is for no event."""

    def __init__(self) -> None:
        super().__init__()
        self.hits = GCNConv(5, 4)
        self.table = torch.nn.Parameter(torch.ones(2, 3))

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        event: Tensor,
        tracks: Tensor,
        track_event: Tensor,
        cut: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        h = self.hits(x, edge_index) * cut
        events = global_mean_pool(h, event) + global_mean_pool(tracks, track_event)
        number = torch.arange(x.size(0))
        number = number.scatter_reduce(0, edge_index[1], number[edge_index[0]], "amin")
        return events, number.masked_fill(h[:, 0] > 0, -1), self.table * cut[0]


def test_settings_and_numbers_of_nodes(tmp_path: Path) -> None:
    def call(nodes: int, edges: int, events: int, cut: float = 0.5, seed: int = 0):
        number = torch.arange(nodes) * events // nodes
        tracks = torch.randn(2 * events, 4)
        track_event = torch.arange(2 * events) // 2
        setting = torch.tensor([cut, 1.0, 1.0, 1.0])
        return (*graph(nodes, edges, seed), number, tracks, track_event, setting)

    model = Reconstruction().eval()
    folder = triton(model, [call(8, 20, 2), call(9, 11, 3)], tmp_path, "events")
    plan = plan_of(folder)
    assert plan is not None
    assert plan["inputs"]["event"]["offset"] == plan["inputs"]["track_event"]["offset"] == ["max"]
    assert plan["inputs"]["cut"] == {"dim": None, "offset": []}
    assert plan["outputs"] == [
        {"dim": 0, "size": "max"},
        {"dim": 0, "size": "N", "offset": "N"},
        {"dim": None, "size": None},
    ]
    served = Model(folder / "1" / "model.pt", torch.device("cpu"))
    served.merge, served.rows = Merge(plan), 1000
    calls = [call(5, 9, 2), call(7, 8, 1, seed=1), call(4, 9, 3, cut=-1.0), call(9, 9, 4, seed=2)]
    names = [spec["name"] for spec in served.manifest["inputs"]]
    graphs = [dict(zip(names, one, strict=True)) for one in calls]
    for one, found in zip(calls, served.run_all(graphs), strict=True):
        assert isinstance(found, list), found
        torch.testing.assert_close(found, [tensor.detach() for tensor in model(*one)])
    counts = [served.merge.counts(g, served.check(g)) for g in graphs]
    assert served.merge.groups(graphs, counts, 1000) == [[0, 1, 3], [2]]


@pytest.mark.parametrize("name", ["", ".", "..", "-model", "a/b", "a b", ".hidden"])
def test_names_that_are_no_folders_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a name of letters"):
        triton(Edges(), EXAMPLES, tmp_path, name, overwrite=True)
    assert tmp_path.is_dir()


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
    assert served.merge.groups([{}] * 4, counts, 1000) == [[0, 1], [2], [3]]
    features = [{"N": 3, "F": width} for width in (5, 6, 5, 6)]
    assert served.merge.groups([{}] * 4, features, 1000) == [[0, 2], [1, 3]]


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

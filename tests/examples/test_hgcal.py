"""The HGCAL example: reader, generator, graph and EdgeNet."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from hgcal import generator
from hgcal.edgenet import EdgeNet
from hgcal.events import BRANCHES, EventFileError, endcaps, read_graphs, read_hits
from hgcal.generator import generate_hits
from hgcal.graph import (
    CATEGORIES,
    ELECTROMAGNETIC,
    HADRONIC,
    INVALID,
    MIP,
    NEIGHBOURS,
    Cluster,
    Hits,
    build_graph,
    edge_categories,
    neighbour_edges,
    wedges,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch_geometric.data import Data


def assert_simple_and_symmetric(edge_index: np.ndarray, nodes: int) -> None:
    """Sorted, without repetition or self loop, and every edge in both directions."""
    source, target = edge_index
    keys = source * nodes + target
    assert (np.diff(keys) > 0).all()
    assert (source != target).all()
    np.testing.assert_array_equal(np.sort(target * nodes + source), keys)


def make_hits(position: Any, clusters: Any = ()) -> Hits:
    position = np.asarray(position, dtype=np.float32)
    number = len(position)
    return Hits(
        x=position[:, 0],
        y=position[:, 1],
        z=position[:, 2],
        layer=np.arange(1, number + 1),
        time=np.full(number, -1.0, dtype=np.float32),
        energy=np.full(number, 0.5, dtype=np.float32),
        clusters=clusters,
    )


# -- the reader -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_hits(hgcal_file: Path) -> list[Hits]:
    return read_hits(hgcal_file)


@pytest.fixture(scope="module")
def real_graphs(hgcal_file: Path) -> list[Data]:
    return read_graphs(hgcal_file)


def test_real_file_gives_every_hit_once(hgcal_file: Path, real_hits: list[Hits]) -> None:
    raw = uproot.open(hgcal_file)["ana/hgc"].arrays(["rechit_z", "rechit_energy"])
    assert len(real_hits) == 2 * len(raw)
    for event, values in enumerate(raw):
        back, front = real_hits[2 * event : 2 * event + 2]
        assert (back.z < 0).all()
        assert (front.z > 0).all()
        assert len(back) + len(front) == len(values.rechit_z)
        np.testing.assert_array_equal(
            np.sort(np.concatenate([back.energy, front.energy])),
            np.sort(ak.to_numpy(values.rechit_energy)),
        )


def test_real_muons_are_tracks_of_mips(real_hits: list[Hits]) -> None:
    for hits in real_hits:
        (muon,) = hits.clusters
        assert muon.category == MIP
        assert len(np.unique(muon.hits)) == len(muon.hits) > 40
        layers = np.unique(hits.layer[muon.hits])
        assert len(layers) > 35
        # A muon flies straight from the interaction point, up to the magnetic field.
        slope = hits.position[muon.hits, :2] / hits.z[muon.hits, None]
        assert (np.abs(slope - np.median(slope, axis=0)) < 0.02).all()


def test_real_graphs_have_the_published_size_and_form(real_graphs: list[Data]) -> None:
    for graph in real_graphs:
        assert 15_500 < graph.num_nodes < 16_000
        assert 440_000 < graph.num_edges < 500_000
        assert graph.x.shape == (graph.num_nodes, 5)
        assert graph.x.dtype == torch.float32
        assert graph.edge_index.dtype == graph.edge_label.dtype == torch.int64
        assert_simple_and_symmetric(graph.edge_index.numpy(), graph.num_nodes)
        assert graph.edge_index[0].bincount(minlength=graph.num_nodes).min() >= NEIGHBOURS


def test_real_features_are_scaled(hgcal_file: Path, real_graphs: list[Data]) -> None:
    names = ("x", "y", "layer", "time", "energy")
    raw = uproot.open(hgcal_file)["ana/hgc"].arrays([f"rechit_{name}" for name in (*names, "z")])
    values = np.stack([ak.to_numpy(raw[0][f"rechit_{name}"]) for name in names], axis=1)
    expected = values[ak.to_numpy(raw[0].rechit_z) < 0] / [500, 500, 54, 25, 1000]
    np.testing.assert_allclose(real_graphs[0].x.numpy(), expected, rtol=1e-6)


def test_real_edges_are_labelled_by_shared_shower(
    real_hits: list[Hits], real_graphs: list[Data]
) -> None:
    for hits, graph in zip(real_hits, real_graphs, strict=True):
        muon = set(hits.clusters[0].hits.tolist())
        expected = [
            MIP if source in muon and target in muon else INVALID
            for source, target in graph.edge_index.t().tolist()
        ]
        assert graph.edge_label.tolist() == expected
        assert 500 < expected.count(MIP) < 2_000


def test_reader_stops_after_the_given_number_of_events(hgcal_file: Path) -> None:
    assert len(read_hits(hgcal_file, events=1)) == 2


def make_event(**changes: Any) -> Any:
    """Four hits in each endcap, one shower of each kind."""
    event: dict[str, Any] = {
        "rechit_x": [float(number) for number in range(8)],
        "rechit_y": [0.0] * 8,
        "rechit_z": [-320.0, 320.0] * 4,
        "rechit_layer": [1] * 8,
        "rechit_time": [-1.0] * 8,
        "rechit_energy": [0.1] * 8,
        "simcluster_hits_indices": [[0, 2, -1], [1, 3, -1, 3], [4, 5, 6]],
        "simcluster_energy": [30.0, 20.0, 10.0],
        "simcluster_eta": [-2.0, 2.0, 2.5],
        "simcluster_phi": [0.0, 3.1, 1.0],
        "genpart_pid": [-13, 22, -211],
        "genpart_eta": [-2.01, 2.01, 2.4],
        "genpart_phi": [0.1, -3.1, 1.1],  # the photon's lies beyond the jump at pi
    }
    assert set(event) == set(BRANCHES)
    return ak.Array([{**event, **changes}])[0]


def test_showers_take_the_category_of_the_nearest_particle() -> None:
    back, front = endcaps(make_event())
    # From the least to the most energetic, in positions among the hits of the endcap.
    assert [(c.hits.tolist(), c.category) for c in back.clusters] == [
        ([2, 3], HADRONIC),
        ([0, 1], MIP),
    ]
    assert [(c.hits.tolist(), c.category) for c in front.clusters] == [
        ([2], HADRONIC),
        ([0, 1], ELECTROMAGNETIC),
    ]


def test_endcaps_without_hits_are_left_out() -> None:
    (front,) = endcaps(make_event(rechit_z=[320.0] * 8))
    assert len(front) == 8
    assert (
        endcaps(
            make_event(
                **{f"rechit_{field}": [] for field in ("x", "y", "z", "layer", "time", "energy")},
                simcluster_hits_indices=[[-1], [], [-1, -1]],
            )
        )
        == []
    )


def test_event_without_showers_is_noise() -> None:
    for hits in endcaps(
        make_event(
            simcluster_hits_indices=[], simcluster_energy=[], simcluster_eta=[], simcluster_phi=[]
        )
    ):
        assert hits.clusters == []
        assert not build_graph(hits).edge_label.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rechit_y": [0.0] * 7}, r"one value of each rechit branch per hit, got \[7, 8\]"),
        ({"simcluster_hits_indices": [[0], [1], [8]]}, r"to 7, got 8 to 8"),
        ({"simcluster_hits_indices": [[0], [1], [-2]]}, r"to 7, got -2 to -2"),
        ({"simcluster_energy": [1.0]}, r"hits for each of 1 simclusters, got 3"),
        ({"genpart_pid": []}, r"generated particles for 3 simclusters, got none"),
        ({"rechit_time": [float("nan")] * 8}, r"'time' holds NaN"),
    ],
)
def test_events_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        endcaps(make_event(**changes))


def test_files_that_are_no_ntuples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.root: no such file"):
        read_hits(tmp_path / "absent.root")

    text = tmp_path / "text.root"
    text.write_text("not a ROOT file", encoding="utf-8")
    with pytest.raises(EventFileError, match=r"text\.root: expected a ROOT file"):
        read_hits(text)

    other = tmp_path / "other.root"
    with uproot.recreate(other) as file:
        file.mktree("events", {"x": "float32"})
    with pytest.raises(EventFileError, match=r"expected the tree 'ana/hgc', got events"):
        read_hits(other)

    partial = tmp_path / "partial.root"
    with uproot.recreate(partial) as file:
        file.mktree("ana/hgc", {name: "float32" for name in BRANCHES if name != "rechit_z"})
    with pytest.raises(EventFileError, match=r"the tree 'ana/hgc' lacks rechit_z$"):
        read_hits(partial)

    empty = tmp_path / "empty.root"
    with uproot.recreate(empty) as file:
        file.mktree("ana/hgc", dict.fromkeys(BRANCHES, "float32"))
    with pytest.raises(EventFileError, match=r"at least one event with hits, got none"):
        read_hits(empty)


# -- the generator --------------------------------------------------------------------------------


def test_same_seed_gives_same_hits() -> None:
    first, again, other = (generate_hits(seed) for seed in (3, 3, 4))
    for field in ("x", "y", "z", "layer", "time", "energy"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert [c.hits.tolist() for c in first.clusters] == [c.hits.tolist() for c in again.clusters]
    assert len(first) != len(other) or (first.energy != other.energy).any()


@pytest.mark.parametrize("endcap", [-1, 1])
def test_generated_hits_lie_in_cells_of_known_layers(endcap: int) -> None:
    hits = generate_hits(0, endcap=endcap)
    assert hits.layer.min() >= 1
    assert hits.layer.max() <= 52
    np.testing.assert_allclose(hits.z, endcap * generator.LAYER_Z[hits.layer - 1], rtol=1e-6)
    address = np.stack([hits.layer, hits.x, hits.y], axis=1)
    assert len(np.unique(address, axis=0)) == len(hits)
    assert (hits.energy > generator.THRESHOLD[hits.layer - 1].astype(np.float32)).all()
    timed = hits.time > 0
    np.testing.assert_array_equal(timed, hits.energy > generator.TIMED_ABOVE)
    assert np.abs(hits.time[timed] - 5).max() < 0.5
    assert (hits.time[~timed] == -1).all()


def test_generated_endcap_resembles_a_real_one() -> None:
    hits = generate_hits(0)
    assert sorted(cluster.category for cluster in hits.clusters) == [1, 1, 2, 2, 3, 3]
    graph = build_graph(hits)
    assert 15_000 < graph.num_nodes < 16_500
    assert 440_000 < graph.num_edges < 500_000
    assert set(graph.edge_label.tolist()) == set(range(len(CATEGORIES)))
    assert graph.edge_label.ne(INVALID).float().mean() < 0.2


def test_layers_are_where_the_real_ones_are(real_hits: list[Hits]) -> None:
    for hits in real_hits:
        # The last layers hold scintillators a few millimetres off the silicon.
        np.testing.assert_allclose(np.abs(hits.z), generator.LAYER_Z[hits.layer - 1], atol=0.6)


def test_muon_leaves_one_hit_in_each_layer_of_a_straight_line() -> None:
    hits = generate_hits(1, muons=1, photons=0, pions=0, noise=0)
    np.testing.assert_array_equal(hits.layer, np.arange(1, 53))
    slope = hits.position[:, :2] / hits.z[:, None]
    expected = slope.mean(axis=0) * hits.z[:, None]
    assert np.abs(hits.position[:, :2] - expected).max() <= generator.CELL
    assert hits.clusters[0].category == MIP
    np.testing.assert_array_equal(hits.clusters[0].hits, np.arange(52))


def shower(seed: int, kind: str, energy: float) -> tuple[Hits, float, float]:
    """One shower's hits, energy-weighted mean layer, and mean squared distance from its axis."""
    counts = {"muons": 0, "photons": 0, "pions": 0, "noise": 0, kind: 1}
    hits = generate_hits(seed, energy=(energy, energy), **counts)
    slope = hits.position[:, :2] / hits.z[:, None]
    axis = np.average(slope, axis=0, weights=hits.energy)
    radius = np.hypot(*(hits.position[:, :2] - axis * hits.z[:, None]).T)
    within = hits.energy[radius < generator.MOLIERE_RADIUS].sum() / hits.energy.sum()
    return hits, float(np.average(hits.layer, weights=hits.energy)), float(within)


def test_photons_shower_as_the_gamma_profile_says() -> None:
    energy = 50.0
    found = [shower(seed, "photons", energy) for seed in range(8)]
    # Mean depth a / b with (a - 1) / b = ln(E / E_c) + 1/2 and b = 1/2; layers are slanted by 3%.
    depth = np.log(energy / generator.CRITICAL_ENERGY) + 0.5 + 2
    layer = depth / generator.RADIATION_LENGTHS[0] / 1.03
    assert np.mean([mean for _, mean, _ in found]) == pytest.approx(layer, rel=0.1)
    # 90% by construction; the cells blur it.
    assert np.mean([within for *_, within in found]) == pytest.approx(0.9, abs=0.05)
    for hits, *_ in found:
        assert [cluster.category for cluster in hits.clusters] == [ELECTROMAGNETIC]
        assert hits.energy.sum() == pytest.approx(energy, rel=0.1)
        assert (hits.layer <= 28).mean() > 0.95


def test_pions_shower_deeper_and_wider_than_photons() -> None:
    pions = [shower(seed, "pions", 50.0) for seed in range(8)]
    photons = [shower(seed, "photons", 50.0) for seed in range(8)]
    assert np.mean([p[1] for p in pions]) > 1.5 * np.mean([p[1] for p in photons])
    assert np.mean([p[2] for p in pions]) < 0.6 * np.mean([p[2] for p in photons])
    for hits, *_ in pions:
        assert [cluster.category for cluster in hits.clusters] == [HADRONIC]


def test_noise_is_uniform_and_belongs_to_nobody() -> None:
    hits = generate_hits(2, muons=0, photons=0, pions=0, noise=20_000)
    assert hits.clusters == []
    radius = np.hypot(hits.x, hits.y)
    low, high = generator.SILICON_RADIUS
    assert radius.min() > low - generator.CELL
    assert radius.max() < high + generator.CELL
    assert np.mean(radius**2) == pytest.approx((low**2 + high**2) / 2, rel=0.02)
    counts = np.bincount(hits.layer)[1:]
    assert len(counts) == generator.NOISY_LAYERS
    assert counts.min() > 0.8 * counts.mean()


@pytest.mark.parametrize(
    "arguments",
    [{"muons": -1}, {"noise": -1}, {"energy": (0.0, 5.0)}, {"energy": (9.0, 5.0)}, {"endcap": 0}],
)
def test_generator_refuses_what_is_no_event(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"generator: expected .*{next(iter(arguments))[:6]}"):
        generate_hits(0, **arguments)


# -- the graph ------------------------------------------------------------------------------------

# Few values, so that many points coincide or lie equally far.
POSITIONS = st.integers(1, 24).flatmap(
    lambda number: arrays(np.float32, (number, 3), elements=st.sampled_from([0.0, 1.0, 2.5, 7.0]))
)


@given(POSITIONS, st.integers(1, 30))
def test_neighbours_are_the_nearest(position: np.ndarray, neighbours: int) -> None:
    number = len(position)
    edges = neighbour_edges(position, neighbours)
    assert_simple_and_symmetric(edges, number)
    wanted = min(neighbours, number - 1)
    adjacent = np.zeros((number, number), dtype=bool)
    adjacent[edges[0], edges[1]] = True
    assert (adjacent.sum(axis=1) >= wanted).all()
    if wanted == 0:
        return
    distance = np.linalg.norm(position[:, None].astype(float) - position[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    reach = np.sort(distance, axis=1)[:, wanted - 1]
    nearer = distance < reach[:, None]
    assert adjacent[nearer | nearer.T].all()
    in_reach = distance <= np.maximum(reach[:, None], reach[None])
    assert in_reach[adjacent].all()


def test_graph_without_ties_joins_exactly_the_union_of_neighbourhoods() -> None:
    position = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    distance = torch.cdist(torch.from_numpy(position).double(), torch.from_numpy(position).double())
    nearest = distance.fill_diagonal_(torch.inf).topk(NEIGHBOURS, largest=False).indices
    expected = {
        pair
        for source, targets in enumerate(nearest.tolist())
        for target in targets
        for pair in ((source, target), (target, source))
    }
    edges = build_graph(make_hits(position)).edge_index
    assert {tuple(pair) for pair in edges.t().tolist()} == expected


def test_later_clusters_label_edges_in_two() -> None:
    edges = np.array([[0, 1, 2, 0], [1, 2, 0, 3]])
    clusters = [Cluster(np.array([0, 1, 2]), HADRONIC), Cluster(np.array([0, 1]), MIP)]
    assert edge_categories(edges, clusters, 4).tolist() == [MIP, HADRONIC, HADRONIC, INVALID]


def test_one_hit_has_no_edges() -> None:
    graph = build_graph(make_hits([[1.0, 2.0, 3.0]]))
    assert graph.edge_index.shape == (2, 0)
    assert graph.edge_index.dtype == torch.int64
    assert graph.edge_label.shape == (0,)


def test_graph_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="at least one hit, got none"):
        build_graph(make_hits(np.zeros((0, 3))))
    with pytest.raises(ValueError, match="at least one neighbour, got 0"):
        build_graph(make_hits(np.zeros((3, 3))), neighbours=0)


def test_hits_refuse_what_does_not_fit() -> None:
    good = make_hits(np.zeros((3, 3)))
    fields = {name: getattr(good, name) for name in ("x", "y", "z", "layer", "time", "energy")}
    with pytest.raises(ValueError, match=r"'energy' of shape \(3,\) like 'x', got \(2,\)"):
        Hits(**{**fields, "energy": good.energy[:2]})
    with pytest.raises(ValueError, match="'z' holds NaN or infinity"):
        Hits(**{**fields, "z": good.z + np.float32("inf")})
    with pytest.raises(ValueError, match="cluster 0 names hits 1 to 3, expected 0 to 2"):
        Hits(**fields, clusters=[Cluster(np.array([1, 3]), MIP)])
    with pytest.raises(ValueError, match="cluster 0 has category 0, expected 1, 2 or 3"):
        Hits(**fields, clusters=[Cluster(np.array([1]), INVALID)])


def test_wedges_share_out_the_nodes() -> None:
    graph = build_graph(generate_hits(0, noise=500))
    parts = wedges(graph, 5)
    positions = torch.cat([part.pos for part in parts])
    assert len(positions) == graph.num_nodes
    assert torch.equal(positions.unique(dim=0), graph.pos.unique(dim=0))
    for part in parts:
        assert abs(part.num_nodes - graph.num_nodes / 5) < 1
        assert len(part.edge_label) == part.num_edges > 0
        assert_simple_and_symmetric(part.edge_index.numpy(), part.num_nodes)
        azimuth = torch.atan2(part.pos[:, 1], part.pos[:, 0])
        assert azimuth.max() - azimuth.min() < torch.pi
    # Each edge keeps its label: the pair of positions names it.
    labels = {
        (*ends, label)
        for ends, label in zip(
            graph.pos[graph.edge_index].transpose(0, 1).flatten(1).tolist(),
            graph.edge_label.tolist(),
            strict=True,
        )
        for ends in [tuple(ends)]
    }
    for part in parts:
        ends = part.pos[part.edge_index].transpose(0, 1).flatten(1).tolist()
        assert {(*e, label) for e, label in zip(ends, part.edge_label.tolist(), strict=True)} <= (
            labels
        )


@pytest.mark.parametrize("count", [0, 4])
def test_wedges_refuse_impossible_counts(count: int) -> None:
    graph = build_graph(make_hits(np.eye(3)))
    with pytest.raises(ValueError, match=f"a count from 1 to 3, got {count}"):
        wedges(graph, count)


# -- EdgeNet --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_graph() -> Data:
    return build_graph(generate_hits(0, noise=200, photons=1, pions=0, muons=1))


def test_edgenet_has_the_published_form() -> None:
    model = EdgeNet()
    assert len(model.convs) == 6
    for conv in model.convs:
        assert conv.nn[0].in_features == 2 * (64 + 5)
        assert conv.nn[-2].out_features == 64
    assert model.classifier[0].in_features == 2 * (64 + 5)
    assert model.classifier[-1].out_features == len(CATEGORIES)


def test_edgenet_gives_four_logits_per_edge(small_graph: Data) -> None:
    model = EdgeNet()
    output = model(small_graph.x, small_graph.edge_index)
    assert output.shape == (small_graph.num_edges, 4)
    assert output.dtype == torch.float32
    output.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert model(small_graph.x, small_graph.edge_index[:, :0]).shape == (0, 4)


def test_edgenet_follows_the_order_of_edges(small_graph: Data) -> None:
    model = EdgeNet()
    order = torch.randperm(small_graph.num_edges)
    with torch.no_grad():
        output = model(small_graph.x, small_graph.edge_index)
        shuffled = model(small_graph.x, small_graph.edge_index[:, order])
    torch.testing.assert_close(shuffled, output[order])


@pytest.mark.parametrize("name", ["gat.py", "hgcal/edgenet.py"])
def test_models_know_nothing_of_gnnscript(examples: Path, name: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse((examples / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert {module.split(".")[0] for module in imported} <= {"torch", "torch_geometric"}

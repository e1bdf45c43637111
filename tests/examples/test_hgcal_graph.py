"""The graph of the HGCAL example, of real and of made-up hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch_geometric.data import Data

from hgcal.generator import generate_hits
from hgcal.graph import (
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


# -- of real events --------------------------------------------------------------------------------


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


# -- of any hits -----------------------------------------------------------------------------------

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

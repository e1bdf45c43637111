"""Clusters from edges, and the measures of their quality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgcal.clusters import (
    confusion,
    efficiency_and_purity,
    find_clusters,
    match_clusters,
    quality_table,
)


def logits(accepted: list[bool]) -> np.ndarray:
    return np.array([[0.0, float(a), -1.0, -1.0] for a in accepted], dtype=np.float32) - 0.5


def test_clusters_are_connected_components_of_accepted_edges() -> None:
    edge_index = np.array([[0, 1, 3, 5, 6, 7], [1, 0, 4, 6, 7, 2]])
    accepted = logits([True, True, True, True, True, False])
    # Hits 5, 6, 7 are three; 0, 1 and 3, 4 two each, in the order of their first hits; 2 has none.
    assert find_clusters(accepted, edge_index, 8).tolist() == [1, 1, -1, 2, 2, 0, 0, 0]


@pytest.mark.parametrize("hits", [0, 3])
def test_without_accepted_edges_there_are_no_clusters(hits: int) -> None:
    none = np.zeros((2, 0), dtype=np.int64)
    assert find_clusters(np.zeros((0, 4), dtype=np.float32), none, hits).tolist() == [-1] * hits


@given(edges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=20))
def test_two_hits_share_a_cluster_exactly_if_a_path_joins_them(edges) -> None:
    edge_index = np.array([(a, b) for a, b, _ in edges], dtype=np.int64).reshape(-1, 2).T
    found = find_clusters(logits([keep for *_, keep in edges]).reshape(-1, 4), edge_index, 10)
    reach = np.eye(10, dtype=bool)
    for a, b, keep in edges:
        reach[a, b] |= keep
        reach[b, a] |= keep
    for _ in range(4):
        reach = reach @ reach
    touched = {hit for a, b, keep in edges if keep for hit in (a, b)}
    assert {hit for hit in range(10) if found[hit] >= 0} == touched
    for a in touched:
        for b in touched:
            assert (found[a] == found[b]) == reach[a, b]


def test_confusion_efficiency_and_purity() -> None:
    table = confusion(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0]), 3)
    assert table.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    efficiency, purity = efficiency_and_purity(table)
    np.testing.assert_allclose(efficiency, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(purity, [2 / 3, 1 / 2, np.nan])
    lines = quality_table(table, ("noise", "photon", "muon")).split("\n")
    assert len(lines) == 4
    assert lines[1].split() == ["noise", "2", "1", "0", "66.7%", "66.7%"]
    assert lines[3].split() == ["muon", "0", "0", "0", "-", "-"]


def test_matching_needs_most_hits_of_both_clusters() -> None:
    true = np.repeat([0, 1, 2, -1], [10, 10, 10, 12])
    found = np.full(42, -1)
    found[:8] = 0  # eight of ten hits of cluster 0
    found[10:15] = 1  # half of cluster 1, which is not most of it
    found[20:30] = 2  # all of cluster 2, but
    found[15:20] = 2  # with five of another, still mostly cluster 2
    found[30:40] = 3  # noise alone
    matches = match_clusters(true, found)
    assert (matches.true, matches.found, matches.fakes) == (3, 2, 1)
    merged = np.where(true >= 0, 0, -1)  # all three in one: none is most of it
    assert match_clusters(true, merged).found == 0

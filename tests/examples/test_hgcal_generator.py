"""The shower generator of the HGCAL example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hgcal import generator
from hgcal.generator import generate_hits
from hgcal.graph import (
    CATEGORIES,
    ELECTROMAGNETIC,
    HADRONIC,
    INVALID,
    MIP,
    Hits,
    build_graph,
)


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

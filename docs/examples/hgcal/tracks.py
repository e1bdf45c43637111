"""Generates hits of charged particles in a barrel tracker, and the graph `TrackNet` sees of them.

Particles from the interaction point move on helices in a solenoid's field of 3.8 T: in the
transverse plane a circle of radius pT / (0.3 B). They leave one hit in each of ten cylindrical
layers, smeared by the resolution of the sensors; noise hits are added. As in the published
interaction networks for tracking, hits of neighbouring layers are joined where a particle that is
hard enough could have made both.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

RADII = np.array([0.03, 0.07, 0.11, 0.16, 0.25, 0.34, 0.43, 0.52, 0.61, 0.70])
"""float64 [10]: layers, in m."""

FIELD = 3.8  # T
LENGTH = 1.0  # m, half of the barrel
RESOLUTION = (2e-5, 1e-4)  # m, along the circle and along the beam
MAX_SLOPE = 3.0  # rad/m, of phi over r: what a particle of about 0.2 GeV shows


def generate_tracks(
    seed: int, particles: int = 120, noise: float = 0.1, least_momentum: float = 0.5
) -> Data:
    """Generates one event as a graph.

    Args:
        seed: Fixes the event.
        particles: How many particles there are.
        noise: Noise hits for each true hit.
        least_momentum: Least transverse momentum, in GeV.

    Returns:
        A graph with `x` float32 [N, 3] (r in m, phi in units of pi, z in m), `edge_index` int64
        [2, E] (from the inner to the outer hit), `edge_attr` float32 [E, 4] (differences of r, phi
        in units of pi and z, and of the direction in r and z), `edge_label` float32 [E] (1 where
        both ends are of one particle) and `particle` int64 [N] (-1 for noise).
    """
    rng = np.random.default_rng(seed)
    momentum = least_momentum * (1 - rng.random(particles)) ** -0.5  # a falling spectrum, GeV
    curvature = rng.choice([-1, 1], particles) * 0.3 * FIELD / momentum  # 1/m
    direction = rng.uniform(-np.pi, np.pi, particles)
    slope = np.sinh(rng.uniform(-1.0, 1.0, particles))  # dz/dr of pseudorapidities up to 1

    turn = np.arcsin(np.clip(RADII[:, None] * curvature / 2, -1, 1))
    phi = direction + turn + rng.normal(0, RESOLUTION[0], turn.shape) / RADII[:, None]
    z = slope * 2 * turn / curvature + rng.normal(0, RESOLUTION[1], turn.shape)
    layer, particle = np.indices(phi.shape)
    seen = (np.abs(z) < LENGTH) & (np.abs(RADII[:, None] * curvature) < 2)
    layer, particle, phi, z = layer[seen], particle[seen], phi[seen], z[seen]

    fakes = int(noise * len(layer))
    layer = np.concatenate([layer, rng.integers(0, len(RADII), fakes)])
    particle = np.concatenate([particle, np.full(fakes, -1)])
    phi = np.concatenate([phi, rng.uniform(-np.pi, np.pi, fakes)])
    z = np.concatenate([z, rng.uniform(-LENGTH, LENGTH, fakes)])
    return _graph(layer, _wrap(phi), z, particle)


def _graph(
    layer: NDArray[np.int64],
    phi: NDArray[np.float64],
    z: NDArray[np.float64],
    particle: NDArray[np.int64],
) -> Data:
    r = RADII[layer]
    found = []
    for inner in range(len(RADII) - 1):
        below, above = np.flatnonzero(layer == inner), np.flatnonzero(layer == inner + 1)
        source, target = (side.ravel() for side in np.meshgrid(below, above, indexing="ij"))
        step = r[target] - r[source]
        origin = z[source] - r[source] * (z[target] - z[source]) / step
        near = (np.abs(_wrap(phi[target] - phi[source])) < MAX_SLOPE * step) & (
            np.abs(origin) < 0.1  # points to where the beams meet
        )
        found.append(np.stack([source[near], target[near]]))
    edges = np.concatenate(found, axis=1)
    source, target = edges
    dr, dphi, dz = r[target] - r[source], _wrap(phi[target] - phi[source]), z[target] - z[source]
    same = (particle[source] == particle[target]) & (particle[source] >= 0)
    features = [dr, dphi / np.pi, dz, np.hypot(dphi, dz / dr)]
    return Data(
        x=torch.from_numpy(np.stack([r, phi / np.pi, z], axis=1).astype(np.float32)),
        edge_index=torch.from_numpy(edges),
        edge_attr=torch.from_numpy(np.stack(features, axis=1).astype(np.float32)),
        edge_label=torch.from_numpy(same.astype(np.float32)),
        particle=torch.from_numpy(particle),
    )


def _wrap(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return (angle + np.pi) % (2 * np.pi) - np.pi

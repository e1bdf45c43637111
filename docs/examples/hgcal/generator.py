"""Generates HGCAL-like events where no real ones are at hand.

A parametric toy, not a simulation: it has the right number of hits, layers at the right places,
and showers of the right shape, so that a model meets graphs like the real ones.

- A **muon** is a minimum-ionising particle (MIP): a straight track from the interaction point,
  one hit per layer, with Landau-like energies.
- A **photon** showers at once: depth, in radiation lengths, follows the gamma distribution with
  its maximum at ln(E / critical energy) + 1/2; 90% of the energy lie within the Moliere radius.
- A **pion** is a MIP until its first nuclear interaction, exponential in interaction lengths;
  behind it, depth follows a gamma distribution with its maximum at 0.2 ln(E / GeV) + 0.7
  interaction lengths, which falls off over E^0.13; 95% lie within one interaction length
  sideways.
- **Noise** falls uniformly on the silicon of the front layers, just above threshold.

The formulas are those of the Particle Data Group's review, "Passage of particles through matter",
and of Fabjan and Ludlam, "Calorimetry in high-energy physics" (1982). The magnetic field, light
yield and cracks are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgcal.graph import ELECTROMAGNETIC, HADRONIC, MIP, Cluster, Hits

Array = NDArray[np.float64]


def _section(em: float, fine: float, coarse: float) -> Array:
    """One value per layer: 28 electromagnetic, 12 fine and 12 coarse hadronic layers."""
    return np.repeat([em, fine, coarse], [28, 12, 12])


# Absorbers alternate between thin and thick in the electromagnetic section.
_GAPS = np.concatenate([np.resize([0.90, 1.54], 27), [5.27], np.full(11, 4.96), np.full(12, 8.39)])
LAYER_Z = 319.8 + np.concatenate([[0.0], np.cumsum(_GAPS)])
"""float64 [52]: distance of the layers from the interaction point in cm."""

RADIATION_LENGTHS = _section(0.92, 2.6, 4.6)
INTERACTION_LENGTHS = _section(0.047, 0.30, 0.46)
"""float64 [52] each: absorber in front of the layers."""

MIP_ENERGY = _section(0.010, 0.050, 0.060)
"""float64 [52]: the most probable energy a MIP is seen with, in GeV."""

THRESHOLD = 0.35 * MIP_ENERGY
"""float64 [52]: smaller hits are not read out, in GeV."""

CELL = 1.0  # cm, edge of a square cell
SILICON_RADIUS = (35.0, 75.0)  # cm
NOISY_LAYERS = 32

CRITICAL_ENERGY = 0.010  # GeV
MOLIERE_RADIUS = 2.8  # cm
INTERACTION_LENGTH = 17.0  # cm, sideways
SPOTS_PER_GEV = {ELECTROMAGNETIC: 25.0, HADRONIC: 10.0}  # few spots: large fluctuations

TIMED_ABOVE = 0.10  # GeV
ARRIVAL = (5.0, 0.05)  # ns, mean and spread, the time of flight subtracted


@dataclass(frozen=True)
class Deposits:
    """Energy one particle, or the noise, leaves in the layers.

    Attributes:
        x, y: float64 [K], position in cm.
        layer: int64 [K], from 0.
        energy: float64 [K], in GeV.
        category: What the particle is, or None for noise.
    """

    x: Array
    y: Array
    layer: NDArray[np.int64]
    energy: Array
    category: int | None


def generate_hits(
    seed: int,
    *,
    muons: int = 2,
    photons: int = 2,
    pions: int = 2,
    noise: int = 14_500,
    energy: tuple[float, float] = (20.0, 60.0),
    endcap: int = 1,
) -> Hits:
    """Generates one endcap of one event.

    Args:
        seed: The same seed gives the same hits.
        muons: Number of MIP tracks.
        photons: Number of electromagnetic showers.
        pions: Number of hadronic showers.
        noise: Number of noise deposits; a few of them share a cell.
        energy: Least and largest energy of a photon or pion in GeV.
        endcap: 1 for z > 0, -1 for z < 0.

    Returns:
        The hits, each a cell with energy above threshold. A hit belongs to the particle that
        left most of its energy, or to none where noise did. The defaults give about as many
        hits as a real endcap has.

    Raises:
        ValueError: If a number is negative, the energies are not 0 < least <= largest, or the
            endcap is neither 1 nor -1.
    """
    counts = {"muons": muons, "photons": photons, "pions": pions, "noise": noise}
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"generator: expected {name} >= 0, got {count}")
    if not 0 < energy[0] <= energy[1]:
        raise ValueError(f"generator: expected 0 < least energy <= largest, got {energy}")
    if endcap not in (-1, 1):
        raise ValueError(f"generator: expected endcap 1 or -1, got {endcap}")
    rng = np.random.default_rng(seed)
    deposits = [_noise(rng, noise)]
    deposits += [_muon(rng) for _ in range(muons)]
    deposits += [_photon(rng, rng.uniform(*energy)) for _ in range(photons)]
    deposits += [_pion(rng, rng.uniform(*energy)) for _ in range(pions)]
    return _read_out(rng, deposits, endcap)


def generate_shower(seed: int, energy: float, category: int = ELECTROMAGNETIC) -> Hits:
    """Generates one shower and nothing else.

    Args:
        seed: The same seed gives the same hits.
        energy: Energy of the particle in GeV.
        category: `ELECTROMAGNETIC` for a photon, `HADRONIC` for a pion.

    Returns:
        Its hits, above threshold.

    Raises:
        ValueError: If the energy is not positive or the category another.
    """
    if energy <= 0:
        raise ValueError(f"generator: expected energy > 0, got {energy}")
    if category not in (ELECTROMAGNETIC, HADRONIC):
        raise ValueError(f"generator: expected category 1 or 2, got {category}")
    rng = np.random.default_rng(seed)
    shower = _photon(rng, energy) if category == ELECTROMAGNETIC else _pion(rng, energy)
    return _read_out(rng, [shower], endcap=1)


def _muon(rng: np.random.Generator) -> Deposits:
    slope = _direction(rng)
    return _track(rng, slope, layers=len(LAYER_Z), category=MIP)


def _photon(rng: np.random.Generator, energy: float) -> Deposits:
    maximum = np.log(energy / CRITICAL_ENERGY) + 0.5
    rate = 0.5
    spots = rng.poisson(SPOTS_PER_GEV[ELECTROMAGNETIC] * energy)
    depth = rng.gamma(1 + rate * maximum, 1 / rate, spots)
    return _shower(
        rng,
        _direction(rng),
        energy / max(spots, 1),
        depth,
        RADIATION_LENGTHS,
        core=MOLIERE_RADIUS / 3,  # puts 90% within the Moliere radius, see _shower
        category=ELECTROMAGNETIC,
    )


def _pion(rng: np.random.Generator, energy: float) -> Deposits:
    slope = _direction(rng)
    start = rng.exponential()
    maximum = 0.2 * np.log(energy) + 0.7
    fall = energy**0.13
    spots = rng.poisson(SPOTS_PER_GEV[HADRONIC] * energy)
    depth = start + rng.gamma(1 + maximum / fall, fall, spots)
    shower = _shower(
        rng,
        slope,
        energy / max(spots, 1),
        depth,
        INTERACTION_LENGTHS,
        core=INTERACTION_LENGTH / np.sqrt(19),  # puts 95% within one interaction length
        category=HADRONIC,
    )
    before = int(np.searchsorted(_layer_depth(slope, INTERACTION_LENGTHS), start))
    track = _track(rng, slope, before, HADRONIC)
    return Deposits(
        np.concatenate([track.x, shower.x]),
        np.concatenate([track.y, shower.y]),
        np.concatenate([track.layer, shower.layer]),
        np.concatenate([track.energy, shower.energy]),
        HADRONIC,
    )


def _noise(rng: np.random.Generator, count: int) -> Deposits:
    # Uniform per area: the square of the radius is uniform.
    radius = np.sqrt(rng.uniform(SILICON_RADIUS[0] ** 2, SILICON_RADIUS[1] ** 2, count))
    azimuth = rng.uniform(-np.pi, np.pi, count)
    layer = rng.integers(NOISY_LAYERS, size=count)
    energy = THRESHOLD[layer] + 0.08 * MIP_ENERGY[layer] * rng.exponential(size=count)
    return Deposits(radius * np.cos(azimuth), radius * np.sin(azimuth), layer, energy, None)


def _direction(rng: np.random.Generator) -> Array:
    """float64 [2]: dx/dz and dy/dz of a line from the interaction point through the endcap."""
    pseudorapidity = rng.uniform(2.0, 2.6)
    azimuth = rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(azimuth), np.sin(azimuth)]) / np.sinh(pseudorapidity)


def _layer_depth(slope: Array, thickness: Array) -> Array:
    """float64 [52]: absorber on the slanted way to each layer."""
    return np.cumsum(thickness) * np.hypot(1.0, np.hypot(*slope))


def _track(rng: np.random.Generator, slope: Array, layers: int, category: int) -> Deposits:
    layer = np.arange(layers)
    # -ln(z^2) of a normal z follows the Moyal distribution, which is close to Landau's.
    landau = -np.log(rng.standard_normal(layers) ** 2)
    energy = MIP_ENERGY[:layers] * np.maximum(1 + 0.15 * landau, 0.5)
    return Deposits(
        slope[0] * LAYER_Z[:layers], slope[1] * LAYER_Z[:layers], layer, energy, category
    )


def _shower(
    rng: np.random.Generator,
    slope: Array,
    spot_energy: float,
    depth: Array,
    thickness: Array,
    core: float,
    category: int,
) -> Deposits:
    layer = np.searchsorted(_layer_depth(slope, thickness), depth)
    layer = layer[layer < len(LAYER_Z)]  # the rest leaks out at the back
    # Density 2 r c^2 / (r^2 + c^2)^2: a fraction u of the energy lies within c sqrt(u / (1 - u)).
    fraction = rng.uniform(size=len(layer))
    radius = core * np.sqrt(fraction / (1 - fraction))
    azimuth = rng.uniform(-np.pi, np.pi, len(layer))
    return Deposits(
        slope[0] * LAYER_Z[layer] + radius * np.cos(azimuth),
        slope[1] * LAYER_Z[layer] + radius * np.sin(azimuth),
        layer,
        np.full(len(layer), spot_energy),
        category,
    )


def _read_out(rng: np.random.Generator, deposits: list[Deposits], endcap: int) -> Hits:
    """Sums the deposits in each cell, and keeps the cells above threshold."""
    x = np.concatenate([deposit.x for deposit in deposits])
    y = np.concatenate([deposit.y for deposit in deposits])
    layer = np.concatenate([deposit.layer for deposit in deposits])
    owner = np.repeat(np.arange(len(deposits)), [len(deposit.x) for deposit in deposits])
    energy = np.concatenate([deposit.energy for deposit in deposits])

    address = np.stack([layer, np.rint(x / CELL), np.rint(y / CELL)], axis=1).astype(np.int64)
    cells, cell = np.unique(address, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    shares = np.zeros((len(cells), len(deposits)))
    np.add.at(shares, (cell, owner), energy)
    total = shares.sum(axis=1)
    seen = total > THRESHOLD[cells[:, 0]]
    cells, shares, total = cells[seen], shares[seen], total[seen]

    mean, spread = ARRIVAL
    time = np.where(total > TIMED_ABOVE, rng.normal(mean, spread, len(total)), -1.0)
    main = shares.argmax(axis=1)
    return Hits(
        x=(cells[:, 1] * CELL).astype(np.float32),
        y=(cells[:, 2] * CELL).astype(np.float32),
        z=(endcap * LAYER_Z[cells[:, 0]]).astype(np.float32),
        layer=cells[:, 0] + 1,
        time=time.astype(np.float32),
        energy=total.astype(np.float32),
        clusters=[
            Cluster(np.flatnonzero(main == number), deposit.category)
            for number, deposit in enumerate(deposits)
            if deposit.category is not None and (main == number).any()
        ],
    )

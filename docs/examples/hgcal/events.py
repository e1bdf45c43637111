"""Reads real HGCAL events: CMS ntuples with a tree 'ana/hgc', by uproot and awkward."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray
from torch_geometric.data import Data

from hgcal.graph import ELECTROMAGNETIC, HADRONIC, MIP, Cluster, Hits, build_graph

TREE = "ana/hgc"
HIT_FIELDS = ("x", "y", "z", "layer", "time", "energy")
BRANCHES = (
    *(f"rechit_{field}" for field in HIT_FIELDS),
    "simcluster_hits_indices",
    "simcluster_energy",
    "simcluster_eta",
    "simcluster_phi",
    "genpart_pid",
    "genpart_eta",
    "genpart_phi",
)

# Particle numbers of the Particle Data Group, without sign: what they look like in a calorimeter.
PARTICLE_CATEGORIES = {
    13: MIP,  # muon
    11: ELECTROMAGNETIC,  # electron
    22: ELECTROMAGNETIC,  # photon
    111: ELECTROMAGNETIC,  # neutral pion: two photons
}


class EventFileError(ValueError):
    """The file is not an HGCAL ntuple of the expected form."""


def read_hits(path: str | os.PathLike[str], events: int | None = None) -> list[Hits]:
    """Reads every event of an ntuple, one `Hits` per (event, endcap).

    Args:
        path: A ROOT file with the tree `ana/hgc`.
        events: How many events to read from its beginning; all by default.

    Returns:
        z < 0, then z > 0 of the first event, and so on; endcaps without a hit are left out.
        The clusters of each run from the least to the most energetic.

    Raises:
        FileNotFoundError: If there is no such file.
        EventFileError: If it is not a ROOT file, or lacks the tree or a branch, or a branch does
            not fit the others.
    """
    path = Path(path)
    hits: list[Hits] = []
    for number, event in enumerate(_read_arrays(path, events)):
        try:
            hits.extend(endcaps(event))
        except ValueError as error:
            raise EventFileError(f"{path}, event {number}: {error}") from error
    if not hits:
        raise EventFileError(f"{path}: expected at least one event with hits, got none")
    return hits


def read_graphs(path: str | os.PathLike[str], events: int | None = None) -> list[Data]:
    """Reads every event of an ntuple as graphs, one per (event, endcap).

    Args:
        path: A ROOT file with the tree `ana/hgc`.
        events: How many events to read from its beginning; all by default.

    Returns:
        The graphs, as `hgcal.graph.build_graph` makes them, in the order of `read_hits`.

    Raises:
        FileNotFoundError: If there is no such file.
        EventFileError: If it is not an HGCAL ntuple of the expected form.
    """
    return [build_graph(hits) for hits in read_hits(path, events)]


def endcaps(event: Any) -> list[Hits]:
    """Splits an event into its endcaps.

    Args:
        event: An awkward record of `BRANCHES`.

    Returns:
        The hits with z < 0, then those with z > 0; an endcap without a hit is left out.

    Raises:
        ValueError: If a branch does not fit the others.
    """
    values = {field: ak.to_numpy(event[f"rechit_{field}"]) for field in HIT_FIELDS}
    lengths = {len(value) for value in values.values()}
    if len(lengths) != 1:
        raise ValueError(f"expected one value of each rechit branch per hit, got {sorted(lengths)}")
    clusters = _clusters(event, number=lengths.pop())
    found = []
    for chosen in (values["z"] < 0, values["z"] > 0):
        if not chosen.any():
            continue
        position = np.cumsum(chosen) - 1  # of an event's hit among those of its endcap
        found.append(
            Hits(
                **{
                    field: value[chosen].astype(np.int64 if field == "layer" else np.float32)
                    for field, value in values.items()
                },
                clusters=[
                    Cluster(position[cluster.hits[chosen[cluster.hits]]], cluster.category)
                    for cluster in clusters
                    if chosen[cluster.hits].any()
                ],
            )
        )
    return found


def _read_arrays(path: Path, events: int | None) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a ROOT file with HGCAL events")
    try:
        file = uproot.open(path)
    except Exception as error:  # uproot has no common base class for what it finds unreadable
        raise EventFileError(f"{path}: expected a ROOT file, could not read it: {error}") from error
    with file:
        try:
            tree = file[TREE]
        except uproot.KeyInFileError:
            got = ", ".join(file.keys(cycle=False)) or "nothing"
            raise EventFileError(f"{path}: expected the tree '{TREE}', got {got}") from None
        if not isinstance(tree, uproot.TTree):
            raise EventFileError(
                f"{path}: expected '{TREE}' to be a TTree, got {type(tree).__name__}"
            )
        missing = [branch for branch in BRANCHES if branch not in tree]
        if missing:
            raise EventFileError(f"{path}: the tree '{TREE}' lacks {', '.join(missing)}")
        return tree.arrays(BRANCHES, entry_stop=events)


def _clusters(event: Any, number: int) -> list[Cluster]:
    if len(event.simcluster_hits_indices) != len(event.simcluster_energy):
        raise ValueError(
            f"expected hits for each of {len(event.simcluster_energy)} simclusters, "
            f"got {len(event.simcluster_hits_indices)}"
        )
    categories = _categories(event)
    clusters = []
    # By rising energy: an edge within two showers takes the category of the larger.
    for shower in np.argsort(ak.to_numpy(event.simcluster_energy), kind="stable"):
        indices = ak.to_numpy(event.simcluster_hits_indices[shower]).astype(np.int64)
        if len(indices) and (indices.min() < -1 or indices.max() >= number):
            raise ValueError(
                f"simcluster_hits_indices: expected -1 (not reconstructed) to {number - 1}, "
                f"got {indices.min()} to {indices.max()}"
            )
        clusters.append(Cluster(np.unique(indices[indices >= 0]), int(categories[shower])))
    return clusters


def _categories(event: Any) -> NDArray[np.int64]:
    """What each simcluster is, by the generated particle that is nearest to it in angle."""
    showers = len(event.simcluster_energy)
    particles = ak.to_numpy(event.genpart_pid)
    if showers and not len(particles):
        raise ValueError(f"expected generated particles for {showers} simclusters, got none")
    if not showers:
        return np.zeros(0, dtype=np.int64)
    eta = _difference(event.simcluster_eta, event.genpart_eta)
    phi = _difference(event.simcluster_phi, event.genpart_phi)
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    nearest = np.argmin(np.hypot(eta, phi), axis=1)
    kind = np.array([PARTICLE_CATEGORIES.get(abs(int(pid)), HADRONIC) for pid in particles])
    return kind[nearest]


def _difference(rows: Any, columns: Any) -> NDArray[np.float64]:
    """float64 [len(rows), len(columns)]"""
    return np.subtract.outer(
        ak.to_numpy(rows).astype(np.float64), ak.to_numpy(columns).astype(np.float64)
    )

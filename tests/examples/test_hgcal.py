"""The HGCAL example: the reader of events, and EdgeNet."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from torch_geometric.data import Data

from hgcal.edgenet import EdgeNet
from hgcal.events import BRANCHES, EventFileError, endcaps, read_hits
from hgcal.generator import generate_hits
from hgcal.graph import (
    CATEGORIES,
    ELECTROMAGNETIC,
    HADRONIC,
    MIP,
    Hits,
    build_graph,
)

# -- the reader -----------------------------------------------------------------------------------


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

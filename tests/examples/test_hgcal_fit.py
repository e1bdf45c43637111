"""Training: it learns, keeps checkpoints, and resumes where it stopped."""

from __future__ import annotations

import pytest
import torch

from hgcal import fit as fitting
from hgcal.fit import fit
from hgcal.generator import generate_hits, generate_shower
from hgcal.graph import HADRONIC, build_graph
from hgcal.tasks import edge_task, energy_task, hit_task, track_task
from hgcal.tracks import generate_tracks

# EnergyNet searches for neighbours, for which PyG has no code of its own.
pytestmark = pytest.mark.usefixtures("auto")


def small_endcap(seed: int):
    return build_graph(generate_hits(seed, noise=400))


MAKERS = {
    "edgenet": lambda: edge_task([small_endcap(0)], [small_endcap(1)]),
    "hitgat": lambda: hit_task([small_endcap(0)], [small_endcap(1)]),
    "energynet": lambda: energy_task(0, showers=8, size=4),
    "tracknet": lambda: track_task(0, events=2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(name, tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    whole = MAKERS[name]()
    start = {key: value.clone() for key, value in whole.model.state_dict().items()}
    fit(whole, 6, tmp_path / "whole", seed=3)

    monkeypatch.setattr(fitting, "SAVE_EVERY", 2)
    broken = MAKERS[name]()
    broken.model.load_state_dict(start)
    fit(broken, 4, tmp_path / "broken", seed=3)
    resumed = MAKERS[name]()  # other initial values, which the checkpoint replaces
    fit(resumed, 6, tmp_path / "broken", seed=3)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
        assert not torch.equal(value, start[key]), f"{key} was not trained"


def test_training_lowers_the_loss_and_is_measured(tmp_path) -> None:
    torch.manual_seed(0)
    task = track_task(0, events=4)
    with torch.no_grad():
        before = float(task.loss(task.model, task.events[0]))
    fit(task, 60, tmp_path / "checkpoint", seed=0)
    with torch.no_grad():
        after = float(task.loss(task.model, task.events[0]))
        outputs = [task.model(*task.call(event)).numpy() for event in task.events]
    assert after < 0.8 * before
    assert "efficiency" in task.measure(task.events, outputs)


def test_a_checkpoint_of_another_training_is_refused(tmp_path) -> None:
    fit(track_task(0, events=1), 1, tmp_path / "checkpoint", seed=0)
    with pytest.raises(ValueError, match="with seed 1, got 'tracknet' with seed 0"):
        fit(track_task(0, events=1), 1, tmp_path / "checkpoint", seed=1)


def test_tracks_are_circles_through_the_origin() -> None:
    event = generate_tracks(0, particles=40, noise=0.2, least_momentum=2.0)
    again = generate_tracks(0, particles=40, noise=0.2, least_momentum=2.0)
    assert torch.equal(event.x, again.x)
    r, phi = event.x[:, 0].double(), event.x[:, 1].double() * torch.pi
    for particle in range(40):
        hits = event.particle == particle
        if hits.sum() < 5:
            continue
        # sin(phi - direction) grows linearly with r: two hits fix the line, the others lie on it.
        first, *_, last = hits.nonzero().flatten().tolist()
        angle = (phi[hits] - phi[first] + torch.pi) % (2 * torch.pi) - torch.pi
        slope = angle[-1] / (r[last] - r[first])
        assert (angle - slope * (r[hits] - r[first])).abs().max() < 0.01
    source, target = event.edge_index
    same = (event.particle[source] == event.particle[target]) & (event.particle[source] >= 0)
    assert torch.equal(event.edge_label.bool(), same)
    assert same.any()
    assert (event.x[target, 0] > event.x[source, 0]).all()


def test_showers_have_the_energy_they_are_given() -> None:
    seen = [generate_shower(seed, 50.0).energy.sum() for seed in range(10)]
    assert 45 < sum(seen) / 10 < 52
    assert len(generate_shower(0, 50.0, HADRONIC)) > 16
    with pytest.raises(ValueError, match="energy > 0, got 0"):
        generate_shower(0, 0.0)

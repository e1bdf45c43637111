"""The four things this application learns, each in one place: data, network, loss, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from hgcal.clusters import confusion, find_clusters, match_clusters, quality_table
from hgcal.edgenet import EdgeNet
from hgcal.generator import generate_shower
from hgcal.graph import CATEGORIES, ELECTROMAGNETIC, FEATURES, HADRONIC, INVALID, SCALES
from hgcal.models import EnergyNet, HitGAT, TrackNet
from hgcal.tracks import generate_tracks
from training import signal_wedges, standardise


@dataclass(frozen=True)
class Task:
    """A model, what it is trained on, and what it is served.

    Attributes:
        name: What the served model is called.
        model: The network, untrained.
        batches: Mini-batches of the training.
        loss: What training makes small.
        events: What is served: graphs that training has not seen.
        inputs: Names of the graph attributes that the network takes, in its order.
        measure: From the events and the outputs, a text that says how good these are.
    """

    name: str
    model: torch.nn.Module
    batches: Sequence[Data]
    loss: Callable[[torch.nn.Module, Data], Tensor]
    events: Sequence[Data]
    inputs: tuple[str, ...]
    measure: Callable[[Sequence[Data], Sequence[np.ndarray]], str]

    def call(self, event: Data) -> tuple[Tensor, ...]:
        """The inputs of the network for an event."""
        return tuple(event[name] for name in self.inputs)


def edge_task(known: Sequence[Data], unseen: Sequence[Data]) -> Task:
    """EdgeNet: the category of each edge, from which clusters follow."""
    batches = [wedge for graph in known for wedge in signal_wedges(graph)]
    weights = rarity([graph.edge_label for graph in batches])
    model = EdgeNet()
    standardise(model.encoder[0], [_rotated(graph.x) for graph in batches])

    def loss(model: torch.nn.Module, graph: Data) -> Tensor:
        logits = model(_rotated(graph.x), graph.edge_index)
        return F.cross_entropy(logits, graph.edge_label, weight=weights)

    return Task("edgenet", model, batches, loss, unseen, ("x", "edge_index"), _measure_edges)


def hit_task(known: Sequence[Data], unseen: Sequence[Data]) -> Task:
    """HitGAT: the category of each hit."""
    batches = [wedge for graph in known for wedge in signal_wedges(graph)]
    weights = rarity([graph.hit_label for graph in batches])
    model = HitGAT()
    standardise(model.encoder, [_rotated(graph.x) for graph in batches])

    def loss(model: torch.nn.Module, graph: Data) -> Tensor:
        logits = model(_rotated(graph.x), graph.edge_index)
        return F.cross_entropy(logits, graph.hit_label, weight=weights)

    return Task("hitgat", model, batches, loss, unseen, ("x", "edge_index"), _measure_hits)


def energy_task(seed: int, showers: int = 160, size: int = 8) -> Task:
    """EnergyNet: the energy of each shower.

    Args:
        seed: Fixes the showers.
        showers: How many to train on.
        size: How many showers there are in a mini-batch, and in an event.
    """
    rng = np.random.default_rng(seed)
    batches = [_showers(rng, size) for _ in range(max(1, showers // size))]
    model = EnergyNet()
    standardise(model.encoder[0], [batch.x for batch in batches])

    def loss(model: torch.nn.Module, graph: Data) -> Tensor:
        return ((model(graph.x, graph.batch) - graph.energy) / graph.energy).square().mean()

    events = [_showers(rng, size) for _ in range(4)]
    return Task("energynet", model, batches, loss, events, ("x", "batch"), _measure_energy)


def track_task(seed: int, events: int = 24) -> Task:
    """TrackNet: which edges lie on a track."""
    batches = [generate_tracks(1000 * seed + number) for number in range(events)]
    unseen = [generate_tracks(1000 * seed + events + number) for number in range(4)]

    def loss(model: torch.nn.Module, graph: Data) -> Tensor:
        logits = model(graph.x, graph.edge_index, graph.edge_attr)
        return F.binary_cross_entropy_with_logits(logits, graph.edge_label)

    inputs = ("x", "edge_index", "edge_attr")
    return Task("tracknet", TrackNet(), batches, loss, unseen, inputs, _measure_tracks)


def _showers(rng: np.random.Generator, count: int) -> Data:
    """Several showers, one after the other."""
    x, batch, energies = [], [], []
    while len(energies) < count:
        energy = rng.uniform(10.0, 60.0)
        category = ELECTROMAGNETIC if rng.random() < 0.5 else HADRONIC
        hits = generate_shower(int(rng.integers(2**31)), energy, category)
        if len(hits) < 16:  # a pion that has gone through
            continue
        x.append(np.stack([getattr(hits, name) for name in FEATURES], axis=1) * SCALES)
        batch.append(np.full(len(hits), len(energies)))
        energies.append(energy * SCALES[-1])
    return Data(
        x=torch.from_numpy(np.concatenate(x).astype(np.float32)),
        batch=torch.from_numpy(np.concatenate(batch)),
        energy=torch.tensor(energies, dtype=torch.float32),
    )


def rarity(labels: Sequence[Tensor]) -> Tensor:
    """Weighs categories by how rare they are: true edges are few in a hundred or less.

    Args:
        labels: Of the mini-batches, int64.

    Returns:
        float32 [4], one over the square root of the frequency, a compromise between finding all of
        a rare category and finding nothing else; 0 where there is none.
    """
    counts = torch.cat(list(labels)).bincount(minlength=len(CATEGORIES))
    return torch.where(counts > 0, (counts.sum() / counts.clamp(min=1)).sqrt(), 0.0)


def _rotated(x: Tensor) -> Tensor:
    """Turns the hits of an endcap around the beam by a random angle: physics is symmetric, and
    few events show few directions.
    """
    angle = 2 * torch.pi * torch.rand([])
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
    return torch.cat([x[:, :2] @ turn, x[:, 2:]], dim=1)


def _measure_edges(events: Sequence[Data], outputs: Sequence[np.ndarray]) -> str:
    table = np.zeros((len(CATEGORIES), len(CATEGORIES)), dtype=np.int64)
    true, found, fakes = 0, 0, 0
    for event, logits in zip(events, outputs, strict=True):
        table += confusion(event.edge_label.numpy(), logits.argmax(axis=1), len(CATEGORIES))
        clusters = find_clusters(logits, event.edge_index.numpy(), event.num_nodes)
        matches = match_clusters(event.cluster.numpy(), clusters)
        true, found, fakes = true + matches.true, found + matches.found, fakes + matches.fakes
    quality = quality_table(table, CATEGORIES)
    return f"edges\n{quality}\nclusters: {found} of {true} found, {fakes} more are mostly noise"


def _measure_hits(events: Sequence[Data], outputs: Sequence[np.ndarray]) -> str:
    table = np.zeros((len(CATEGORIES), len(CATEGORIES)), dtype=np.int64)
    for event, logits in zip(events, outputs, strict=True):
        table += confusion(event.hit_label.numpy(), logits.argmax(axis=1), len(CATEGORIES))
    names = ["noise" if number == INVALID else name for number, name in enumerate(CATEGORIES)]
    return f"hits\n{quality_table(table, names)}"


def _measure_energy(events: Sequence[Data], outputs: Sequence[np.ndarray]) -> str:
    true = np.concatenate([event.energy.numpy() for event in events])
    ratio = np.concatenate(outputs) / true
    seen = np.concatenate(
        [np.bincount(event.batch.numpy(), event.x[:, -1].numpy()) for event in events]
    )
    return (
        f"energies: regressed / true {ratio.mean():.3f} +- {ratio.std():.3f}; "
        f"sum of the hits / true {(seen / true).mean():.3f} +- {(seen / true).std():.3f}"
    )


def _measure_tracks(events: Sequence[Data], outputs: Sequence[np.ndarray]) -> str:
    label = np.concatenate([event.edge_label.numpy() for event in events]).astype(np.int64)
    predicted = (np.concatenate(outputs) > 0).astype(np.int64)
    return f"edges\n{quality_table(confusion(label, predicted, 2), ('other', 'track'))}"

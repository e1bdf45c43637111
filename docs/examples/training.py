"""Trains the models of the demo, briefly: enough that their parameters are those of a use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from tqdm import tqdm

from gat import GAT
from hgcal.edgenet import EdgeNet
from hgcal.graph import CATEGORIES, INVALID, wedges

WEDGES = 24
"""Wedges an endcap is cut into: a mini-batch of about 650 hits."""


def train_gat(data: Data, steps: int) -> GAT:
    """Trains the GAT to tell the classes of a graph's nodes.

    Args:
        data: A graph with `x` float32 [N, F], `edge_index` int64 [2, E], `y` int64 [N] and
            `train_mask` bool [N].
        steps: Number of passes over the graph.

    Returns:
        The model, in train mode.
    """
    model = GAT(data.num_features, int(data.y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4)
    for _ in tqdm(range(steps), desc="GAT, training", unit="step", delay=1.0, leave=False):
        optimizer.zero_grad()
        output = model(data.x, data.edge_index)
        F.nll_loss(output[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
    return model


@torch.no_grad()
def accuracy(model: GAT, data: Data) -> float:
    """Returns the fraction of nodes outside of the training set that are classified right."""
    model.eval()
    right = model(data.x, data.edge_index).argmax(dim=1) == data.y
    return float(right[~data.train_mask].float().mean())


def signal_wedges(graph: Data, count: int = WEDGES) -> list[Data]:
    """Cuts an endcap into wedges and keeps those with true edges.

    Args:
        graph: What `hgcal.graph.build_graph` returns.
        count: How many wedges to cut.

    Returns:
        The wedges in which an edge lies within a cluster, from the one with the most such edges.

    Raises:
        ValueError: If there is none.
    """
    found = [
        (int((wedge.edge_label != INVALID).sum()), wedge)
        for wedge in wedges(graph, min(count, graph.num_nodes))
    ]
    found = [(edges, wedge) for edges, wedge in found if edges]
    if not found:
        raise ValueError("expected an endcap with at least one true cluster, got noise alone")
    return [wedge for _, wedge in sorted(found, key=lambda pair: pair[0], reverse=True)]


def category_weights(graphs: Sequence[Data]) -> torch.Tensor:
    """Weighs categories by their rarity: true edges are few in a hundred or less.

    Args:
        graphs: What the model is trained on.

    Returns:
        float32 [4], inverse to the number of edges in each category; 0 where there is none.
    """
    labels = torch.cat([graph.edge_label for graph in graphs])
    counts = labels.bincount(minlength=len(CATEGORIES))
    return torch.where(counts > 0, len(labels) / counts.clamp(min=1), 0.0)


@torch.no_grad()
def standardise(layer: torch.nn.Linear, inputs: Sequence[torch.Tensor]) -> None:
    """Initialises a layer so that all features, whatever their scale, are heard at once.

    The scaled energies are a hundred thousand times smaller than the layers; left to itself, the
    optimizer would need many more steps than the demo has to notice them.

    Args:
        layer: The first layer of a network, in place.
        inputs: What the network is trained on, float32 [N, F] each.
    """
    deviation, mean = torch.std_mean(torch.cat(list(inputs)), dim=0)
    layer.weight /= torch.where(deviation > 0, deviation, 1.0)
    layer.bias -= layer.weight @ mean


def train_edgenet(graphs: Sequence[Data], steps: int, seed: int) -> EdgeNet:
    """Trains EdgeNet to tell the categories of edges.

    Args:
        graphs: Mini-batches with `x`, `edge_index` and `edge_label`.
        steps: Number of mini-batches shown.
        seed: Fixes their order.

    Returns:
        The model, in train mode.
    """
    model = EdgeNet()
    standardise(model.encoder[0], [graph.x for graph in graphs])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    weights = category_weights(graphs)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [torch.randperm(len(graphs), generator=generator) for _ in range(steps // len(graphs) + 1)]
    )
    bar = tqdm(order[:steps].tolist(), desc="EdgeNet, training", unit="step", leave=False)
    for number in bar:
        graph = graphs[number]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(graph.x, graph.edge_index), graph.edge_label, weight=weights)
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")
    return model


@torch.no_grad()
def edge_quality(model: EdgeNet, graph: Data) -> tuple[float, float]:
    """Measures how well edges are told.

    Args:
        model: The model.
        graph: A graph with true edges.

    Returns:
        The fraction of edges within clusters that are accepted, in whatever category, and the
        fraction of all other edges that are accepted by mistake.
    """
    model.eval()
    accepted = model(graph.x, graph.edge_index).argmax(dim=1) != INVALID
    true = graph.edge_label != INVALID
    return float(accepted[true].float().mean()), float(accepted[~true].float().mean())

"""From classified edges to clusters, and how good they are. NumPy and SciPy alone: it runs where
the clusters are wanted, whether or not PyTorch is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

INVALID = 0


def find_clusters(
    logits: NDArray[np.float32], edge_index: NDArray[np.int64], num_hits: int
) -> NDArray[np.int64]:
    """Joins hits along accepted edges.

    Args:
        logits: float32 [E, 4], what EdgeNet says of the edges; one is accepted if another category
            than `INVALID` has the greatest value.
        edge_index: int64 [2, E].
        num_hits: Number of hits `N`.

    Returns:
        int64 [N]: the cluster of each hit, numbered from the one with the most hits (of equally
        large ones, the one with the first hit); -1 for hits without an accepted edge.
    """
    source, target = edge_index[:, logits.argmax(axis=1) != INVALID]
    ones = np.ones(len(source), dtype=np.int8)
    _, component = connected_components(
        coo_matrix((ones, (source, target)), shape=(num_hits, num_hits)), directed=False
    )
    component[~np.isin(np.arange(num_hits), np.concatenate([source, target]))] = -1
    joined = component >= 0
    kept, first, size = np.unique(component[joined], return_index=True, return_counts=True)
    number = np.full(component.max(initial=-1) + 2, -1, dtype=np.int64)  # the last one is for -1
    number[kept[np.lexsort([first, -size])]] = np.arange(len(kept))
    return number[component]


def confusion(
    label: NDArray[np.int64], predicted: NDArray[np.int64], categories: int
) -> NDArray[np.int64]:
    """Counts how each category is told.

    Args:
        label: int64 [M], the true categories of edges or hits.
        predicted: int64 [M], what they are taken for.
        categories: How many categories there are.

    Returns:
        int64 [categories, categories]: row true, column predicted.
    """
    pair = label * categories + predicted
    return np.bincount(pair, minlength=categories**2).reshape(categories, categories)


def efficiency_and_purity(
    table: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reads efficiency and purity off a confusion table.

    Args:
        table: int64 [C, C], from `confusion`.

    Returns:
        The fraction of each category that is told as such, and the fraction of what is told as the
        category that is of it, float64 [C] each; NaN where there is none.
    """
    right = np.diag(table).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return right / table.sum(axis=1), right / table.sum(axis=0)


@dataclass(frozen=True)
class Matches:
    """How true clusters are found.

    Attributes:
        true: How many true clusters there are.
        found: How many of them share more than half of their hits with one found cluster, of
            whose hits, noise left aside, they are more than half.
        fakes: How many found clusters are more than half noise.
    """

    true: int
    found: int
    fakes: int


def match_clusters(true: NDArray[np.int64], found: NDArray[np.int64], smallest: int = 5) -> Matches:
    """Compares found clusters with true ones, hit by hit.

    Args:
        true: int64 [N], the true cluster of each hit, -1 for noise.
        found: int64 [N], from `find_clusters`.
        smallest: Clusters of fewer hits do not count.
    """
    matched = 0
    wanted = [n for n in np.unique(true[true >= 0]) if (true == n).sum() >= smallest]
    for number in wanted:
        shared = found[(true == number) & (found >= 0)]
        if not len(shared):
            continue
        candidate = np.bincount(shared).argmax()
        common = (shared == candidate).sum()
        signal = ((found == candidate) & (true >= 0)).sum()
        matched += 2 * common > (true == number).sum() and 2 * common > signal
    fakes = sum(
        2 * (true[found == number] < 0).sum() > (found == number).sum()
        for number in np.unique(found[found >= 0])
        if (found == number).sum() >= smallest
    )
    return Matches(len(wanted), int(matched), int(fakes))


def quality_table(table: NDArray[np.int64], categories: Sequence[str]) -> str:
    """Writes a confusion table with efficiency and purity.

    Args:
        table: int64 [C, C], from `confusion`.
        categories: The names of the categories.
    """
    efficiency, purity = efficiency_and_purity(table)
    width = max(map(len, categories))
    head = "  ".join(f"{name:>{max(width, 9)}}" for name in categories)
    lines = [f"{'true':{width}}  {head}  efficiency  purity"]
    for name, row, one, other in zip(categories, table, efficiency, purity, strict=True):
        counts = "  ".join(f"{count:>{max(width, 9)},}" for count in row)
        lines.append(f"{name:{width}}  {counts}  {_percent(one):>10}  {_percent(other):>6}")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1%}"

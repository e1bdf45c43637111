"""Pictures: an event with its true and found clusters, and how fast events were served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")  # files, no window
from matplotlib import pyplot as plt

COLOURS = plt.get_cmap("tab10").colors


def draw_event(
    path: Path,
    position: NDArray[np.float32],
    true: NDArray[np.int64],
    found: NDArray[np.int64],
    largest: int = 10,
) -> None:
    """Draws one endcap twice: true clusters, found clusters; each along the beam and across it.

    Args:
        path: Where the picture goes, a PNG.
        position: float32 [N, 3], in cm.
        true: int64 [N], the true cluster of each hit, -1 for noise.
        found: int64 [N], the found cluster of each hit, -1 for none.
        largest: How many clusters of each kind have a colour of their own.
    """
    figure, panels = plt.subplots(2, 2, figsize=(12, 10), layout="constrained")
    x, y, z = position.T
    for row, (title, cluster) in enumerate((("true", true), ("found", found))):
        sizes = np.bincount(cluster[cluster >= 0])
        shown = np.argsort(-sizes, kind="stable")[:largest]
        for panel, (across, up), names in zip(
            panels[row], ((z, x), (x, y)), (("z", "x"), ("x", "y")), strict=True
        ):
            panel.scatter(across, up, s=1, c="lightgrey", linewidths=0, label="other hits")
            for colour, number in enumerate(shown):
                chosen = cluster == number
                panel.scatter(
                    across[chosen], up[chosen], s=9, linewidths=0,
                    color=COLOURS[colour % len(COLOURS)], label=f"{chosen.sum()} hits",
                )  # fmt: skip
            panel.set(xlabel=f"{names[0]} in cm", ylabel=f"{names[1]} in cm")
        panels[row, 0].set_title(f"{title} clusters: {(sizes > 0).sum()}", loc="left")
        panels[row, 1].legend(loc="upper right", fontsize="x-small", markerscale=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_throughput(path: Path, seconds: Mapping[str, Sequence[float]]) -> None:
    """Draws how many events a minute each served model answered.

    Args:
        path: Where the picture goes, a PNG.
        seconds: For each model, the time of each event, from sending it to having the answer.
    """
    names = list(seconds)
    rate = np.array([60 / np.median(seconds[name]) for name in names])
    bounds = np.array([60 / np.quantile(seconds[name], (0.84, 0.16)) for name in names]).T
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    # Points, because bars on a logarithmic scale have no bottom to compare their heights from.
    for name, middle, (low, high), colour in zip(names, rate, bounds.T, COLOURS, strict=False):
        error = [[abs(middle - low)], [abs(high - middle)]]
        panel.errorbar([name], [middle], yerr=error, fmt="o", capsize=4, color=colour)
        panel.annotate(
            f"{middle:,.0f}", (name, middle), xytext=(9, 0), textcoords="offset points", va="center"
        )
    panel.set(ylabel="events per minute, one client", yscale="log")
    panel.set_ylim(rate.min() / 2, max(bounds.max(), rate.max()) * 2)
    panel.margins(x=0.15)
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_minor_formatter("")
    figure.savefig(path, dpi=110)
    plt.close(figure)

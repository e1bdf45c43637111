"""The main job, as `make demo` runs it: train in Python, script unchanged, run without Python code.

Trains a GAT on KarateClub and EdgeNet on calorimeter events, scripts both as they stand, loads
the saved files in a process that imports torch alone, and prints what the three compute and take.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub

import gnnscript.auto  # noqa: F401  the one line that makes the models scriptable
from compare import Row, compare, format_table
from hgcal.generator import generate_hits
from hgcal.graph import build_graph
from training import accuracy, edge_quality, signal_wedges, train_edgenet, train_gat

# torch announces the retirement of TorchScript at each use; here it would only cut the table.
warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")

GAT_STEPS_PER_STEP = 5  # a step of the GAT takes milliseconds


def demonstrate_gat(steps: int) -> list[Row]:
    """Trains and compares the GAT on KarateClub and on a larger random graph."""
    club = KarateClub()[0]
    model = train_gat(club, GAT_STEPS_PER_STEP * steps)
    print(f"GAT: trained on KarateClub; {accuracy(model, club):.0%} of the other members right")
    x = torch.randn(2_000, club.num_features)
    random = (x, torch.randint(len(x), (2, 20_000)))
    return compare("GAT", model, {"KarateClub": (club.x, club.edge_index), "random": random})


def demonstrate_edgenet(graphs: list[Data], steps: int, seed: int) -> list[Row]:
    """Trains EdgeNet on all endcaps but the last, and compares it on that one.

    Args:
        graphs: At least two endcaps.
        steps: Number of training steps.
        seed: Fixes the order of the mini-batches.
    """
    *known, unseen = graphs
    model = train_edgenet([w for graph in known for w in signal_wedges(graph)], steps, seed)
    wedge = signal_wedges(unseen)[0]
    accepted, mistaken = edge_quality(model, wedge)
    print(
        f"EdgeNet: trained for {steps} steps; on an unseen wedge it accepts {accepted:.0%} of the "
        f"true edges and {mistaken:.0%} of the others"
    )
    return compare(
        "EdgeNet",
        model,
        {
            "wedge": (wedge.x, wedge.edge_index),
            "whole endcap": (unseen.x, unseen.edge_index),
        },
    )


def endcaps(events: Path | None, seed: int) -> list[Data]:
    """Reads the first two events of a file, or generates endcaps where none is given."""
    if events is None:
        return [build_graph(generate_hits(3 * seed + number)) for number in range(3)]
    # Generated events need neither uproot nor awkward.
    from hgcal.events import read_graphs

    graphs = read_graphs(events, events=2)
    if len(graphs) < 2:
        raise ValueError(f"{events}: expected hits in at least two endcaps, got {len(graphs)}")
    return graphs


def main() -> int:
    """Runs the demo.

    Returns:
        0 where all outputs are equal within float32 rounding, otherwise 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=Path, help="ROOT file with HGCAL events; else generated")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--steps", type=int, default=40, help="training steps of EdgeNet (default: 40)"
    )
    # One thread by default: on a machine with other work to do, threads that wait for each other
    # would be timed, not the models.
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args()
    for name in ("steps", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(options, name)}")
    if options.seed < 0:
        parser.error(f"--seed: expected 0 or more, got {options.seed}")

    start = time.perf_counter()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    try:
        graphs = endcaps(options.events, options.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(
        f"Events: {len(graphs)} endcaps "
        + (f"of {options.events.name}" if options.events else "of the shower generator")
        + f", {graphs[-1].num_nodes:,} hits and {graphs[-1].num_edges:,} edges in the last"
    )
    rows = demonstrate_gat(options.steps)
    rows += demonstrate_edgenet(graphs, options.steps, options.seed)

    print(f"\n{format_table(rows)}\n")
    different = [f"{row.model} on {row.graph}" for row in rows if not row.equal]
    if different:
        print(f"FAILED: the outputs differ for {', '.join(different)}")
        return 1
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    print(
        f"Scripted as they stand, reloaded where torch {torch.__version__} stands alone; "
        f"{threads}, {time.perf_counter() - start:.0f} s in all."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

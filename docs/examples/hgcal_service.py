"""The calorimeter application end to end, as `make hgcal` runs it.

Events become graphs; four networks are trained on them, scripted unchanged, and written to a model
repository; a Triton server serves them; a client streams events that training has not seen, and
what comes back is compared with what the eager models say, output by output and, for clusters, hit
by hit. Pictures and a table are left in the working folder.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

import gnnscript.auto  # noqa: F401  the one line that makes the models scriptable
from gnnscript.client import Client
from gnnscript.deploy import triton
from gnnscript.deploy.server import Server
from hgcal.clusters import find_clusters
from hgcal.display import draw_event, draw_throughput
from hgcal.fit import fit
from hgcal.generator import generate_hits
from hgcal.graph import build_graph
from hgcal.tasks import Task, edge_task, energy_task, hit_task, track_task

# torch announces the retirement of TorchScript at each use; here it would only cut the table.
warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")

TOLERANCE = 1e-3
"""Largest difference, in units of the largest output, that float32 rounding can explain.

Six layers of up to fifty neighbours each; where a network chooses neighbours itself, rounding may
choose another among equally near ones.
"""


@dataclass(frozen=True)
class Served:
    """What came back for the events of a task.

    Attributes:
        outputs: float32, one array per event.
        seconds: For each event, the time from sending it to having the answer.
        difference: Largest difference to the eager model, in units of its largest output.
        hits: How many hits the events have.
        moved: How many of them are in another cluster than offline; None where there are none.
    """

    outputs: Sequence[np.ndarray]
    seconds: Sequence[float]
    difference: float
    hits: int
    moved: int | None


def endcaps(events: Path | None, seed: int, count: int) -> list[Data]:
    """Reads the events of a file, or generates `count` endcaps where none is given."""
    if events is None:
        return [build_graph(generate_hits(count * seed + number)) for number in range(count)]
    # Generated events need neither uproot nor awkward.
    from hgcal.events import read_graphs

    graphs = read_graphs(events)
    if len(graphs) < 2:
        raise ValueError(f"{events}: expected hits in at least two endcaps, got {len(graphs)}")
    return graphs


@torch.no_grad()
def offline(task: Task) -> list[np.ndarray]:
    """What the eager model says of the events."""
    task.model.eval()
    return [task.model(*task.call(event)).numpy() for event in task.events]


def stream(task: Task, client: Client, rounds: int) -> Served:
    """Sends the events one after the other, and compares what comes back.

    Args:
        task: The task, trained.
        client: A client of its served model.
        rounds: How often each event is sent.
    """
    expected = offline(task)
    outputs, seconds = [], []
    for _ in range(rounds):
        outputs = []
        for event in task.events:
            start = time.perf_counter()
            outputs.append(client(*(tensor.numpy() for tensor in task.call(event))))
            seconds.append(time.perf_counter() - start)
    scale = max(1.0, *(float(np.abs(output).max()) for output in expected))
    difference = max(
        float(np.abs(one - other).max()) for one, other in zip(outputs, expected, strict=True)
    )
    moved = None
    if task.name == "edgenet":
        moved = sum(
            int((_clusters(event, one) != _clusters(event, other)).sum())
            for event, one, other in zip(task.events, outputs, expected, strict=True)
        )
    hits = sum(event.num_nodes for event in task.events)
    return Served(outputs, seconds, difference / scale, hits, moved)


def _clusters(event: Data, logits: np.ndarray) -> np.ndarray:
    return find_clusters(logits, event.edge_index.numpy(), event.num_nodes)


def serve(tasks: Sequence[Task], folder: Path, rounds: int) -> dict[str, Served]:
    """Writes a model repository, serves it, and streams the events of all tasks.

    Args:
        tasks: The tasks, trained.
        folder: Where the repository goes.
        rounds: How often each event is sent.
    """
    repository = folder / "repository"
    for task in tasks:
        # They also warm the server up, for which small graphs will do.
        examples = [task.call(batch) for batch in task.batches[:2]]
        triton(task.model, examples, repository, task.name, overwrite=True)
    served = {}
    server = Server(repository, log=folder / "server.log")
    try:
        server.start(timeout=600)
        print(f"serving {', '.join(task.name for task in tasks)} at {server.http_url}")
        for task in tasks:
            with Client(server.grpc_url, task.name, timeout=300) as client:
                served[task.name] = stream(task, client, rounds)
    finally:
        server.stop()
    return served


def report(tasks: Sequence[Task], served: dict[str, Served], folder: Path) -> bool:
    """Prints what was found and draws the pictures; tells whether online equals offline."""
    for task in tasks:
        print(f"\n== {task.name}: {task.measure(task.events, served[task.name].outputs)}")
    print(f"\n{'model':10} {'events/min':>11} {'median ms':>10} {'difference':>11}  clusters")
    equal = True
    for name, result in served.items():
        median = float(np.median(result.seconds))
        clusters = "-"
        if result.moved is not None:
            clusters = f"{result.moved} of {result.hits:,} hits in another one"
        print(
            f"{name:10} {60 / median:11,.0f} {1000 * median:10.1f} {result.difference:11.1e}  "
            f"{clusters}"
        )
        # Written so that a NaN, which compares false, is not equal.
        equal &= result.difference <= TOLERANCE and (result.moved or 0) <= result.hits // 1000
    edges = next((task for task in tasks if task.name == "edgenet"), None)
    if edges is not None:
        event, logits = edges.events[0], served["edgenet"].outputs[0]
        found = _clusters(event, logits)
        draw_event(folder / "event.png", event.pos.numpy(), event.cluster.numpy(), found)
    draw_throughput(
        folder / "throughput.png", {name: result.seconds for name, result in served.items()}
    )
    print(f"\npictures: {folder / 'event.png'}, {folder / 'throughput.png'}")
    return equal


def main() -> int:
    """Runs the application.

    Returns:
        0 where what is served equals what the eager models say, otherwise 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=Path, help="ROOT file with HGCAL events; else generated")
    parser.add_argument("--folder", type=Path, default=Path("hgcal-run"), help="working folder")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--steps", type=int, default=200, help="training steps (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="times each event is sent")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument(
        "--only", action="append", choices=["edgenet", "hitgat", "energynet", "tracknet"],
        help="train and serve this one (may be repeated; default: all four)",
    )  # fmt: skip
    options = parser.parse_args()
    for name in ("steps", "rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(options, name)}")
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    wanted = options.only or ["edgenet", "hitgat", "energynet", "tracknet"]
    known: list[Data] = []
    unseen: list[Data] = []
    if {"edgenet", "hitgat"} & set(wanted):
        try:
            *known, last = endcaps(options.events, options.seed, count=4)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        unseen = [last]
        print(
            f"{len(known)} endcaps to train on; {last.num_nodes:,} hits and {last.num_edges:,} "
            "edges in the one that is served"
        )
    makers = {
        "edgenet": lambda: edge_task(known, unseen),
        "hitgat": lambda: hit_task(known, unseen),
        "energynet": lambda: energy_task(options.seed),
        "tracknet": lambda: track_task(options.seed),
    }
    tasks = [makers[name]() for name in wanted]
    for task in tasks:
        fit(task, options.steps, options.folder / f"{task.name}.checkpoint", options.seed)
    served = serve(tasks, options.folder, options.rounds)
    if not report(tasks, served, options.folder):
        print("FAILED: what is served differs from what the eager models say")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where training was", file=sys.stderr)
        sys.exit(130)

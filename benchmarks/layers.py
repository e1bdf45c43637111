"""Layers and models: PyG eager, scripted and compiled against gnnscript, on one graph.

Every contender runs in turn in one process, and the medians of the turns are compared, so that
what else the machine does falls on all alike. "scripted" is torch.jit.script on a module of PyG,
where PyG's own scripting takes it. Prints a table and writes JSON:

    python benchmarks/layers.py --nodes 20000 --edges 400000 --json layers.json
    python benchmarks/layers.py --train      # a training step: forward and backward
    python benchmarks/layers.py --only GATConv PNAConv

DGL takes part only where it is installed for the same torch; there is no release for torch 2.13.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Linear, ReLU, Sequential
from torch_geometric import nn as pyg

import gnnscript

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "examples"))
from hgcal.edgenet import EdgeNet

Inputs = tuple[Tensor, ...]
WIDTH = 64
EDGE_WIDTH = 16
BASELINES = ("eager", "scripted", "compiled")
OURS = ("ours_scripted", "ours_portable", "ours_eager")


def mlp(*widths: int) -> Sequential:
    """A perceptron with one hidden layer."""
    a, b, c = widths
    return Sequential(Linear(a, b), ReLU(), Linear(b, c))


class Stack(nn.Module):
    """Several layers of one conv."""

    def __init__(self, convs: list[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Runs them one after another."""
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return x


class WithAttr(nn.Module):
    """A conv that is given edge features."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor) -> Tensor:
        """Calls it."""
        return self.conv(x, edge_index, attr)


def cases(degree: Tensor) -> dict[str, tuple[Callable[[], nn.Module], str, int]]:
    """For each case: how to make it, its third input, the number of node features."""
    f, e = WIDTH, EDGE_WIDTH
    scalers = ["identity", "amplification", "attenuation"]
    aggregators = ["mean", "min", "max", "std"]
    return {
        "GCN": (lambda: pyg.GCNConv(f, f), "", f),
        "SAGE mean": (lambda: pyg.SAGEConv(f, f), "", f),
        "SAGE max": (lambda: pyg.SAGEConv(f, f, aggr="max"), "", f),
        "GIN": (lambda: pyg.GINConv(mlp(f, f, f)), "", f),
        "GINE": (lambda: WithAttr(pyg.GINEConv(mlp(f, f, f), edge_dim=e)), "attr", f),
        "GAT": (lambda: pyg.GATConv(f, f // 4, heads=4), "", f),
        "GATv2": (lambda: pyg.GATv2Conv(f, f // 4, heads=4), "", f),
        "Transformer": (lambda: pyg.TransformerConv(f, f // 4, heads=4), "", f),
        "EdgeConv sum": (lambda: pyg.EdgeConv(mlp(2 * f, f, f), aggr="sum"), "", f),
        "EdgeConv max": (lambda: pyg.EdgeConv(mlp(2 * f, f, f), aggr="max"), "", f),
        "PNA": (lambda: pyg.PNAConv(f, f, aggregators, scalers, degree), "", f),
        "RGCN": (lambda: WithAttr(pyg.RGCNConv(f, f, 8)), "type", f),
        "NNConv": (lambda: WithAttr(pyg.NNConv(16, 16, mlp(e, 16, 256))), "attr", 16),
        "CG": (lambda: WithAttr(pyg.CGConv(f, e)), "attr", f),
        "ResGated": (lambda: pyg.ResGatedGraphConv(f, f), "", f),
        "GCN x3": (lambda: Stack([pyg.GCNConv(f, f) for _ in range(3)]), "", f),
        "GAT x2": (lambda: Stack([pyg.GATConv(f, f // 4, heads=4) for _ in range(2)]), "", f),
        "EdgeNet": (EdgeNet, "", 5),
    }


def graph(nodes: int, edges: int, width: int, third: str) -> Inputs:
    """A random graph, its edges in no order."""
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(nodes, width, generator=generator),
        torch.randint(nodes, (2, edges), generator=generator),
    ]
    if third == "attr":
        inputs.append(torch.randn(edges, EDGE_WIDTH, generator=generator))
    if third == "type":
        inputs.append(torch.randint(8, (edges,), generator=generator))
    return tuple(inputs)


def step(call: Callable[..., Any], inputs: Inputs, *, train: bool) -> float:
    """Seconds of one call."""
    if train:
        inputs = tuple(t.detach().requires_grad_(t.is_floating_point()) for t in inputs)
    started = time.perf_counter()
    if train:
        call(*inputs).square().mean().backward()
    else:
        with torch.no_grad():
            call(*inputs)
    return time.perf_counter() - started


def contenders(make: Callable[[], nn.Module], inputs: Inputs) -> dict[str, Any]:
    """What is compared: each a callable that has run once, or the reason that it has not."""
    model = make()

    def under(kernels: str, install: bool) -> Callable[[Callable[[], Any]], Any]:
        def run(build: Callable[[], Any]) -> Any:
            if install:
                gnnscript.install()
            try:
                with gnnscript.kernels(kernels):
                    call = build()
                    with torch.no_grad():
                        call(*inputs)
                    return call
            except Exception as error:
                return " ".join(str(error).split())[:120] or type(error).__name__
            finally:
                if install:
                    gnnscript.uninstall()

        return run

    plain, native, portable = (
        under("portable", False),
        under("native", True),
        under("portable", True),
    )
    return {
        "eager": plain(lambda: copy.deepcopy(model)),
        "scripted": plain(lambda: torch.jit.script(copy.deepcopy(model))),
        "compiled": plain(lambda: torch.compile(copy.deepcopy(model), dynamic=False)),
        "ours_scripted": native(lambda: torch.jit.script(copy.deepcopy(model))),
        "ours_portable": portable(lambda: torch.jit.script(copy.deepcopy(model))),
        "ours_eager": native(lambda: copy.deepcopy(model)),
    }


def measure(calls: dict[str, Any], inputs: Inputs, turns: int, *, train: bool) -> dict[str, float]:
    """Medians over interleaved turns, in milliseconds."""
    seconds: dict[str, list[float]] = {}
    for turn in range(turns + 1):
        for name, call in calls.items():
            if isinstance(call, str):
                continue
            native = name == "ours_eager"
            if native:
                gnnscript.install()
            try:
                with gnnscript.kernels("native" if native else "portable"):
                    spent = step(call, inputs, train=train)
            finally:
                if native:
                    gnnscript.uninstall()
            if turn > 0:  # the first one compiles
                seconds.setdefault(name, []).append(spent)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=400_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--skip", nargs="*", default=[], choices=(*BASELINES, *OURS))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    degree = torch.bincount(graph(options.nodes, options.edges, 1, "")[1][1])
    names = [*BASELINES, *OURS]
    print("ms".ljust(14), *(name.rjust(14) for name in names), "gain".rjust(7))
    rows: dict[str, Any] = {}
    for case, (make, third, width) in cases(torch.bincount(degree)).items():
        if options.only and case not in options.only:
            continue
        torch.manual_seed(0)
        inputs = graph(options.nodes, options.edges, width, third)
        calls = contenders(make, inputs)
        calls = {name: call for name, call in calls.items() if name not in options.skip}
        times = measure(calls, inputs, options.turns, train=options.train)
        best = min((times[name] for name in BASELINES if name in times), default=math.nan)
        gain = best / times.get("ours_scripted", math.nan)
        failed = {name: call for name, call in calls.items() if isinstance(call, str)}
        rows[case] = {"ms": times, "gain": gain, "failed": failed}
        cells = (f"{times[n]:14.1f}" if n in times else "-".rjust(14) for n in names)
        print(case.ljust(14), *cells, f"{gain:6.1f}x", flush=True)
    gains = [row["gain"] for row in rows.values() if not math.isnan(row["gain"])]
    mean = statistics.geometric_mean(gains) if gains else math.nan
    print(f"geometric mean {mean:.2f}x, least {min(gains, default=math.nan):.2f}x")
    for case, row in rows.items():
        for name, reason in row["failed"].items():
            print(f"{case}: {name} does not run: {reason}")
    if options.json is not None:
        held = {**vars(options), "json": str(options.json), "torch": torch.__version__}
        options.json.write_text(json.dumps({"options": held, "geomean": mean, "cases": rows}))


if __name__ == "__main__":
    main()

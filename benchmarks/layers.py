"""Layers and models: PyG eager, scripted and compiled against gnnscript, on one graph.

Every contender runs in turn in one process, and the medians of the turns are compared, so that
what else the machine does falls on all alike. "scripted" is torch.jit.script on a module of PyG,
where PyG's own scripting takes it; "portable" is ours on ATen calls alone. Edges are unsorted, and
whoever sorts them does so within the time. A training step is forward and backward, to the inputs
as well, and is compared with PyG eager. Prints tables, names what is slower than PyG, writes JSON:

    python benchmarks/layers.py --json layers.json
    python benchmarks/layers.py --only "GAT x2" PNA --tables forward

Where DGL can be imported (``dgl_layers.py``), it is compared as well, its graph built in each call.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import logging
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import environment, extra_memory, interleaved, tensors_mapped, verdict, write
from torch import Tensor, nn
from torch.nn import Linear, ReLU, Sequential
from torch_geometric import nn as pyg

import gnnscript

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "examples"))
from hgcal.edgenet import EdgeNet

try:
    import dgl_layers
except ImportError as error:
    DGL_MISSING: str | None = str(error)
else:
    DGL_MISSING = None

Inputs = tuple[Tensor, ...]
WIDTH = 64
EDGE_WIDTH = 16
BASELINES = ("eager", "scripted", "compiled")
OURS = ("ours_scripted", "ours_eager", "ours_portable")
DGL = "dgl"
SECONDS = 12.0  # for the turns of one row, about
LEAST, WANTED, MEMORY = 1.0, 3.0, 1 / 8


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


def step(call: Callable[..., Any], inputs: Inputs, *, train: bool) -> None:
    """One call."""
    if not train:
        with torch.no_grad():
            call(*inputs)
        return
    inputs = tuple(t.detach().requires_grad_(t.is_floating_point()) for t in inputs)
    call(*inputs).square().mean().backward()


def contenders(
    case: str, make: Callable[[], nn.Module], inputs: Inputs, names: list[str], *, train: bool
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """What is compared: calls that have run once, and why the others have not."""
    model = make()
    builds: dict[str, Callable[[nn.Module], Any]] = {
        "eager": lambda model: model,
        "scripted": torch.jit.script,
        "compiled": lambda model: torch.compile(model, dynamic=False),
        "ours_scripted": torch.jit.script,
        "ours_eager": lambda model: model,
        "ours_portable": torch.jit.script,
        DGL: lambda _: dgl_layers.cases(WIDTH, EDGE_WIDTH, mlp)[case](),
    }
    calls: dict[str, Callable[[], None]] = {}
    failed: dict[str, str] = {}
    for name in names:
        kernels = "native" if name in ("ours_scripted", "ours_eager") else "portable"
        if name in OURS:
            gnnscript.install()
        try:
            with gnnscript.kernels(kernels):
                built = builds[name](copy.deepcopy(model))
                step(built, inputs, train=train)
        except Exception as error:
            failed[name] = " ".join(str(error).split())[:120] or type(error).__name__
            continue
        finally:
            gnnscript.uninstall()
        calls[name] = functools.partial(step, built, inputs, train=train)
    return calls, failed


@contextlib.contextmanager
def surroundings(name: str) -> Iterator[None]:
    """What eager calls of ours run under."""
    if name != "ours_eager":
        yield
        return
    gnnscript.install()
    try:
        with gnnscript.kernels("native"):
            yield
    finally:
        gnnscript.uninstall()


def table(
    title: str, names: list[str], baselines: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Measures and prints one table."""
    train = title == "train"
    print(f"\n{title}, ms".ljust(15), *(name.rjust(14) for name in names), "gain".rjust(7))
    degree = torch.bincount(graph(options.nodes, options.edges, 1, "")[1][1])
    rows: dict[str, Any] = {}
    for case, (make, third, width) in cases(torch.bincount(degree)).items():
        if options.only and case not in options.only:
            continue
        torch.manual_seed(0)
        inputs = graph(options.nodes, options.edges, width, third)
        calls, failed = contenders(case, make, inputs, names, train=train)
        times = interleaved(calls, options.turns, warm=2, budget=SECONDS, within=surroundings)
        best = min((times[name] for name in baselines if name in times), default=math.nan)
        gain = best / times.get("ours_scripted", math.nan)
        rows[case] = {"ms": times, "gain": gain, "failed": failed}
        if DGL in times and "ours_scripted" in times:
            rows[case]["over_dgl"] = times[DGL] / times["ours_scripted"]
        cells = (f"{times[n]:14.1f}" if n in times else "-".rjust(14) for n in names)
        print(case.ljust(14), *cells, f"{gain:6.1f}x", flush=True)
        torch.compiler.reset()
    for case, row in rows.items():
        for name, reason in row["failed"].items():
            print(f"{case}: {name} does not run: {reason}")
    gains = {case: row["gain"] for case, row in rows.items() if not math.isnan(row["gain"])}
    figures = []
    if gains:
        over = "the best of the baselines" if not train else "PyG eager"
        mean = statistics.geometric_mean(gains.values())
        what = f"{title}: geometric mean over {over}"
        figures.append(verdict(what, mean, WANTED, at_least=True))
        worst = min(gains, key=lambda case: gains[case])
        what = f"{title}: the least gain, {worst}"
        figures.append(verdict(what, gains[worst], LEAST, at_least=True))
    over_dgl = {case: row["over_dgl"] for case, row in rows.items() if "over_dgl" in row}
    if over_dgl:
        worst = min(over_dgl, key=lambda case: over_dgl[case])
        what = f"{title}: the least gain over DGL, {worst}"
        figures.append(verdict(what, over_dgl[worst], LEAST, at_least=True))
    for case, gain in gains.items():
        if gain < LEAST:
            print(f"slower than {over}: {case}, {gain:.2f}x")
    return {"rows": rows, "figures": figures}


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a layer beyond its inputs, parameters and what the process held."""
    rows: dict[str, Any] = {}
    figures = []
    print("\nextra memory, MB".ljust(15), *(name.rjust(14) for name in ("eager", "ours_scripted")))
    for case in ("SAGE mean", "GAT"):
        if options.only and case not in options.only:
            continue
        make, third, width = cases(torch.ones(2, dtype=torch.int64))[case]
        inputs = graph(options.nodes, options.edges, width, third)
        calls, _ = contenders(case, make, inputs, ["eager", "ours_scripted"], train=False)
        for call in calls.values():
            for _ in range(2):
                call()
        grown = {name: extra_memory(call) for name, call in calls.items()}
        if None in grown.values():
            print(f"{case}: the peak cannot be read here")
            continue
        rows[case] = grown
        print(case.ljust(16), *(f"{value:14.1f}" for value in grown.values()))
        share = grown["ours_scripted"] / grown["eager"]  # type: ignore[operator]
        what = f"memory of {case}, share of PyG eager's"
        figures.append(verdict(what, share, MEMORY, at_least=False))
    return {"rows": rows, "figures": figures}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=400_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    tables = ("forward", "train", "memory")
    parser.add_argument("--tables", nargs="*", default=tables, choices=tables)
    choices = (*BASELINES, *OURS, DGL)
    parser.add_argument("--skip", nargs="*", default=["ours_portable"], choices=choices)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    results: dict[str, Any] = {"environment": environment(options)}
    about = results["environment"]
    print(f"N={options.nodes} E={options.edges}, {options.threads} threads, {about['cpu']},")
    print(f"torch {about['torch']}, PyG {about['torch_geometric']}, commit {about['commit']}")
    others = [] if DGL_MISSING else [DGL]
    if DGL_MISSING:
        print(f"without DGL: {DGL_MISSING}")
    if "memory" in options.tables:  # first: nothing is freed yet that could be used again
        with tensors_mapped():
            results["memory"] = memory(options)
    if "forward" in options.tables:
        names = [name for name in (*BASELINES, *others, *OURS) if name not in options.skip]
        results["forward"] = table("forward", names, list(BASELINES), options)
    if "train" in options.tables:
        compared = ("eager", *others, "ours_scripted", "ours_eager")
        names = [name for name in compared if name not in options.skip]
        results["train"] = table("train", names, ["eager"], options)
    write(options.json, results)


if __name__ == "__main__":
    main()

"""Measure the kernels against ATen and against the memory: a table, and JSON where asked for.

    python benchmarks/kernels.py [--json kernels.json] [--repeats 15] [--largest 10000000]

The candidates of a row run in turn, round after round, so that what else the machine does falls on
all of them; a figure is the median over the rounds. Edges are unsorted; "with csr" counts sorting
them. The streaming bound is the time in which the same rows are read in order and added up: what a
sum over neighbours costs where reading them costs no more than that. It runs beside ours alone, so
that both find the caches as the other left them, and not as ATen does. Scaling is told by the time
per edge, sorting included, at twenty edges to a node; the time per edge at 1e5 edges is its unit:
fewer edges are measured as well, but there the calls themselves cost more than the edges. Beside
it stand two bounds. "rows in order" reads as many of the same rows one after the other: no order
of the edges is read faster. "compulsory traffic" reads each array once and writes each result
once, which is what a kernel would take that found every row in a cache from its second use on.
Growth is told of ours, of both bounds, and of ours over that of the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import environment, interleaved, verdict, write
from torch import Tensor

from gnnscript.ops import native

Candidates = dict[str, Callable[[], object]]


def uniform(nodes: int, edges: int) -> Tensor:
    return torch.randint(nodes, (edges,))


def zipf(nodes: int, edges: int) -> Tensor:
    """Nodes drawn with probability 1 / rank, the ranks shuffled."""
    rank = torch.exp(torch.rand(edges) * torch.tensor(float(nodes)).log()).long() - 1
    return torch.randperm(nodes)[rank.clamp(0, nodes - 1)]


def sum_of_neighbours(index: Tensor, other: Tensor, x: Tensor) -> Tensor:
    ptr, perm = torch.ops.gnnscript.csr(index, x.size(0))
    return native.edge_reduce("j0", [x], index, other, ptr, perm, "sum")


def rows_in_order(x: Tensor, edges: int) -> Callable[[], Tensor]:
    """Adds up rows that are read one after the other, from the first again after the last."""
    streamed = torch.arange(edges) % x.size(0)
    ptr, perm = torch.ops.gnnscript.csr(streamed.sort().values, x.size(0))
    return lambda: native.edge_reduce("j0", [x], streamed, streamed, ptr, perm, "sum")


def compulsory_traffic(index: Tensor, other: Tensor, x: Tensor) -> None:
    """Reads nodes and edges once, and writes as much as a sum of neighbours and sorting do."""
    x.clone(), index.clone(), other.sum()


def aten_sum(index: Tensor, other: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add_(0, index, x.index_select(0, other))


def aten_softmax(index: Tensor, src: Tensor, nodes: int) -> Tensor:
    at = index.unsqueeze(-1).expand_as(src)
    most = src.new_zeros(nodes, src.size(1)).scatter_reduce_(0, at, src, "amax", include_self=False)
    out = (src - most.index_select(0, index)).exp()
    total = torch.zeros_like(most).index_add_(0, index, out)
    return out / total.index_select(0, index)


def rows(nodes: int, edges: int, features: int) -> dict[str, Candidates]:
    """The rows of the table: what is compared, per row."""
    x, weight = torch.randn(nodes, features), torch.rand(edges)
    index, other, skewed = uniform(nodes, edges), uniform(nodes, edges), zipf(nodes, edges)
    ptr, perm = torch.ops.gnnscript.csr(index, nodes)
    message, scores = torch.randn(edges, features), torch.randn(edges, 4)
    statistics = ["sum", "mean", "min", "max", "std"]

    def reduce(program: str, operands: list[Tensor], how: str = "sum") -> Callable[[], Tensor]:
        return lambda: native.edge_reduce(program, operands, index, other, ptr, perm, how)

    return {
        "csr": {
            "ours": lambda: torch.ops.gnnscript.csr(index, nodes),
            "torch.sort": lambda: torch.sort(index, stable=True),
        },
        "sum x_j": {
            "ours": reduce("j0", [x]),
            "with csr": lambda: sum_of_neighbours(index, other, x),
            "streaming bound": rows_in_order(x, edges),
        },
        "sum x_j, ATen": {
            "ours": lambda: sum_of_neighbours(index, other, x),
            "index_select + index_add_": lambda: aten_sum(index, other, x),
        },
        "sum x_j, Zipf degrees": {
            "ours": lambda: sum_of_neighbours(skewed, other, x),
            "uniform": lambda: sum_of_neighbours(index, other, x),
            "index_select + index_add_": lambda: aten_sum(skewed, other, x),
        },
        "sum w * x_j": {
            "ours": reduce("e0 * j1", [weight.unsqueeze(-1), x]),
            "aten": lambda: torch.zeros_like(x).index_add_(
                0, index, weight.unsqueeze(-1) * x.index_select(0, other)
            ),
        },
        "max relu(x_j + e)": {
            "ours": reduce("relu(j0 + e1)", [x, message], "max"),
            "aten": lambda: torch.zeros_like(x).index_reduce_(
                0, index, (x.index_select(0, other) + message).relu(), "amax", include_self=False
            ),
        },
        "sum sigmoid(x_i + x_j) * x_j": {
            "ours": reduce("sigmoid(i0 + j1) * j1", [x, x]),
            "aten": lambda: torch.zeros_like(x).index_add_(
                0,
                index,
                (x.index_select(0, index) + x.index_select(0, other)).sigmoid()
                * x.index_select(0, other),
            ),
        },
        "sum of one value per edge": {
            "ours": lambda: torch.ops.gnnscript.scatter_reduce(weight, index, nodes, "sum"),
            "edges sorted": lambda: native.segment_reduce(
                weight, *torch.ops.gnnscript.csr(index, nodes), "sum"
            ),
            "aten": lambda: weight.new_zeros(nodes).index_add_(0, index, weight),
        },
        "softmax over 4 heads": {
            "ours": lambda: native.edge_softmax(scores, ptr, perm),
            "aten": lambda: aten_softmax(index, scores, nodes),
        },
        "sum, mean, min, max, std": {
            "ours": lambda: native.segment_reduces(message, ptr, perm, statistics),
            "one by one": lambda: [
                native.segment_reduce(message, ptr, perm, name) for name in statistics
            ],
        },
        "x_i . x_j": {
            "ours": lambda: native.sddmm(index, other, x, x),
            "aten": lambda: (x.index_select(0, index) * x.index_select(0, other)).sum(-1),
        },
    }


def scaling(edges: int, features: int) -> Candidates:
    """Sums of neighbours, sorting included, of so many edges."""
    nodes = max(edges // 20, 1)
    given = uniform(nodes, edges), uniform(nodes, edges), torch.randn(nodes, features)
    candidates: Candidates = {
        "ours": lambda: sum_of_neighbours(*given),
        "rows in order": rows_in_order(given[2], edges),
        "compulsory traffic": lambda: compulsory_traffic(*given),
        "csr": lambda: torch.ops.gnnscript.csr(given[0], nodes),
    }
    if edges <= 10**6:  # beyond, the tensor of all messages takes gigabytes
        candidates["index_select + index_add_"] = lambda: aten_sum(*given)
    return candidates


def figures(results: dict[str, dict[str, float]], sizes: list[int]) -> list[dict[str, Any]]:
    """What is to be reached, and whether it is."""
    sort, total, zipf_ = results["csr"], results["sum x_j"], results["sum x_j, Zipf degrees"]
    ratio = total["ours"] / total["streaming bound"]
    found = [
        verdict("csr, times torch.sort", sort["torch.sort"] / sort["ours"], 4, at_least=True),
        verdict("sum x_j, of the streaming bound", ratio, 1.3, at_least=False),
        verdict(
            "Zipf degrees, of uniform ones", zipf_["ours"] / zipf_["uniform"], 1.5, at_least=False
        ),
    ]
    scaled = {edges: results[_scaled(edges)] for edges in sizes}

    def growth(candidate: str, edges: int) -> float:
        """Time per edge, of that at 1e5 edges."""
        return scaled[edges][candidate] / edges / (scaled[10**5][candidate] / 10**5)

    for edges in sizes:
        bounds = ("rows in order", "compulsory traffic")
        told = ", ".join(f"{bound} {growth(bound, edges):.2f}" for bound in bounds)
        print(f"time per edge at {edges:.0e} edges, of that at 1e5: {told}")
        what, ratio = f"time per edge at {edges:.0e} edges, of that at 1e5", growth("ours", edges)
        found.append(verdict(what, ratio, 1.3, at_least=False))
        what, ratio = f"{what}, over that of rows in order", ratio / growth("rows in order", edges)
        found.append(verdict(what, ratio, 1.3, at_least=False))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=400_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--largest", type=int, default=10**7, help="edges to scale up to")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    about = environment(options)
    print(f"N={options.nodes} E={options.edges} F={options.features}, {options.threads} threads,")
    print(f"{about['cpu']}, torch {about['torch']}, commit {about['commit']}")
    sizes = [edges for edges in (10**4, 10**5, 10**6, 10**7) if edges <= options.largest]
    results: dict[str, dict[str, float]] = {}
    table = rows(options.nodes, options.edges, options.features)
    for name, candidates in table.items():
        results[name] = interleaved(candidates, options.repeats, warm=2, budget=20)
        _print(name, results[name])
    for edges in sizes:
        name, candidates = _scaled(edges), scaling(edges, options.features)
        results[name] = interleaved(candidates, options.repeats, warm=1, budget=40)
        _print(name, results[name])
    print()
    write(
        options.json,
        {"environment": about, "ms": results, "figures": figures(results, sizes)},
    )


def _scaled(edges: int) -> str:
    return f"sum x_j, {edges:.0e} edges"


def _print(name: str, times: dict[str, float]) -> None:
    print(f"\n{name}")
    for candidate, value in times.items():
        print(
            f"  {candidate:28s} {value:10.3f} ms  {value / times['ours']:7.2f} x ours", flush=True
        )


if __name__ == "__main__":
    main()

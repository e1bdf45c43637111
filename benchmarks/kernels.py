"""Measure the kernels against ATen and against the memory: a table, and JSON where asked for.

    python benchmarks/kernels.py [--json kernels.json] [--repeats 15] [--large]

The candidates of a row run in turn, round after round, so that what else the machine does falls on
all of them; a figure is the median over the rounds. Edges are unsorted; "with csr" counts sorting
them. The streaming bound is the time in which the same rows are read in order and added up: what a
sum over neighbours costs where reading them costs no more than that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gnnscript.ops import native

Candidates = dict[str, Callable[[], object]]


def measure(candidates: Candidates, repeats: int) -> dict[str, float]:
    """Return the median time of each candidate in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(repeats + 2):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def uniform(nodes: int, edges: int) -> Tensor:
    return torch.randint(nodes, (edges,))


def zipf(nodes: int, edges: int) -> Tensor:
    """Nodes drawn with probability 1 / rank, the ranks shuffled."""
    rank = torch.exp(torch.rand(edges) * torch.tensor(float(nodes)).log()).long() - 1
    return torch.randperm(nodes)[rank.clamp(0, nodes - 1)]


def sum_of_neighbours(index: Tensor, other: Tensor, x: Tensor) -> Tensor:
    ptr, perm = torch.ops.gnnscript.csr(index, x.size(0))
    return native.edge_reduce("j0", [x], index, other, ptr, perm, "sum")


def aten_sum(index: Tensor, other: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add_(0, index, x.index_select(0, other))


def rows(nodes: int, edges: int, features: int) -> dict[str, Candidates]:
    """The rows of the table: what is compared, per row."""
    x, weight = torch.randn(nodes, features), torch.rand(edges)
    index, other, skewed = uniform(nodes, edges), uniform(nodes, edges), zipf(nodes, edges)
    ptr, perm = torch.ops.gnnscript.csr(index, nodes)
    message = torch.randn(edges, features)
    streamed = torch.arange(edges) % nodes
    in_order, itself = torch.ops.gnnscript.csr(streamed.sort().values, nodes)

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
            "streaming bound": lambda: native.edge_reduce(
                "j0", [x], streamed, streamed, in_order, itself, "sum"
            ),
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
        "x_i . x_j": {
            "ours": lambda: native.sddmm(index, other, x, x),
            "aten": lambda: (x.index_select(0, index) * x.index_select(0, other)).sum(-1),
        },
    }


def scaling(sizes: list[int], features: int) -> dict[str, Candidates]:
    """Sums of neighbours, sorting included, for growing numbers of edges."""
    table = {}
    for edges in sizes:
        nodes = max(edges // 20, 1)
        given = uniform(nodes, edges), uniform(nodes, edges), torch.randn(nodes, features)
        table[f"sum x_j, {edges:.0e} edges"] = {
            "ours": lambda given=given: sum_of_neighbours(*given),
            "index_select + index_add_": lambda given=given: aten_sum(*given),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=400_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--large", action="store_true", help="scale up to 1e7 edges, not 1e6")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    sizes = [10**4, 10**5, 10**6] + ([10**7] if options.large else [])
    table = rows(options.nodes, options.edges, options.features)
    results = {name: measure(candidates, options.repeats) for name, candidates in table.items()}
    for name, candidates in scaling(sizes, options.features).items():
        results[name] = measure(candidates, max(3, options.repeats // 3))
    print(f"N={options.nodes} E={options.edges} F={options.features}, {options.threads} threads")
    for name, times in results.items():
        print(f"\n{name}")
        for candidate, value in times.items():
            print(f"  {candidate:28s} {value:10.3f} ms  {value / times['ours']:7.2f} x ours")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Measure the CUDA kernels: a table, verdicts on the figures to reach, and JSON where asked for.

    python benchmarks/gpu.py [--json gpu.json] [--nodes 200000] [--edges 10000000]

The candidates of a row run in turn, each up to the end of its work on the device; a figure is the
median in milliseconds. The bandwidth of memory is that of a copy of 4 GiB, measured in the same
run, bytes read plus bytes written. "compulsory" counts what a sum over neighbours has to move at
least: every row of x once, two indices for each edge, the bounds of rows, and the result.
"gathered" counts a row of x for each edge, which is what caches have to deliver. `torch.sparse.mm`
is cuSPARSE; a row says where it is faster than our kernel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor
from torch_geometric.nn import SimpleConv

import gnnscript
from gnnscript.ops import native, portable

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "examples"))

ops = torch.ops.gnnscript
Calls = dict[str, Callable[[], object]]
SECONDS = 12.0  # of a row


def index_add(x: Tensor, index: Tensor, other: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add_(0, index, x.index_select(0, other))


def timed(calls: Calls) -> dict[str, Any]:
    """Times what runs, and says of the others why they do not."""
    results: dict[str, Any] = {}
    runs: Calls = {}
    for name, call in calls.items():
        try:
            call()
            torch.cuda.synchronize()
        except (RuntimeError, NotImplementedError) as error:
            results[name] = str(error).splitlines()[0][:200]
            torch.cuda.empty_cache()
        else:
            runs[name] = lambda call=call: (call(), torch.cuda.synchronize())  # type: ignore[misc]
    results.update(common.interleaved(runs, 15, warm=2, budget=SECONDS))
    return results


def show(name: str, row: dict[str, Any]) -> None:
    figures = "  ".join(
        f"{key} {value:.3f}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in row.items()
    )
    print(f"{name:38} {figures}", flush=True)


def best_of_others(row: dict[str, Any]) -> float:
    names = ("index_add", "torch.compile", "PyG eager")
    return min(row[name] for name in names if isinstance(row.get(name), float))


def copy_bandwidth() -> float:
    """Bytes per millisecond."""
    source = torch.empty(2**30, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    row = timed({"copy": lambda: target.copy_(source)})
    return 2 * 4 * 2**30 / row["copy"]


class Graph:
    """The edges of all rows, and what is sorted of them beforehand."""

    def __init__(self, index: Tensor, other: Tensor, nodes: int) -> None:
        self.index, self.other, self.nodes = index, other, nodes
        self.edge_index = torch.stack([other, index])
        self.ptr, self.perm = ops.csr(index, nodes)
        self.sorted_other = other[self.perm]

    def sum(self, x: Tensor) -> Tensor:
        rows = self.ptr, self.perm
        return native.edge_reduce("j0", [x], self.index, self.other, *rows, "sum")

    def sparse(self, dtype: torch.dtype) -> Tensor:
        values = torch.ones(self.index.size(0), dtype=dtype, device="cuda")
        size = (self.nodes, self.nodes)
        return torch.sparse_csr_tensor(self.ptr, self.sorted_other, values, size)


def sums(graph: Graph, bandwidth: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sums of neighbours, forward, and forward with backward."""
    compiled = torch.compile(index_add)
    conv = SimpleConv(aggr="sum")
    table, verdicts = {}, []
    edges, nodes = graph.index.size(0), graph.nodes
    for dtype in (torch.float32, torch.bfloat16):
        matrix = graph.sparse(dtype)
        for features in (64, 128, 256):
            x = torch.randn(nodes, features, device="cuda").to(dtype)
            kept = x.clone().requires_grad_()

            def step(call: Callable[[Tensor], Tensor], kept: Tensor = kept) -> None:
                out = call(kept)
                kept.grad = None
                out.backward(torch.ones_like(out))

            forward: dict[str, Callable[[Tensor], Tensor]] = {
                "ours": graph.sum,
                "index_add": lambda x: index_add(x, graph.index, graph.other),
                "torch.compile": lambda x: compiled(x, graph.index, graph.other),
                "PyG eager": lambda x: conv(x, graph.edge_index),
                "torch.sparse.mm": lambda x, matrix=matrix: torch.sparse.mm(matrix, x),
            }
            with torch.no_grad():
                calls = {name: lambda c=call, x=x: c(x) for name, call in forward.items()}
                sorts = {"ours with csr": lambda x=x: sorted_sum(graph, x)}
                row = timed({**calls, **sorts})
            name = f"sum x_j, F={features}, {str(dtype)[6:]}"
            moved = 2 * nodes * features * dtype.itemsize + 16 * edges + 8 * nodes
            gathered = moved + (edges - nodes) * features * dtype.itemsize
            row["compulsory fraction"] = moved / row["ours"] / bandwidth
            row["gathered fraction"] = gathered / row["ours"] / bandwidth
            if isinstance(row.get("torch.sparse.mm"), float):
                row["faster"] = "cuSPARSE" if row["torch.sparse.mm"] < row["ours"] else "ours"
            table[name] = row
            show(name, row)
            fraction = row["compulsory fraction"]
            verdicts.append(common.verdict(f"{name}: bandwidth", fraction, 0.7, at_least=True))
            ratio = best_of_others(row) / row["ours"]
            verdicts.append(common.verdict(f"{name}: over others", ratio, 3.0, at_least=True))

            trained = timed({n: lambda c=call: step(c) for n, call in forward.items()})
            table[f"{name}, step"] = trained
            show(f"{name}, step", trained)
            ratio = best_of_others(trained) / trained["ours"]
            verdicts.append(common.verdict(f"{name}, step: over others", ratio, 3.0, at_least=True))
            del x, kept
            torch.cuda.empty_cache()
    return table, verdicts


def sorted_sum(graph: Graph, x: Tensor) -> Tensor:
    ptr, perm = ops.csr(graph.index, graph.nodes)
    return native.edge_reduce("j0", [x], graph.index, graph.other, ptr, perm, "sum")


SCORE = "leaky_relu(i0 + j1, 0.2)"


def attention(graph: Graph, scored: list[Tensor], sum_dims: int, heads: Tensor) -> Calls:
    """Attention in one pass over the edges, and by ops for scores, softmax and sum."""
    index, other, ptr, perm = graph.index, graph.other, graph.ptr, graph.perm

    def unfused() -> Tensor:
        scores = ops.edge_map(SCORE, scored, index, other, sum_dims)
        weight = ops.edge_softmax(scores, ptr, perm).unsqueeze(-1)
        return ops.edge_reduce("e0 * j1", [weight, heads], index, other, ptr, perm, "sum")

    call = (SCORE, scored, sum_dims, "j0", [heads], index, other, ptr, perm)
    return {"ours": lambda: ops.edge_attention(*call)[0], "in three passes": unfused}


def attention_gradient(graph: Graph, scored: list[Tensor], sum_dims: int, heads: Tensor) -> Calls:
    """What the gradients of attention need of each edge: its weight, and its score's gradient."""
    index, other, ptr, perm = graph.index, graph.other, graph.ptr, graph.perm
    grad = torch.randn_like(heads)
    call = (SCORE, scored, sum_dims, "j0", [heads], index, other, ptr, perm)
    out, high, total = ops.edge_attention(*call)
    mean = (grad * out).sum(-1)

    def unfused() -> tuple[Tensor, Tensor]:
        scores = ops.edge_map(SCORE, scored, index, other, sum_dims)
        weight = ops.edge_softmax(scores, ptr, perm)
        along = ops.edge_map("j0 * i1", [heads, grad], index, other, 1)
        return weight, weight * (along - mean[index])

    return {
        "ours": lambda: ops.edge_attention_backward(*call, grad, high, total, mean),
        "in several passes": unfused,
    }


def others(graph: Graph, hub: Graph) -> dict[str, Any]:
    """The other kernels, and degrees by Zipf's law."""
    nodes, edges = graph.nodes, graph.index.size(0)
    x = torch.randn(nodes, 64, device="cuda")
    heads = torch.randn(nodes, 4, 16, device="cuda")
    weight = torch.rand(edges, 1, device="cuda")
    terms, scores = torch.randn(nodes, 4, device="cuda"), torch.randn(edges, 4, device="cuda")
    message = torch.randn(edges, 64, device="cuda")
    index, other, ptr, perm = graph.index, graph.other, graph.ptr, graph.perm
    rows: dict[str, Calls] = {
        "csr": {
            "ours": lambda: ops.csr(index, nodes),
            "torch.sort": lambda: torch.sort(index, stable=True),
        },
        "gather": {
            "ours": lambda: ops.gather(x, other),
            "index_select": lambda: x.index_select(0, other),
        },
        "sum of messages": {
            "ours": lambda: ops.segment_reduce(message, ptr, perm, "sum"),
            "index_add": lambda: torch.zeros_like(x).index_add_(0, index, message),
        },
        "mean, min, max, std of messages": {
            "ours": lambda: ops.segment_reduces(message, ptr, perm, ["mean", "min", "max", "std"]),
        },
        "edge softmax, 4 heads": {
            "ours": lambda: ops.edge_softmax(scores, ptr, perm),
            "portable": lambda: portable.softmax(scores, index, None, nodes),
        },
        "attention of GAT, 4 heads": attention(graph, [terms, terms], 0, heads),
        "attention of GATv2, 4 heads": attention(graph, [heads, heads], 1, heads),
        "its gradient": attention_gradient(graph, [heads, heads], 1, heads),
        "sum w x_j": {
            "ours": lambda: ops.edge_reduce("e0 * j1", [weight, x], index, other, ptr, perm, "sum"),
            "index_add": lambda: torch.zeros_like(x).index_add_(0, index, weight * x[other]),
        },
        "sum relu(x_j + e)": {
            "ours": lambda: ops.edge_reduce(
                "relu(j0 + e1)", [x, message], index, other, ptr, perm, "sum"
            ),
            "index_add": lambda: torch.zeros_like(x).index_add_(
                0, index, (x[other] + message).relu()
            ),
        },
        "x_i . x_j, 4 heads": {
            "ours": lambda: ops.edge_map("i0 * j1", [heads, heads], index, other, 1),
            "aten": lambda: (heads[index] * heads[other]).sum(-1),
        },
        "sum x_j, Zipf degrees": {"ours": lambda: hub.sum(x), "uniform": lambda: graph.sum(x)},
    }
    table = {}
    with torch.no_grad():
        for name, calls in rows.items():
            table[name] = timed(calls)
            show(name, table[name])
    return table


def edgenet() -> dict[str, Any]:
    """The calorimeter's EdgeNet on generated hits, scripted, on the GPU and on the CPU."""
    from hgcal.edgenet import EdgeNet
    from hgcal.generator import generate_hits
    from hgcal.graph import build_graph

    data = build_graph(generate_hits(1))
    on_cpu = torch.jit.script(EdgeNet().eval())
    inputs = data.x, data.edge_index
    with torch.no_grad():
        expected = on_cpu(*inputs)
        cpu = common.interleaved({"CPU": lambda: on_cpu(*inputs)}, 5, warm=2)["CPU"]
        on_gpu = on_cpu.to("cuda")
        there = [tensor.cuda() for tensor in inputs]
        row: dict[str, Any] = timed({"GPU": lambda: on_gpu(*there)})
        difference = (on_gpu(*there).cpu() - expected).abs().max().item()
    row |= {"CPU": cpu, "CPU threads": torch.get_num_threads(), "largest difference": difference}
    row |= {"hits": data.num_nodes, "edges": data.num_edges, "times": cpu / row["GPU"]}
    show("EdgeNet", row)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gnnscript.kernels("native")
    torch.manual_seed(0)
    nodes, edges = options.nodes, options.edges
    bandwidth = copy_bandwidth()
    device = torch.cuda.get_device_properties(0)
    print(f"{device.name}, torch {torch.__version__}, copy {bandwidth / 1e9:.2f} TB/s")
    index = torch.randint(nodes, (2, edges), device="cuda")
    rank = (torch.rand(edges, device="cuda", dtype=torch.float64) * torch.tensor(nodes).log()).exp()
    skewed = torch.randperm(nodes, device="cuda")[(rank.long() - 1).clamp(0, nodes - 1)]
    graph, hub = Graph(index[0], index[1], nodes), Graph(skewed, index[1], nodes)
    results: dict[str, Any] = {
        **common.environment(options),
        "gpu": {"name": device.name, "memory": device.total_memory, "cuda": torch.version.cuda},
        "copy_bytes_per_second": bandwidth * 1e3,
    }
    results["others"] = others(graph, hub)
    common.write(options.json, results)
    results["sums"], results["verdicts"] = sums(graph, bandwidth)
    common.write(options.json, results)
    del graph, hub
    gnnscript.install()  # only now: SimpleConv above is eager PyG
    results["edgenet"] = edgenet()
    common.write(options.json, results)


if __name__ == "__main__":
    main()

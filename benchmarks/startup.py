"""What gnnscript costs before a model runs: importing it, and scripting.

Measures, in fresh processes that take turns, the import of PyG with and without ``gnnscript.auto``,
and the time to script a 3-layer GCN with and without it, and a 3-layer GAT with it. Prints a table
and writes JSON::

    python benchmarks/startup.py --rounds 7 --json startup.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

IMPORT = """
import time, torch
start = time.perf_counter()
import torch_geometric.nn
{auto}
print(time.perf_counter() - start)
"""
SCRIPT = """
import time, torch, warnings
warnings.simplefilter("ignore")
{auto}
from torch_geometric.nn import {conv}
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = {conv}(16, 32), {conv}(32, 32), {conv}(32, 4)
    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        x = self.first(x, edge_index).relu()
        return self.third(self.second(x, edge_index).relu(), edge_index)
model = Net()
start = time.perf_counter()
torch.jit.script(model)
print(time.perf_counter() - start)
"""
AUTO = "import gnnscript.auto"
MEASURES = {
    "import torch_geometric.nn": IMPORT.format(auto=""),
    "import torch_geometric.nn, gnnscript.auto": IMPORT.format(auto=AUTO),
    "script 3 x GCNConv, PyG alone": SCRIPT.format(auto="", conv="GCNConv"),
    "script 3 x GCNConv": SCRIPT.format(auto=AUTO, conv="GCNConv"),
    "script 3 x GATConv": SCRIPT.format(auto=AUTO, conv="GATConv"),
}


def seconds(code: str) -> float:
    """Runs code in a fresh process on one thread; returns the number that it prints."""
    # A file of its own: classes without a source file are not scripted.
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"startup_{os.getpid()}.py"
    path.write_text(code, encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        path.unlink()
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=Path("startup.json"))
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in MEASURES}
    for number in range(options.rounds + 1):
        for name, code in MEASURES.items():
            taken = seconds(code)
            if number:  # the first round fills the file cache
                times[name].append(taken)
    table = {
        name: {"median_ms": 1e3 * statistics.median(taken), "min_ms": 1e3 * min(taken)}
        for name, taken in times.items()
    }
    print(f"{'':45}  median ms   min ms")
    for name, row in table.items():
        print(f"{name:45}  {row['median_ms']:9.0f}  {row['min_ms']:7.0f}")
    # Differences of the minima: noise only adds time.
    plain, auto = (table[name]["min_ms"] for name in list(MEASURES)[:2])
    print(f"{'gnnscript.auto beyond PyG':45}  {'':9}  {auto - plain:7.0f}")
    options.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What gnnscript costs before a model runs: importing it, and scripting.

Measures, in fresh processes that take turns, the import of PyG with and without ``gnnscript.auto``,
and the time to script a 3-layer GCN with and without it, and a 3-layer GAT with it. Prints a table
and writes JSON::

    python benchmarks/startup.py --rounds 7 --reference path/to/python-with-pyg-2.5

The reference is a Python whose PyG scripts GCNConv by itself, as PyG 2.5 does; by default, this
one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common

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
VERSION = "import torch_geometric as pyg; print(pyg.__version__)"
PLAIN, OURS = "import torch_geometric.nn", "import torch_geometric.nn, gnnscript.auto"
GCN, GAT = "script 3 x GCNConv", "script 3 x GATConv"
REFERENCE = "script 3 x GCNConv, PyG alone"
MEASURES = {
    PLAIN: IMPORT.format(auto=""),
    OURS: IMPORT.format(auto=AUTO),
    REFERENCE: SCRIPT.format(auto="", conv="GCNConv"),
    GCN: SCRIPT.format(auto=AUTO, conv="GCNConv"),
    GAT: SCRIPT.format(auto=AUTO, conv="GATConv"),
}


def last_word(python: str, code: str) -> str:
    """Runs code in a fresh process on one thread; returns the last word that it prints."""
    # A file of its own: classes without a source file are not scripted.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "startup.py"
        path.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [python, str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr}")
    return done.stdout.split()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reference", default=sys.executable, help="a Python that has PyG 2.5")
    results = Path(__file__).resolve().parent / "results" / "startup.json"
    parser.add_argument("--json", type=Path, default=results, help="default: %(default)s")
    options = parser.parse_args()
    reference = last_word(options.reference, VERSION)
    times: dict[str, list[float]] = {name: [] for name in MEASURES}
    for number in range(options.rounds + 1):
        for name, code in MEASURES.items():
            python = options.reference if name == REFERENCE else sys.executable
            taken = float(last_word(python, code))
            if number:  # the first round fills the file cache
                times[name].append(taken)
    table = {
        name: {"median_ms": 1e3 * statistics.median(taken), "min_ms": 1e3 * min(taken)}
        for name, taken in times.items()
    }
    options.reference = f"PyG {reference}"
    about = common.environment(options)
    print(f"torch {about['torch']}, PyG {about['torch_geometric']}, {about['cpu']}")
    print(f"commit {about['commit']}; the reference has PyG {reference}\n")
    print(f"{'':45}  median ms   min ms")
    for name, row in table.items():
        print(f"{name:45}  {row['median_ms']:9.0f}  {row['min_ms']:7.0f}")
    print()
    # Of the minima: noise only adds time.
    least = {name: row["min_ms"] for name, row in table.items()}
    beyond, ratio = least[OURS] - least[PLAIN], least[GAT] / least[REFERENCE]
    figures = [
        common.verdict("gnnscript.auto beyond PyG, ms", beyond, 50, at_least=False),
        common.verdict(f"{GAT} / {REFERENCE}", ratio, 2, at_least=False),
    ]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    common.write(options.json, {"environment": about, "times": table, "figures": figures})


if __name__ == "__main__":
    main()

"""Throughput of a served network: inferences per minute against the number of client processes.

    python benchmarks/serving.py --output serving          # writes serving.json and serving.png

One Triton server holds EdgeNet as PyG scripts it by itself, and as gnnscript does with portable and
with native ops, with and without merging the requests that wait. Client processes, which import no
torch, send graphs of calorimeter hits one after the other. The measurements of all variants are
interleaved, so that what else happens on the machine meets all alike, and are repeated, so that the
table and the plot have errors: the standard deviation over the repetitions.

With its defaults it takes about a quarter of an hour, with ``--quick`` less than three minutes:
fewer numbers of clients, variants and repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


@dataclass
class Point:
    """One variant, at one number of clients.

    Attributes:
        variant: Such as ``native, merged``.
        clients: Number of client processes.
        per_minute: Inferences per minute, one number per repetition.
        latencies: Seconds that each request took, of all repetitions.
    """

    variant: str
    clients: int
    per_minute: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The point as it is written to the JSON file; times in milliseconds."""
        spread = statistics.stdev(self.per_minute) if len(self.per_minute) > 1 else 0.0
        quantiles = np.quantile(self.latencies, [0.5, 0.95, 0.99]) * 1e3
        return {
            "variant": self.variant,
            "clients": self.clients,
            "per_minute": statistics.fmean(self.per_minute),
            "per_minute_std": spread,
            "repetitions": self.per_minute,
            "requests": len(self.latencies),
            **dict(zip(("p50_ms", "p95_ms", "p99_ms"), map(float, quantiles), strict=True)),
        }


# -- the client processes -------------------------------------------------------------------------


def work() -> None:
    """Answers each line on the standard input, a JSON object, by a list of latencies in seconds."""
    from gnnscript.client import Client

    assert "torch" not in sys.modules
    graphs: list[tuple[np.ndarray, np.ndarray]] = []
    clients: dict[str, Client] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "graphs" in job:
            data = np.load(job["graphs"])
            graphs = [(data[f"x{n}"], data[f"e{n}"]) for n in range(len(data.files) // 2)]
            print(json.dumps([]), flush=True)
            continue
        client = clients.setdefault(
            job["model"], Client(job["url"], job["model"], timeout=job["timeout"])
        )
        latencies = []
        number = job["first"]
        while time.time() < job["start"]:
            time.sleep(0.001)
        while (begun := time.time()) < job["end"]:
            client(*graphs[number % len(graphs)])
            latencies.append((begun, time.time() - begun))
            number += 1
        print(json.dumps(latencies), flush=True)


class Workers:
    """Client processes that live as long as the benchmark."""

    def __init__(self, number: int, graphs: Path) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            for _ in range(number)
        ]
        for process in self._processes:
            self._ask(process, {"graphs": str(graphs)})
        for process in self._processes:
            self._answer(process)

    def run(self, clients: int, url: str, model: str, seconds: float) -> list[list[list[float]]]:
        """Lets so many clients call a model for a while: start and duration of each request."""
        start = time.time() + 0.2
        chosen = self._processes[:clients]
        for number, process in enumerate(chosen):
            job = {
                "url": url,
                "model": model,
                "first": number,
                "start": start,
                "end": start + seconds,
                "timeout": 600.0,
            }
            self._ask(process, job)
        return [self._answer(process) for process in chosen]

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()

    @staticmethod
    def _ask(process: subprocess.Popen[str], job: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("a client process has ended; its error stands above")
        return json.loads(line)


# -- the models -----------------------------------------------------------------------------------


def make_graphs(number: int, wedges: int) -> list[Any]:
    """Parts of generated endcaps, each a graph that a client sends."""
    from hgcal.generator import generate_hits
    from hgcal.graph import build_graph
    from hgcal.graph import wedges as cut

    graphs: list[Any] = []
    seed = 0
    while len(graphs) < number:
        graphs += cut(build_graph(generate_hits(seed)), wedges)
        seed += 1
    return graphs[:number]


def export(repository: Path, graphs: Sequence[Any], options: argparse.Namespace) -> list[str]:
    """Writes all variants into a model repository, and returns their names."""
    import torch

    from gnnscript.deploy import triton
    from gnnscript.deploy.package import scripted_for
    from hgcal.edgenet import EdgeNet

    torch.manual_seed(0)
    model = EdgeNet(hidden_channels=options.width, num_layers=options.layers).eval()
    small = [(g.x, g.edge_index) for g in make_graphs(2, 200)]
    scripted = {"PyG": torch.jit.script(model)}  # no gnnscript here: what PyG does by itself
    for kernels in ("portable", "native"):
        if kernels in options.kernels:
            scripted[kernels] = scripted_for(model, kernels)
    names = []
    for name, made in scripted.items():
        for merge in (choice == "on" for choice in options.merge):
            variant = f"{name}_{'merged' if merge else 'apart'}"
            triton(
                made,
                small,
                repository,
                variant,
                merge=merge,
                instances=options.instances,
                threads=options.threads,
            )
            names.append(variant)
    graph = graphs[0]
    with torch.no_grad():
        wanted = model(graph.x, graph.edge_index)
        for made in scripted.values():
            torch.testing.assert_close(
                made(graph.x, graph.edge_index), wanted, rtol=1e-3, atol=1e-4
            )
    return names


# -- measuring ------------------------------------------------------------------------------------


def measure(
    workers: Workers, url: str, variants: Sequence[str], options: argparse.Namespace
) -> list[Point]:
    """Measures all variants at all numbers of clients, interleaved."""
    points = {(v, c): Point(v, c) for v in variants for c in options.clients}
    for variant in variants:
        workers.run(1, url, variant, 1.0)
    for repetition in range(options.repetitions):
        for clients in options.clients:
            for position in range(len(variants)):
                variant = variants[(position + repetition) % len(variants)]
                begun = time.time()
                answers = workers.run(clients, url, variant, options.seconds)
                end = begun + 0.2 + options.seconds
                latencies = [(start, took) for answer in answers for start, took in answer]
                # What ended late counts by the part that lay within.
                done = sum(min(1.0, max(0.0, (end - start) / took)) for start, took in latencies)
                point = points[variant, clients]
                point.per_minute.append(60 * done / options.seconds)
                point.latencies += [took for _, took in latencies]
                print(
                    f"{repetition + 1}/{options.repetitions}  {clients:3d} clients  {variant:16s} "
                    f"{point.per_minute[-1]:9.0f} per minute",
                    file=sys.stderr,
                    flush=True,
                )
    return list(points.values())


def table(points: Sequence[Point]) -> str:
    """The results as text."""
    lines = [
        "variant           clients  inferences/min        p50 ms    p95 ms    p99 ms",
        "----------------  -------  -------------------  --------  --------  --------",
    ]
    for point in points:
        s = point.summary()
        lines.append(
            f"{s['variant']:16s}  {s['clients']:7d}  {s['per_minute']:9.0f} +- "
            f"{s['per_minute_std']:6.0f}  {s['p50_ms']:8.1f}  {s['p95_ms']:8.1f}  "
            f"{s['p99_ms']:8.1f}"
        )
    return "\n".join(lines)


def ratios(points: Sequence[Point]) -> list[str]:
    """How many times as many inferences as PyG's own each variant makes."""
    rates = {(p.variant, p.clients): statistics.fmean(p.per_minute) for p in points}
    lines = []
    for variant in dict.fromkeys(point.variant for point in points):
        reference = f"PyG_{variant.partition('_')[2]}"
        if variant == reference:
            continue
        found = [
            f"{clients}: {rate / rates[reference, clients]:.2f}"
            for (name, clients), rate in rates.items()
            if name == variant and rates.get((reference, clients))
        ]
        lines.append(f"{variant} over {reference}, by clients: {', '.join(found)}")
    return lines


def plot(points: Sequence[Point], title: str, file: Path) -> None:
    """Draws inferences per minute against clients, with error bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for variant in dict.fromkeys(point.variant for point in points):
        rows = [point.summary() for point in points if point.variant == variant]
        axes.errorbar(
            [row["clients"] for row in rows],
            [row["per_minute"] for row in rows],
            [row["per_minute_std"] for row in rows],
            marker="o",
            markersize=4,
            capsize=3,
            linestyle="--" if variant.endswith("apart") else "-",
            label=variant.replace("_", ", "),
        )
    axes.set_xlabel("client processes")
    axes.set_ylabel("inferences per minute")
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="other defaults, for a first look")
    parser.add_argument("--clients", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--kernels", nargs="*", choices=["portable", "native"])
    parser.add_argument("--merge", nargs="+", choices=["on", "off"])
    parser.add_argument("--graphs", type=int, default=48, help="different graphs that are sent")
    parser.add_argument("--wedges", type=int, default=24, help="1: whole endcaps")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--instances", type=int, default=cores, help="processes of each model")
    parser.add_argument("--threads", type=int, default=1, help="of each instance")
    parser.add_argument("--output", type=Path, default=Path("serving"), help="without suffix")
    options = parser.parse_args(argv)
    for name, usual, quick in (
        ("clients", [1, 2, 4, 8, 16, 30], [1, 4, 30]),
        ("seconds", 5.0, 4.0),
        ("repetitions", 3, 2),
        ("kernels", ["portable", "native"], ["native"]),
        ("merge", ["on", "off"], ["on"]),
    ):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse(argv)
    sys.path.insert(0, str(EXAMPLES))
    import torch

    from gnnscript.deploy import Server

    graphs = make_graphs(options.graphs, options.wedges)
    nodes = statistics.fmean(graph.num_nodes for graph in graphs)
    edges = statistics.fmean(graph.num_edges for graph in graphs)
    title = (
        f"EdgeNet, {nodes:,.0f} hits and {edges:,.0f} edges a graph; "
        f"{options.instances} x {options.threads} threads, {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(prefix="gnnscript-bench-") as folder:
        repository = Path(folder) / "models"
        variants = export(repository, graphs, options)
        file = Path(folder) / "graphs.npz"
        arrays = {}
        for number, graph in enumerate(graphs):
            arrays[f"x{number}"] = graph.x.numpy()
            arrays[f"e{number}"] = graph.edge_index.numpy()
        np.savez(file, **arrays)
        workers = Workers(max(options.clients), file)
        try:
            with Server(repository) as server:
                server_url = server.http_url
                points = measure(workers, server_url, variants, options)
        finally:
            workers.close()
    text = "\n".join([title, "", table(points), "", *ratios(points)])
    print(text)
    settings = {key: value for key, value in asdict_of(options).items() if key != "output"}
    result = {
        "title": title,
        "torch": torch.__version__,
        "settings": settings,
        "points": [point.summary() for point in points],
    }
    json_file = options.output.with_suffix(".json")
    json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    try:
        plot(points, title, options.output.with_suffix(".png"))
    except ImportError:
        print("no plot: it needs matplotlib (pip install 'gnnscript[bench]')", file=sys.stderr)


def asdict_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON takes them."""
    return {key: str(v) if isinstance(v, Path) else v for key, v in vars(options).items()}


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
    else:
        main()

"""Compares a model in Python, scripted, and reloaded in a process that imports torch alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bare import BareModel

TOLERANCE = 1e-5
"""Largest difference, in units of the largest output, that float32 rounding can explain.

One rounding is 6e-8; six layers that each sum over some thirty neighbours add up many.
"""

WARM_UP = 3
"""Calls before any is timed. TorchScript records types in the first, and optimises after it."""

KINDS = ("eager", "scripted", "reloaded")


@dataclass(frozen=True)
class Row:
    """What was found on one graph.

    Attributes:
        model, graph: Their names.
        nodes, edges: The size of the graph.
        difference: Largest absolute difference between any two of the three outputs.
        scale: Largest absolute value of the eager output.
        size: Bytes of the saved file.
        milliseconds: Median time of one call, by `KINDS`.
    """

    model: str
    graph: str
    nodes: int
    edges: int
    difference: float
    scale: float
    size: int
    milliseconds: Mapping[str, float]

    @property
    def equal(self) -> bool:
        """Whether the three outputs are equal within float32 rounding."""
        # Written so that a NaN, which compares false, is not equal.
        return self.difference <= TOLERANCE * max(1.0, self.scale)


def compare(
    name: str,
    model: torch.nn.Module,
    graphs: Mapping[str, tuple[Tensor, Tensor]],
    *,
    rounds: int = 7,
    seconds: float = 12.0,
) -> list[Row]:
    """Scripts a model unchanged, saves it, reloads it in a bare process, and compares the three.

    The calls of the three are interleaved, so that a slow moment of the machine meets all alike.

    Args:
        name: What the table calls the model.
        model: The eager model; it is put into eval mode.
        graphs: By name, `x` float32 [N, F] and `edge_index` int64 [2, E]; the model is warmed up
            on the first, so give the smallest first.
        rounds: Number of timed calls of each kind on each graph.
        seconds: Where a graph has taken so long, two rounds must do.

    Returns:
        One row per graph.

    Raises:
        RuntimeError: If the saved model does not run in the bare process.
    """
    model.eval()
    scripted = torch.jit.script(model)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.pt"
        scripted.save(str(path))
        with BareModel(path, list(graphs.values()), Path(directory)) as bare, torch.no_grad():

            def call(number: int, x: Tensor, edge_index: Tensor) -> list[tuple[Tensor, float]]:
                return [
                    _timed(model, x, edge_index),
                    _timed(scripted, x, edge_index),
                    bare.run(number),
                ]

            for number, (graph, (x, edge_index)) in enumerate(graphs.items()):
                if number == 0:
                    for _ in range(WARM_UP):
                        call(number, x, edge_index)
                difference = scale = 0.0
                times: list[list[float]] = []
                for _ in _rounds(f"{name}, {graph}", rounds, seconds):
                    outputs, milliseconds = zip(*call(number, x, edge_index), strict=True)
                    difference = _largest(difference, _difference(outputs))
                    scale = _largest(scale, float(outputs[0].abs().max()))
                    times.append(list(milliseconds))
                medians = [statistics.median(column) for column in zip(*times, strict=True)]
                rows.append(
                    Row(
                        model=name,
                        graph=graph,
                        nodes=len(x),
                        edges=edge_index.shape[1],
                        difference=difference,
                        scale=scale,
                        size=path.stat().st_size,
                        milliseconds=dict(zip(KINDS, medians, strict=True)),
                    )
                )
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Writes rows as a table of plain text.

    Args:
        rows: What `compare` returns.

    Returns:
        Lines of equal columns, the first with their names.
    """
    head = [
        "model", "graph", "nodes", "edges", "eager = scripted = reloaded", "file",
        *(f"{kind} ms" for kind in KINDS),
    ]  # fmt: skip
    cells = [
        [
            row.model,
            row.graph,
            f"{row.nodes:,}",
            f"{row.edges:,}",
            f"{'yes' if row.equal else 'NO'}, max diff {row.difference:.1e}",
            f"{row.size / 1000:.0f} kB",
            *(f"{row.milliseconds[kind]:,.1f}" for kind in KINDS),
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    left = (0, 1, 4)
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if column in left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, ["-" * width for width in widths], *cells)
    )


def _timed(model: torch.nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, float]:
    start = time.perf_counter()
    output = model(x, edge_index)
    return output, 1000 * (time.perf_counter() - start)


def _rounds(label: str, rounds: int, seconds: float) -> Iterator[int]:
    start = time.perf_counter()
    # A bar only where it takes long: `delay` holds it back for the first second.
    with tqdm(desc=label, total=rounds, unit="round", delay=1.0, leave=False) as bar:
        for number in range(rounds):
            if number >= 2 and time.perf_counter() - start > seconds:
                return
            yield number
            bar.update()


def _difference(outputs: Sequence[Tensor]) -> float:
    eager, *others = outputs
    for kind, other in zip(KINDS[1:], others, strict=True):
        if other.shape != eager.shape or other.dtype != eager.dtype:
            raise RuntimeError(
                f"expected the {kind} model to return {eager.dtype} {tuple(eager.shape)} like the "
                f"eager one, got {other.dtype} {tuple(other.shape)}"
            )
    stacked = torch.stack(list(outputs))
    if stacked.numel() == 0:
        return 0.0
    return float((stacked.amax(dim=0) - stacked.amin(dim=0)).max())


def _largest(one: float, other: float) -> float:
    """The larger; NaN where either is, which `max` would let slip."""
    return float(torch.tensor([one, other]).max())

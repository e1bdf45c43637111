"""Runs a saved model in a process of its own that imports torch alone.

This file is both sides: `BareModel` starts it as a script (`python bare.py model.pt graphs.pt
threads`), which then answers each line `<graph> <output file>` on its standard input with one
line: the milliseconds the model took. It imports nothing but torch and the standard library.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

FORBIDDEN = ("torch_geometric", "gnnscript")


class BareModel:
    """A saved model, loaded in a fresh process that imports torch alone.

    Use it in a `with` block: the process ends with it. It runs torch on as many threads as this
    process does.

    Args:
        model: A saved TorchScript file.
        graphs: The arguments of each call that will be asked for.
        directory: Where the tensors are exchanged.
    """

    def __init__(self, model: Path, graphs: Sequence[tuple[Tensor, ...]], directory: Path) -> None:
        self._output = directory / "output.pt"
        self._errors = directory / "errors.txt"
        self._failed = False  # and `run` has said so
        torch.save(list(graphs), directory / "graphs.pt")
        with self._errors.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    model,
                    directory / "graphs.pt",
                    str(torch.get_num_threads()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> BareModel:  # noqa: PYI034  typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes its input, which ends it
        if kind is None and self._process.returncode != 0 and not self._failed:
            raise self._failure()

    def run(self, graph: int) -> tuple[Tensor, float]:
        """Calls the model once, without gradients.

        Args:
            graph: Position in `graphs`.

        Returns:
            The output, and the milliseconds the call took inside the process.

        Raises:
            RuntimeError: If the model does not load or run there, or anything imports PyG or
                gnnscript; with what the process wrote.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(graph, self._output, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None
        answer = self._process.stdout.readline()
        if not answer:
            raise self._failure()
        return torch.load(self._output, weights_only=True), float(answer)

    def _failure(self) -> RuntimeError:
        self._failed = True
        code = self._process.wait()
        return RuntimeError(
            "expected the saved model to run in a process with torch alone, which ended with exit "
            f"code {code}:\n{self._errors.read_text(encoding='utf-8')}"
        )


def assert_bare() -> None:
    """Raises an AssertionError where this process has imported PyG or gnnscript."""
    for name in FORBIDDEN:
        assert name not in sys.modules, f"this process imports {name}"


def serve(model: str, graphs: str, threads: str) -> None:
    """Answers requests on standard input until it closes."""
    torch.set_num_threads(int(threads))
    calls = torch.load(graphs, weights_only=True)
    loaded = torch.jit.load(model)
    loaded.eval()
    for line in sys.stdin:
        graph, output = line.rstrip("\n").split(" ", 1)
        with torch.no_grad():
            start = time.perf_counter()
            result = loaded(*calls[int(graph)])
            milliseconds = 1000 * (time.perf_counter() - start)
        torch.save(result, output)
        assert_bare()
        print(milliseconds, flush=True)
    assert_bare()


if __name__ == "__main__":
    serve(*sys.argv[1:])

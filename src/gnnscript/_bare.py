"""A fresh process that imports only torch, in which saved models prove that they stand alone.

A model on native ops needs the op library: the process loads it for such a model, and for no other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import torch
from typing_extensions import Self

from gnnscript.ops import library

__all__ = ["SEED", "BareProcess", "Call", "Saved", "arguments", "run_bare"]

Call: TypeAlias = "tuple[Any, ...] | dict[str, Any]"
"""The arguments of one call: a tuple of positional ones or a dict of keyword ones."""

Saved: TypeAlias = "torch.jit.ScriptModule | bytes | str | os.PathLike[str]"
"""A scripted module, or one already saved: its bytes or the path of its file."""

SEED = 20_231
# The fresh process: one job per line of input, each the path of a folder with `model.pt` and
# `calls.pt`, and `libraries.txt`, the op libraries that the model needs; answers "ok" or "error"
# and leaves `outputs.pt` or `error.txt` in the folder.
_WORKER = """
import os, sys, traceback
channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a model prints must not be taken for an answer
try:
    import torch
except ImportError:
    sys.path.append(sys.argv[1])
    import torch
torch.set_num_threads(int(sys.argv[2]))

def plain(value):
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.detach() if isinstance(value, torch.Tensor) else value

def run(folder):
    with open(os.path.join(folder, "libraries.txt"), encoding="utf-8") as file:
        for library in file.read().splitlines():
            torch.ops.load_library(library)
    model = torch.jit.load(os.path.join(folder, "model.pt"))
    calls = torch.load(os.path.join(folder, "calls.pt"), weights_only=True)
    outputs = []
    for seed, args, kwargs in calls:
        torch.manual_seed(seed)
        with torch.no_grad():
            outputs.append(plain(model(*args, **kwargs)))
    for name in ("torch_geometric", "gnnscript"):
        assert name not in sys.modules, f"the process has imported {name}"
    torch.save(outputs, os.path.join(folder, "outputs.pt"))

for line in sys.stdin:
    folder = line.rstrip("\\n")
    try:
        run(folder)
        answer = "ok"
    except BaseException:
        with open(os.path.join(folder, "error.txt"), "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        answer = "error"
    print(answer, file=channel, flush=True)
"""


class BareProcess:
    """A fresh Python process that imports torch, and neither PyG nor gnnscript.

    It starts with the first model, serves any number of them, and ends with :meth:`close` or
    at the end of a ``with`` block, so that a whole suite pays for one import of torch. It runs
    in Python's isolated mode: ``PYTHONPATH`` and the working directory are not searched.

    Args:
        timeout: Seconds after which a model that has not answered is given up.
        threads: Number of threads torch uses in the process.
    """

    def __init__(self, *, timeout: float = 300.0, threads: int = 1) -> None:
        self._timeout = timeout
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._jobs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, model: Saved, calls: Sequence[Call], *, seed: int = SEED) -> list[Any]:
        """Loads a scripted model in the process and calls it without gradients.

        Args:
            model: A scripted module, the bytes of a saved one, or the path of its file.
            calls: The arguments of each call, as a tuple or as a dict of keyword arguments.
            seed: Seed of torch's random numbers before each call.

        Returns:
            The output of each call.

        Raises:
            AssertionError: The model does not load or does not run there. The message quotes
                the traceback of the process.
        """
        process, root = self._start()
        folder = root / str(self._jobs)
        self._jobs += 1
        folder.mkdir()
        if isinstance(model, torch.jit.ScriptModule):
            torch.jit.save(model, folder / "model.pt")
        else:
            data = model if isinstance(model, bytes) else Path(model).read_bytes()
            (folder / "model.pt").write_bytes(data)
        needed = library.paths() if _is_native(folder / "model.pt") else []
        (folder / "libraries.txt").write_text("\n".join(map(str, needed)), encoding="utf-8")
        torch.save([(seed, *arguments(call)) for call in calls], folder / "calls.pt")

        answer = self._ask(process, str(folder))
        if answer == "error":
            report = (folder / "error.txt").read_text(encoding="utf-8")
            raise AssertionError(
                "the saved model does not run in a process that imports only torch:\n" + report
            )
        if answer != "ok":
            self.close()
            raise AssertionError(
                "the process that imports only torch ended, or did not answer within "
                f"{self._timeout:g} s, while it ran the saved model:\n{answer}"
            )
        outputs: list[Any] = torch.load(folder / "outputs.pt", weights_only=True)
        return outputs

    def close(self) -> None:
        """Ends the process and removes what was passed to it; may be called twice."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> tuple[subprocess.Popen[str], Path]:
        if self._process is None or self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="gnnscript-bare-")
            site = Path(torch.__file__).resolve().parents[1]
            command = [sys.executable, "-I", "-c", _WORKER, str(site), str(self._threads)]
            stderr_path = Path(self._folder.name) / "stderr"
            with stderr_path.open("w", encoding="utf-8") as stderr:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    cwd=self._folder.name,
                )
        return self._process, Path(self._folder.name)

    def _ask(self, process: subprocess.Popen[str], question: str) -> str:
        """Returns "ok" or "error", or what the process wrote to stderr before it ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._timeout, process.kill)
        timer.start()
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if answer or self._folder is None:
            return answer
        process.wait()
        stderr = (Path(self._folder.name) / "stderr").read_text(encoding="utf-8")
        return f"exit code {process.returncode}\n{stderr[-4000:]}"


def _is_native(model: Path) -> bool:
    """Whether the code of a saved model calls ops of gnnscript's library."""
    if not zipfile.is_zipfile(model):
        return False  # torch says what is wrong with it
    with zipfile.ZipFile(model) as archive:
        code = [name for name in archive.namelist() if name.endswith(".py")]
        return any(b"ops.gnnscript." in archive.read(name) for name in code)


def run_bare(jobs: Sequence[tuple[Saved, Sequence[Call]]], *, seed: int = SEED) -> list[list[Any]]:
    """Runs many saved models in one fresh process that imports only torch.

    Args:
        jobs: Pairs of a model and the calls to make, as in :meth:`BareProcess.run`.
        seed: Seed of torch's random numbers before each call.

    Returns:
        For each job the outputs of its calls.

    Raises:
        AssertionError: A model does not load or run there; the message says which.
    """
    results = []
    with BareProcess() as process:
        for number, (model, calls) in enumerate(jobs):
            try:
                results.append(process.run(model, calls, seed=seed))
            except AssertionError as error:
                raise AssertionError(f"job {number}: {error}") from None
    return results


def arguments(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the positional and the keyword arguments of a call."""
    if isinstance(call, tuple):
        return call, {}
    if isinstance(call, dict):
        return (), call
    raise TypeError(
        "expected the arguments of a call as a tuple, or as a dict of keyword arguments, got "
        f"{type(call).__name__}; write (x,) for a single argument"
    )

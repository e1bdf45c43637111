"""What the benchmarks share: how they time, what they say of the machine, what they write."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

__all__ = ["environment", "extra_memory", "interleaved", "verdict", "write"]


def interleaved(
    calls: dict[str, Callable[[], object]],
    turns: int,
    *,
    warm: int = 1,
    budget: float = 1e9,
    within: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> dict[str, float]:
    """Median time of each call, in milliseconds.

    Args:
        calls: What is timed; they run in turn, so that what else the machine does falls on all.
        turns: How often each is timed.
        warm: How many turns before that are not.
        budget: Seconds after which no further turn begins, once each call was timed twice.
        within: What a call runs within, by its name; entering and leaving it is not timed.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for turn in range(warm + turns):
        if turn >= warm + 2 and time.perf_counter() - began > budget:
            break
        for name, call in calls.items():
            with within(name):
                started = time.perf_counter()
                call()
                ended = time.perf_counter()
            if turn >= warm:
                spent[name].append(1e3 * (ended - started))
    return {name: statistics.median(values) for name, values in spent.items()}


@contextlib.contextmanager
def tensors_mapped() -> Iterator[None]:
    """Has tensors of a MB and more be mappings of their own, as far as glibc is used.

    What they leave when they are freed does not count then, as it would by chance on a heap. Calls
    take longer. Afterwards the heap holds as much as it does in a process that has run for a while.
    """
    _set_mapping_threshold(1 << 20)
    try:
        yield
    finally:
        _set_mapping_threshold(32 << 20)


def _set_mapping_threshold(size: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, size)  # M_MMAP_THRESHOLD


def extra_memory(call: Callable[[], object]) -> float | None:
    """How many MB the process grows by at the peak of a call; None where Linux does not say."""
    try:
        call()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(field)


def environment(options: Any) -> dict[str, Any]:
    """Versions, commit and machine, and the options of the run."""
    import torch_geometric

    held = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    root = Path(__file__).resolve().parent
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True)
        commit = said.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "commit": commit,
        "cpu": _cpu(),
        "cores": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "options": held,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def verdict(what: str, value: float, bound: float, *, at_least: bool) -> dict[str, Any]:
    """Prints whether a figure is reached, and returns it."""
    holds = value >= bound if at_least else value <= bound
    relation = ">=" if at_least else "<="
    print(f"{'reached' if holds else 'MISSED '}  {what}: {value:.2f} ({relation} {bound:g})")
    return {"figure": what, "value": value, "bound": bound, "at_least": at_least, "holds": holds}


def write(path: Path | None, results: dict[str, Any]) -> None:
    """Writes the results as JSON, if a file is named."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

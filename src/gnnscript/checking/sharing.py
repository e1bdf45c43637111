"""The cases of the conformance tests, shared out to processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from gnnscript._errors import GnnscriptError
from gnnscript._warnings import ignore_retirement
from gnnscript.checking.coverage import CaseResult, cases, run_cases

__all__ = ["run_shared"]


def run_shared(
    folder: Path,
    numbers: Sequence[int],
    doors: Sequence[str],
    jobs: int,
    progress: Callable[[CaseResult], None],
) -> list[CaseResult]:
    """Does what :func:`run_cases` does, in several processes.

    Args:
        folder: The folder of the cases.
        numbers: Which of its cases, by their places among them.
        doors: The doors.
        jobs: How many processes. Each takes every so manieth case, as slow ones are neighbours.
        progress: Called with each result of the doors.

    Returns:
        The results, in the order of ``numbers``.

    Raises:
        GnnscriptError: A process ended before its cases did.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    workers: dict[Any, SpawnProcess] = {}
    for first in range(min(jobs, len(numbers))):
        receiver, sender = context.Pipe(duplex=False)
        given = (sender, folder, numbers[first::jobs], doors, threads)
        worker = context.Process(target=_work, args=given, daemon=True)
        worker.start()
        sender.close()  # its end is in the process, and closed when that ends
        workers[receiver] = worker
    found: dict[int, CaseResult] = {}
    told: set[int] = set()
    while workers:
        ready = wait(list(workers))
        for receiver in [r for r in workers if r in ready]:
            try:
                number, result = receiver.recv()
            except EOFError:
                worker = workers.pop(receiver)
                worker.join()
                if worker.exitcode:
                    for other in workers.values():
                        other.terminate()
                    raise GnnscriptError(
                        f"a process that checks cases ended with exit code {worker.exitcode}; "
                        "--jobs 1 shows where"
                    ) from None
                continue
            if number not in told:
                told.add(number)
                progress(result)
            else:
                found[number] = result
    return [found[number] for number in numbers]


def _work(
    sender: Connection, folder: Path, numbers: Sequence[int], doors: Sequence[str], threads: int
) -> None:
    """Runs in a process: sends each result twice, as it comes and when it is complete."""
    ignore_retirement()
    torch.set_num_threads(threads)
    every = cases(folder)
    coming = iter(numbers)
    results = run_cases(
        [every[number] for number in numbers],
        doors,
        lambda result: sender.send((next(coming), result)),
    )
    for sent in zip(numbers, results, strict=True):
        sender.send(sent)

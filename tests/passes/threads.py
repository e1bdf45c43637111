"""Calls of one model from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["right_in_threads"]


def right_in_threads(runs: Sequence[Callable[[], list[Tensor]]], expected: list[Tensor]) -> bool:
    """Whether each run, in a thread of its own beside the others, gives what is expected of it."""
    right = [False] * len(runs)

    def work(number: int) -> None:
        outs = runs[number]()
        right[number] = all(torch.allclose(out, expected[number], atol=1e-5) for out in outs)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(right)

"""What one ``forward`` has computed, while a program is made of it by ``torch.export``.

There ``find_known`` and its like run as Python, on the tensors of the trace: layers that do equal
work on the same ones share its result, and the program does it once. What has to be equal is what
the library compares in a scripted model (`csrc/cpu/plans.cpp`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["find", "keep", "share"]


@dataclass(frozen=True)
class _Known:
    key: str
    sizes: Sequence[int]
    given: Sequence[Tensor | None]
    versions: Sequence[int]
    made: list[Tensor]


class _Trace(threading.local):
    active = False
    known: tuple[_Known, ...] = ()


_trace = _Trace()


def share(active: bool) -> None:
    """As ``share_plans``; does nothing but in a trace of ``torch.export``."""
    if _traces():
        _trace.active, _trace.known = active, ()


def find(key: str, sizes: Sequence[int], given: Sequence[Tensor | None]) -> list[Tensor]:
    """As ``find_known``."""
    if _keeps(given):
        for known in _trace.known:
            if (
                known.key == key
                and all(map(_equal, known.sizes, sizes))
                and all(one is then for one, then in zip(given, known.given, strict=True))
                and known.versions == _versions(given)
            ):
                return known.made
    return []


def keep(
    key: str, sizes: Sequence[int], made: list[Tensor], given: Sequence[Tensor | None]
) -> None:
    """As ``keep_known``."""
    if _keeps(given):
        _trace.known += (_Known(key, sizes, given, _versions(given), made),)


def _traces() -> bool:
    """Says whether Python runs on the tensors of a trace; dynamo, which reads Python, does not."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def _keeps(given: Sequence[Tensor | None]) -> bool:
    """Says whether what comes of tensors is kept: in a trace, where writes to them are counted."""
    if not _traces() or not _trace.active:
        return False
    return not any(tensor is not None and tensor.is_inference() for tensor in given)


def _equal(one: int, other: int) -> bool:
    """Says whether two sizes, or dtypes, are equal in all calls of the program."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    return statically_known_true(one == other)


def _versions(tensors: Sequence[Tensor | None]) -> list[int]:
    return [-1 if tensor is None else tensor._version for tensor in tensors]

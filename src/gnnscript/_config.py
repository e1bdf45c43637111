"""What a user can choose: which implementation of the ops runs, and whether CUDA indices are read.

A choice is made for the process, by an environment variable or by calling one of the functions
here; as a context manager the same call holds for the block only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

__all__ = ["Options", "checks", "kernels", "options", "watch"]

_KERNELS = ("native", "portable", "torch_scatter")
_TRUE = ("1", "true", "on", "yes")
_FALSE = ("", "0", "false", "off", "no")


@dataclass(frozen=True)
class Options:
    """The choices in force.

    Args:
        kernels: ``"native"``, ``"portable"`` or ``"torch_scatter"``; None, the default, is native
            where the library loads.
        checks: Whether ops read the values of indices on CUDA to refuse those out of range, which
            waits for the device. On CPU they always do.
    """

    kernels: str | None = None
    checks: bool = False

    def __post_init__(self) -> None:
        if self.kernels is not None and self.kernels not in _KERNELS:
            names = "'native', 'portable' or 'torch_scatter'"
            raise ValueError(f"expected kernels to be {names}, got {self.kernels!r}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Options:
        """Reads ``GNNSCRIPT_KERNELS`` and ``GNNSCRIPT_CHECKS``."""
        checks = environment.get("GNNSCRIPT_CHECKS", "").lower()
        if checks not in _TRUE + _FALSE:
            raise ValueError(f"expected GNNSCRIPT_CHECKS to be 0 or 1, got {checks!r}")
        return cls(environment.get("GNNSCRIPT_KERNELS", "").lower() or None, checks in _TRUE)


class _Current:
    """Holds the options in force, and who is told of them; the only state of this module."""

    def __init__(self) -> None:
        self.options: Options | None = None
        self.watchers: list[Callable[[Options], None]] = []

    def choose(self, options: Options) -> None:
        self.options = options
        for watcher in self.watchers:
            watcher(options)


_current = _Current()


def options() -> Options:
    """Returns the options in force."""
    if _current.options is None:
        _current.options = Options.from_environment(os.environ)
    return _current.options


def watch(watcher: Callable[[Options], None]) -> None:
    """Has a function called with the options in force, now and whenever they change."""
    watcher(options())
    _current.watchers.append(watcher)


class _Choice:
    """A choice already made; leaving the ``with`` block takes it back."""

    def __init__(self, **changes: Any) -> None:
        self._before = options()
        _current.choose(replace(self._before, **changes))

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.choose(self._before)


def kernels(implementation: str | None) -> _Choice:
    """Chooses the implementation of the ops in eager calls and in what is scripted from now on.

    Args:
        implementation: ``"native"``, our library of kernels; ``"portable"``, ATen calls only, so
            that a saved file loads wherever torch loads; ``"torch_scatter"``, the reductions of
            that library, to compare it with ours; None for native where the library loads.

    Returns:
        A context manager that takes the choice back; not entered, the choice stays.

    Raises:
        ValueError: If ``implementation`` is another name.

    Example::

        with gnnscript.kernels("portable"):
            scripted = torch.jit.script(model)
    """
    return _Choice(kernels=implementation)


def checks(enabled: bool) -> _Choice:
    """Chooses whether native ops on CUDA read their indices to refuse values out of range.

    It holds for scripted programs in this process, too. A process without Python has the
    environment variable ``GNNSCRIPT_CHECKS``. Calls that a CUDA graph records are not checked.

    Args:
        enabled: True to check, at the price of waiting for the device in every op. Without it, an
            index out of range yields other values than meant, and never writes elsewhere.

    Returns:
        A context manager that takes the choice back; not entered, the choice stays.
    """
    return _Choice(checks=bool(enabled))

"""The native library: where it is, loading it, and whether the ops use it."""

from __future__ import annotations

import ctypes
import importlib
import os
import warnings
from pathlib import Path

import torch

from gnnscript import _config
from gnnscript._errors import GnnscriptError

__all__ = [
    "INTERFACE",
    "TORCH_SCATTER",
    "NativeLibraryWarning",
    "has_kernels",
    "implementation",
    "implementation_on",
    "load",
    "paths",
]

INTERFACE = 7
"""Which libraries fit this package: those that tell this number, of ``csrc/interface.h``."""

TORCH_SCATTER = frozenset({"scatter", "segment", "softmax"})
"""The ops that are in ``ops.scatter_library``, too."""

_REMEDY = (
    "build it with 'make native' in a checkout, or install gnnscript where a C++ compiler and "
    "torch are found (pip install --no-build-isolation gnnscript), or choose the portable ops "
    "(GNNSCRIPT_KERNELS=portable)"
)


class NativeLibraryWarning(UserWarning):
    """The native library is missing, so the portable ops run in its place."""


def paths() -> list[Path]:
    """Returns the libraries that native ops need, those that are there.

    The CPU library stands beside this package, or where ``GNNSCRIPT_LIBRARY`` says; the CUDA
    library stands beside it and counts only where torch has CUDA.
    """
    named = os.environ.get("GNNSCRIPT_LIBRARY")
    suffix = ".dylib" if os.uname().sysname == "Darwin" else ".so"
    path = Path(named) if named else Path(__file__).parents[1] / f"libgnnscript{suffix}"
    cuda = path.with_name(f"libgnnscript_cuda{suffix}")
    found = [path] if path.is_file() else []
    if found and torch.version.cuda is not None and cuda.is_file():
        found.append(cuda)
    return found


class _State:
    """Whether loading was tried, and why it failed if it did; and whether that was told.

    The types of device for which there are kernels; ``meta`` has shapes alone.
    """

    reason: str | None = None
    warned: bool = False
    devices: tuple[str, ...] = ("cpu", "meta")


_state = _State()


def _load() -> str:
    """Loads the library once; returns why it could not, or nothing."""
    if _state.reason is None:
        _state.reason = _try_to_load()
    return _state.reason


def _try_to_load() -> str:
    found = paths()
    if not found:
        return "it is not installed"
    try:
        for path in found:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"it does not load: {error}"
    from gnnscript.ops import (
        attention_gradients,
        autocast,
        autograd,
        batching,
        copies,
        edge_gradients,
        fake,
    )

    for path in found:
        reason = _misfit(path)
        if reason:
            return reason
        _follow_checks(path)
    try:
        fake.register()
        autograd.register()
        batching.register()
        copies.register()
        edge_gradients.register()
        attention_gradients.register()
        autocast.register()
    except RuntimeError as error:  # an op that these files know is not in the library
        first = str(error).splitlines()[0]
        return f"{found[0]} was built for another version of gnnscript: {first}"
    if len(found) > 1:
        _state.devices = (*_state.devices, "cuda")
    return ""


def _misfit(path: Path) -> str:
    """Why a library belongs to another version of this package; empty if it does not."""
    loaded = ctypes.CDLL(str(path))
    name = "gnnscript_cuda_interface" if "cuda" in path.stem else "gnnscript_interface"
    interface = getattr(loaded, name, None)
    told = 1 if interface is None else interface()
    if told == INTERFACE:
        return ""
    age = "older" if told < INTERFACE else "newer"
    return (
        f"{path} was built for another version of gnnscript, which is {age}: it has interface "
        f"{told}, and this version needs {INTERFACE}"
    )


def _follow_checks(path: Path) -> None:
    """Has the library that holds the CUDA kernels follow ``gnnscript.checks``."""
    set_checks = getattr(ctypes.CDLL(str(path)), "gnnscript_cuda_checks", None)
    if set_checks is not None:
        _config.watch(lambda options: set_checks(int(options.checks)))


def has_kernels(device: str) -> bool:
    """Says whether the libraries that are loaded have kernels for a type of device."""
    return device in _state.devices


def load() -> None:
    """Loads the native library, and registers what of it is written in Python.

    Raises:
        GnnscriptError: If it is missing or does not load here.
    """
    reason = _load()
    if reason:
        raise GnnscriptError(f"the native library of gnnscript cannot be used: {reason}; {_REMEDY}")


def implementation() -> str:
    """Returns which ops run: ``"native"``, ``"portable"`` or ``"torch_scatter"``.

    Warns once in a process that falls back on portable ops without having been asked to.

    Raises:
        GnnscriptError: If native ops are asked for and the library cannot be used, or torch_scatter
            is and is not installed.
    """
    chosen = _config.options().kernels
    if chosen == "native":
        load()
    if chosen == "torch_scatter":
        _import_torch_scatter()
    if chosen is not None:
        return chosen
    reason = _load()
    if reason and not _state.warned:
        _state.warned = True
        warnings.warn(
            f"gnnscript runs without its native library, which is slower: {reason}; {_REMEDY}",
            NativeLibraryWarning,
            stacklevel=3,
        )
    return "portable" if reason else "native"


def _import_torch_scatter() -> None:
    try:
        importlib.import_module("torch_scatter")
    except (ImportError, OSError) as error:
        raise GnnscriptError(
            f"the ops of torch_scatter are chosen, and it cannot be imported: {error}; install it "
            "for this torch (pip install torch-scatter), or choose the native or portable ops "
            "(gnnscript.kernels, GNNSCRIPT_KERNELS)"
        ) from error


def implementation_on(device: str) -> str:
    """Returns which ops run on tensors of a type of device.

    It is what :func:`implementation` returns, but portable where native ops were not asked for and
    have no kernels, with one warning.
    """
    chosen = implementation()
    if chosen != "native" or _config.options().kernels is not None or has_kernels(device):
        return chosen
    if not _state.warned:
        _state.warned = True
        warnings.warn(
            f"gnnscript runs its portable ops on {device}, which is slower: its native library was "
            f"built without kernels for {device}; build them with 'make native CUDA=on' where nvcc "
            "is found, or choose the portable ops (GNNSCRIPT_KERNELS=portable)",
            NativeLibraryWarning,
            stacklevel=4,
        )
    return "portable"

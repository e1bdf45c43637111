"""Warnings that gnnscript's own processes keep to themselves."""

from __future__ import annotations

import warnings

__all__ = ["ignore_retirement"]


def ignore_retirement() -> None:
    """Lets torch say nothing of the retirement of TorchScript: who reads it wrote no such call."""
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")

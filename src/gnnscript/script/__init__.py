"""Hands the specialised module to TorchScript."""

from gnnscript.script.lowered import Lowered
from gnnscript.script.prepare import (
    MARK,
    LoweredCall,
    explained,
    lower,
    lower_for,
    needs_lowering,
    script,
    source,
    user_location,
)

__all__ = [
    "MARK",
    "Lowered",
    "LoweredCall",
    "explained",
    "lower",
    "lower_for",
    "needs_lowering",
    "script",
    "source",
    "user_location",
]

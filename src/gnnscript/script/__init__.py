"""Hands the specialised module to TorchScript."""

from gnnscript.script.explaining import (
    explained,
    learn_least,
    name_lines,
    user_location,
    with_least,
    with_lines,
)
from gnnscript.script.lowered import Lowered
from gnnscript.script.policy import MARK, needs_lowering
from gnnscript.script.prepare import (
    LoweredCall,
    lower,
    lower_for,
    script,
    script_refused,
    source,
)
from gnnscript.script.withheld import withheld

__all__ = [
    "MARK",
    "Lowered",
    "LoweredCall",
    "explained",
    "learn_least",
    "lower",
    "lower_for",
    "name_lines",
    "needs_lowering",
    "script",
    "script_refused",
    "source",
    "user_location",
    "with_least",
    "with_lines",
    "withheld",
]

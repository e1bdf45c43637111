"""Hands the specialised module to TorchScript."""

from gnnscript.script.lowered import Lowered
from gnnscript.script.prepare import MARK, lower, needs_lowering, script, source

__all__ = ["MARK", "Lowered", "lower", "needs_lowering", "script", "source"]

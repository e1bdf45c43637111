"""Clocks: TorchScript's own one, which measures intervals and knows no date."""

from __future__ import annotations

import ast
import time
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import function_source
from gnnscript.analyze.types import INT
from gnnscript.specialize import substitutes
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.builtins import for_
from gnnscript.specialize.helpers import torch_name
from gnnscript.specialize.values import Dyn

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__: list[str] = []


@for_(time.perf_counter_ns, time.monotonic_ns, time.time_ns)
def _nanoseconds(frame: Frame, function: Any, given: Arguments) -> Folded:
    """A clock that counts from an arbitrary time."""
    if function is time.time_ns:
        _refuse_dates(frame)
    return Dyn(INT), ast.Call(torch_name("torch.ops.prim.TimePoint"), [], [])


@for_(time.perf_counter, time.monotonic, time.time)
def _seconds(frame: Frame, function: Any, given: Arguments) -> Folded:
    if function is time.time:
        _refuse_dates(frame)
    return frame.call_function(substitutes.seconds, given, None)


@for_(time.process_time, time.thread_time, time.process_time_ns, time.thread_time_ns)
def _processor(frame: Frame, function: Any, given: Arguments) -> Folded:
    raise UnsupportedError(
        f"'time.{function.__name__}' reads a clock that TorchScript does not have",
        "measure intervals by 'time.perf_counter'",
    )


def _refuse_dates(frame: Frame) -> None:
    """``time.time()`` is read to be subtracted from another reading, or it is a date."""
    trees = [function_source(frame.source.function).node]
    parents = {child: node for node in ast.walk(trees[0]) for child in ast.iter_child_nodes(node)}
    for call in [node for node in parents if isinstance(node, ast.Call)]:
        if ast.unparse(call.func).split(".")[-1] not in ("time", "time_ns"):
            continue
        parent = parents[call]
        target = parent.targets[0] if isinstance(parent, ast.Assign) else None
        if not _is_difference(parent) and not (
            isinstance(target, (ast.Name, ast.Attribute)) and _is_subtracted(frame, target)
        ):
            raise UnsupportedError(
                "the time of day is used, which TorchScript's clock does not know",
                "use differences of times alone, or 'time.perf_counter'",
            )


def _is_difference(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)


def _is_subtracted(frame: Frame, target: ast.Name | ast.Attribute) -> bool:
    """Whether what is assigned is read in differences alone; of an attribute, by its class."""
    functions = [frame.source.function]
    if isinstance(target, ast.Attribute):
        functions = [f for f in vars(frame.cls or object).values() if hasattr(f, "__code__")]
    for function in functions:
        for node in ast.walk(function_source(function).node):
            for child in ast.iter_child_nodes(node):
                read = isinstance(getattr(child, "ctx", None), ast.Load)
                named = getattr(child, "id", getattr(child, "attr", None))
                name = target.id if isinstance(target, ast.Name) else target.attr
                if read and named == name and not _is_difference(node):
                    return False
    return True

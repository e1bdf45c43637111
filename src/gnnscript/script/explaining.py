"""Errors of torch's in specialised code, as errors that name the user's line."""

from __future__ import annotations

import inspect
import linecache
import re
import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from gnnscript._errors import Location, UnsupportedError
from gnnscript.passes import ANYWHERE
from gnnscript.script.lowered import origins_of
from gnnscript.script.withheld import withheld

__all__ = [
    "explained",
    "learn_least",
    "name_lines",
    "user_location",
    "with_least",
    "with_lines",
]

_T = TypeVar("_T")

# How torch.compile and torch.export say that values would decide, and what they advise.
_UNDECIDED = re.compile(r"data-dependent expression (.+?)(?: \(unhinted|\.|$)", re.MULTILINE)
_EQUAL = re.compile(r"^(?:Eq|Ne)\((?:([01]), .+|.+, ([01]))\)$")
_COMPARED = re.compile(r"^(?:([01]) (<=?|>=?) .+|.+ (<=?|>=?) ([01]))$")
_LARGER = re.compile(r"^(?:Eq|Ne)\(Max\(1, (.+)\), \1\)$")
_HINT = re.compile(r"^\s*Hint: (.+)$", re.MULTILINE)
_FRAME = re.compile(r'File "(gnnscript_lowered/[^"]+)", line (\d+)')


def user_location(file: str, line: int) -> Location | None:
    """The user's line that a line of specialised code comes from, if it is one."""
    origins = origins_of(file)
    nearest = max((number for number in origins if number <= line), default=None)
    if nearest is None:
        return None
    origin_file, origin_line = origins[nearest]
    return Location(origin_file, origin_line, _line(origin_file, origin_line))


_REMEDY = (
    "annotate arguments that are not tensors, give each variable one type, and use operations that "
    "TorchScript knows; gnnscript.source(module) shows the code"
)


def explained(
    error: Exception, root: torch.nn.Module, by: str = "TorchScript", remedy: str = ""
) -> Exception:
    """An error of torch's as one that names the user's line, where it is in specialised code.

    Args:
        error: The error.
        root: The model.
        by: What raised it.
        remedy: What can be done; by default, what helps with TorchScript.
    """
    text = str(error)
    places = _places(error)
    if places:
        assumed = _assumed_tensors(root)
        if not remedy:
            remedy = _REMEDY
            if assumed:
                remedy += f"; taken as tensors, having no annotation: {', '.join(assumed)}"
        if "'Tensor' object has no attribute" in text:
            remedy += "; where a Data object is meant, gnnscript.tensor_inputs(model, data) helps"
        undecided = _UNDECIDED.search(text)
        hint = _HINT.search(text)
        cause = " ".join(text.strip().split("\n")[0].split()) or type(error).__name__
        if "Data-dependent branching" in text:
            cause = "it depends on the values that a tensor holds"
        elif undecided:
            cause = f"it depends on the values that a tensor holds ({undecided.group(1)})"
        elif hint and "data-dependent" not in text.lower():
            remedy = hint.group(1).rstrip(".")
        if by != "TorchScript":
            places.reverse()
        found = UnsupportedError(
            f"{by} does not accept this: {cause.rstrip(':')}", remedy, places[0]
        )
        for outer in places[1:]:
            found.called_from(outer)
        return found
    for name, module in root.named_modules() if by == "TorchScript" else ():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            compiled = getattr(hook, "__code__", None)
            advice = (
                "remove it before scripting (handle.remove()), or annotate it as TorchScript asks"
            )
            place = type(hook).__module__.rpartition(".")
            if place[0] == "torch.nn.utils":  # those of old, which are objects of Python
                advice = (
                    f"use torch.nn.utils.parametrizations.{place[2]}, which can be scripted; a "
                    f"trained layer is freed of it by torch.nn.utils.remove_{place[2]}"
                )
            return UnsupportedError(
                f"a forward hook of '{name or type(module).__name__}' does not compile: "
                f"{' '.join(text.split())[:300]}",
                remedy or advice,
                Location(compiled.co_filename, compiled.co_firstlineno) if compiled else None,
            )
    return error


def with_least(attempt: Callable[[dict[tuple[str, int], int]], _T]) -> _T:
    """Makes a program of which torch need not know whether sizes that values decide are 0 or 1.

    Args:
        attempt: Makes it, given for :func:`lower_for` the least sizes to assume.
    """
    least: dict[tuple[str, int], int] = {}
    while True:
        try:
            with withheld():
                return attempt(least)
        except Exception as error:
            if not learn_least(least, error):
                raise


def learn_least(least: dict[tuple[str, int], int], error: Exception) -> bool:
    """Notes where torch asks whether a size that values decide is 0, or is 1.

    Args:
        least: By file and line, the least size that is assumed there so far.
        error: An error of ``torch.compile`` or ``torch.export``.

    Returns:
        Whether something was learned, and another attempt may succeed.
    """
    places = _places(error)
    asked = _UNDECIDED.search(str(error))
    enough = _enough(asked.group(1)) if asked else 0
    if not places and asked and _LARGER.match(asked.group(1)):  # in the backward pass
        first, least[ANYWHERE] = ANYWHERE not in least, 1
        return first
    if not enough or not places:
        return False
    line = places[-1].file, places[-1].line
    known, least[line] = least.get(line, 0), enough
    return enough > known


_ASSERTED = "Runtime assertion failed"


def with_lines(message: str, least: Mapping[tuple[str, int], int]) -> str:
    """What torch says of a size that is smaller than a program takes, and which lines ask for it.

    Args:
        message: The message of an assertion of torch's; others are returned as they are.
        least: By file and line, the least sizes that the program was made for.
    """
    placed = {place: size for place, size in least.items() if place != ANYWHERE}
    if not message.startswith(_ASSERTED) or not placed:
        return message
    lines = ", ".join(f"{file}:{line} (at least {size})" for (file, line), size in placed.items())
    return f"{message}; perhaps a size that values decide is smaller than torch takes here: {lines}"


def name_lines(
    program: torch.export.ExportedProgram, least: Mapping[tuple[str, int], int]
) -> torch.export.ExportedProgram:
    """Has the assertions of an exported program name the user's lines; see :func:`with_lines`."""
    for node in program.graph.find_nodes(
        op="call_function", target=torch.ops.aten._assert_scalar.default
    ):
        node.args = (node.args[0], with_lines(str(node.args[1]), least))
    program.graph_module.recompile()
    return program


def _enough(expression: str) -> int:
    """From which size on it is known whether a size is, or is above, 0 or 1; 0 for others."""
    equal = _EQUAL.match(expression)
    if equal:
        return int(equal.group(1) or equal.group(2)) + 1
    compared = _COMPARED.match(expression)
    if not compared:
        return 0
    number = int(compared.group(1) or compared.group(4))
    return number + 1 if compared.group(2) in ("<", ">=") or compared.group(3) in (">", "<=") else 1


def _places(error: BaseException) -> list[Location]:
    """The user's lines that an error of torch's is about.

    The innermost is the first where TorchScript raises it, else the last.
    """
    frames = _FRAME.findall(str(error))
    located = (user_location(file, int(number)) for file, number in frames)
    return [place for place in located if place is not None] or _raised_at(error)


def _raised_at(error: BaseException) -> list[Location]:
    """The user's lines that specialised code was at when it raised, the innermost last."""
    frames = traceback.walk_tb(error.__traceback__)
    found = (user_location(frame.f_code.co_filename, line) for frame, line in frames)
    return [location for location in found if location is not None]


def _assumed_tensors(root: torch.nn.Module) -> list[str]:
    """Arguments of the model that are tensors only because nothing says otherwise."""
    parameters = list(inspect.signature(type(root).forward).parameters.values())[1:]
    return [f"'{p.name}'" for p in parameters if p.annotation is p.empty and p.default is p.empty]


def _line(file: str, number: int) -> str:
    return linecache.getline(file, number).strip()

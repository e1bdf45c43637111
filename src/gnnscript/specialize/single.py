"""Specialises one ``propagate`` or ``edge_updater`` on its own, for a call in eager mode."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import torch

from gnnscript.analyze.types import INT, TENSOR, of_value, tuple_of
from gnnscript.specialize.emit import ClassText, Method, emit_class
from gnnscript.specialize.program import AttributeFound, Program, Specialized
from gnnscript.specialize.propagate import write
from gnnscript.specialize.values import Const, Dyn, Value

__all__ = ["specialize_method"]


def specialize_method(
    module: torch.nn.Module,
    name: str,
    given: dict[str, Any],
    lowers: Callable[[torch.nn.Module], bool],
    optimize: Callable[[Program], None],
) -> tuple[ClassText, list[str], list[tuple[Any, str]]] | None:
    """Writes one method for the types of the arguments of one call.

    Args:
        module: The conv.
        name: ``propagate`` or ``edge_updater``.
        given: The arguments of the call but ``edge_index``, by keyword.
        lowers: Says of each module whether it is specialised.
        optimize: Rewrites the method.

    Returns:
        The text of a class that has the method, the names of its parameters, and the names whose
        meaning it depends on; ``None`` if the method runs others that only a specialised module
        has.

    Raises:
        UnsupportedError: Something that the code does cannot be specialised.
    """
    written: dict[Any, Any] = {}
    unfit: set[int] = set()
    changed: dict[Any, set[str]] = {}
    for _ in range(8):
        program = Program(module, lowers, written, unfit, changed, fixed_shapes=False)
        bound: dict[str, Value] = {"self": program.root, "edge_index": Dyn(TENSOR)}
        size = given.get("size")
        for key, value in given.items():
            if key != "size":
                bound[key] = Const(None) if value is None else Dyn(of_value(value))
        bound["size"] = Const(None) if size is None else Dyn(tuple_of(INT, INT))
        keywords = [key for key in given if key != "size"]
        try:
            done = write(program, program.root, name, bound, keywords)
        except AttributeFound:
            continue
        optimize(program)
        helpers: list[Specialized] = []
        if not _stands_alone(done, helpers):
            return None
        methods = [Method(done.node, (done.source.file, done.source.node.lineno))]
        functions = [(h, Method(h.node, (h.source.file, h.source.node.lineno))) for h in helpers]
        wish = type(module).__name__
        text = emit_class(wish if wish.isidentifier() else "Module", name, methods, functions, {})
        reads = list(program.reads.values())
        return text, [argument for argument, _ in done.parameters], reads
    return None


def _stands_alone(done: Specialized, helpers: list[Specialized]) -> bool:
    """Whether a method calls only functions and modules; collects the functions, callees first."""
    for node in ast.walk(done.node):
        target = getattr(node, "target_", None) if isinstance(node, ast.Call) else None
        if isinstance(target, Specialized) and target not in helpers:
            if target.owner is not None or not _stands_alone(target, helpers):
                return False
            helpers.append(target)
    return True

"""Models that compute with complex numbers, which the fused native ops do not.

Whether a tensor is complex is known only when the code runs. Where a model gives reason to ask, a
test decides between the fused code and the code that it was made of.
"""

from __future__ import annotations

import ast
import logging

from gnnscript.analyze.types import TENSOR, Type, optional
from gnnscript.specialize.program import Program, Specialized

__all__ = ["holds_complex", "is_complex", "owns_complex", "warn_of_gradients"]

_log = logging.getLogger("gnnscript")

# What makes complex tensors, or names their dtypes.
_MAKERS = frozenset(
    {
        "cdouble", "cfloat", "chalf", "complex", "complex128", "complex32", "complex64", "fft",
        "polar", "stft", "view_as_complex",
    }
)  # fmt: skip


def holds_complex(program: Program) -> bool:
    """Whether a model has complex parameters or buffers, or code that makes complex numbers."""
    module = program.root.module
    held = [*module.parameters(), *module.buffers()]
    if any(tensor.is_complex() for tensor in held):
        return True
    nodes = (node for function in program.functions() for node in ast.walk(function.node))
    return any(_makes(node) for node in nodes)


def warn_of_gradients(program: Program) -> None:
    """Says so where TorchScript's own gradients may be wrong: it does not conjugate."""
    if holds_complex(program):
        _log.warning(
            "%s computes with complex numbers, whose gradients by TorchScript can be wrong: train "
            "the eager model, and script it for inference",
            type(program.root.module).__name__,
        )


def _makes(node: ast.AST) -> bool:
    if isinstance(node, (ast.Attribute, ast.Name)):
        return (node.attr if isinstance(node, ast.Attribute) else node.id) in _MAKERS
    return isinstance(node, ast.Constant) and isinstance(node.value, complex)


def owns_complex(method: Specialized) -> bool:
    """Whether the module whose method it is has complex parameters or buffers of its own."""
    if method.owner is None:
        return False
    module = method.owner.ref.module
    return any(tensor.is_complex() for tensor in (*module.parameters(), *module.buffers()))


def is_complex(method: Specialized) -> ast.expr | None:
    """The test of whether an argument of a method is complex; None if it takes no tensors."""
    tests = [test for name, type_ in method.parameters for test in _tests(name, type_)]
    if not tests:
        return None
    return ast.BoolOp(ast.Or(), tests) if len(tests) > 1 else tests[0]


def _tests(name: str, type_: Type) -> list[ast.expr]:
    if type_.name == "Tuple":  # source and target nodes, of one dtype
        first = type_.args[0] if type_.args else None
        return [_expression(f"{name}[0].is_complex()")] if first == TENSOR else []
    if type_ == optional(TENSOR):
        return [_expression(f"{name} is not None and {name}.is_complex()")]
    return [_expression(f"{name}.is_complex()")] if type_ == TENSOR else []


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body

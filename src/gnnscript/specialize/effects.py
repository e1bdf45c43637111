"""Whether specialised code does more than compute its value: then when it runs matters."""

from __future__ import annotations

import ast
from typing import Any

from gnnscript.specialize.tree import is_simple

__all__ = ["has_effects", "is_settled"]

# Methods of lists and dictionaries that change them.
_CHANGES = frozenset(
    {
        "append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault",
        "sort", "reverse",
    }
)  # fmt: skip
# Functions that draw random numbers, of which the next gets others.
_DRAWS = frozenset(
    {
        "bernoulli", "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
        "dropout1d", "dropout2d", "dropout3d", "multinomial", "normal", "poisson", "rand",
        "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "rrelu",
        "gumbel_softmax",
    }
)  # fmt: skip


def has_effects(tree: Any) -> bool:
    """Whether code assigns attributes, changes what others hold, or draws random numbers."""
    if isinstance(tree, list):
        return any(map(has_effects, tree))
    return any(map(_acts, ast.walk(tree)))


def is_settled(node: ast.expr | None) -> bool:
    """Whether an expression has its value whenever it is evaluated: a variable, or a literal."""
    return node is None or (
        is_simple(node)
        and not any(isinstance(n, (ast.Attribute, ast.Subscript)) for n in ast.walk(node))
    )


def _acts(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return _call_acts(node)
    if isinstance(node, (ast.Attribute, ast.Subscript)):
        return isinstance(node.ctx, (ast.Store, ast.Del))
    return isinstance(node, (ast.AugAssign, ast.With, ast.Raise))


def _call_acts(node: ast.Call) -> bool:
    known = getattr(node, "effects_", None)
    if known is not None:
        return bool(known)
    done = getattr(node, "target_", None)
    if done is not None:
        return bool(done.acts)
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    in_place = name.endswith("_") and not name.startswith("_")
    inplace = any(
        k.arg in ("inplace", "out") and getattr(k.value, "value", True) for k in node.keywords
    )
    return in_place or inplace or name in _CHANGES or name in _DRAWS or name == "print"

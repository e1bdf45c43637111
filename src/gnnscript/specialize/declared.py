"""Types that users declare for the keywords of ``propagate``, in a comment or a dictionary."""

from __future__ import annotations

import ast
import warnings
from typing import TYPE_CHECKING

from gnnscript import _pyg
from gnnscript.analyze.types import UNKNOWN, Type, alternatives, is_subtype
from gnnscript.specialize.folding.base import Arguments
from gnnscript.specialize.values import Dyn, Value, static_type

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Folded
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["declare", "warn_of_stale"]


def declare(value: Value, node: ast.expr | None, declared: Type) -> Folded:
    """Applies the type that the user declared for a keyword, where nothing else says it."""
    known = declared.known and declared.name != "Union"
    if known and isinstance(value, Dyn) and static_type(value) == UNKNOWN:
        return Dyn(declared), node
    return value, node


def warn_of_stale(name: str, frame: Frame, declared: dict[str, Type], given: Arguments) -> None:
    """Says that a ``# propagate_type:`` comment is wrong: what is passed decides."""
    if _pyg.is_own(frame.source.function):
        return
    types = {key: static_type(value) for key, (value, _) in given.kwargs.items()}
    wrong = [
        f"'{key}' is declared as '{t}', and "
        + (f"a '{types[key]}' is passed" if key in types else "not passed")
        for key, t in declared.items()
        if key not in types or not any(is_subtype(types[key], one) for one in alternatives(t))
    ]
    if wrong:
        where = frame.source.location(frame.current)
        warnings.warn(
            f"{where.file}:{where.line}: the declared types of '{name}' are out of date: "
            f"{'; '.join(wrong)}. What is passed is taken; correct or remove them",
            stacklevel=2,
        )

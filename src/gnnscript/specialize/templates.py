"""The methods that PyG renders from templates: which class runs which."""

from __future__ import annotations

from typing import Any

__all__ = ["falls_back", "is_template"]


def is_template(cls: type, function: Any) -> str | None:
    """Which of the two methods a function from PyG's own code templates stands for."""
    names = ("propagate", "edge_updater")
    return next((name for name in names if _is_rendered(cls, name, function)), None)


def _is_rendered(cls: type, name: str, function: Any) -> bool:
    """Whether a function is PyG's template, rendered for a class or one of its parents.

    Where PyG cannot render it for a class, the class has what it inherits under both names.
    """
    return any(
        vars(parent).get(f"_jinja_{name}") is function
        and vars(parent).get(f"_orig_{name}") not in (None, function)
        for parent in cls.__mro__
    )


def falls_back(cls: type, name: str) -> bool:
    """Whether PyG could not render its template for a class and runs its generic method."""
    return not _is_rendered(cls, name, getattr(cls, f"_jinja_{name}", None))

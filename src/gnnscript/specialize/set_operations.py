"""Operations of sets, of which each is a dictionary whose keys are the elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SET_OPERATIONS"]


def union(first: Any, second: Any) -> Any:
    found = first.copy()
    found.update(second)
    return found


def intersection(first: Any, second: Any) -> Any:
    found = first.copy()
    for key in first.keys():  # noqa: SIM118
        if key not in second:
            found.pop(key)
    return found


def difference(first: Any, second: Any) -> Any:
    found = first.copy()
    for key in first.keys():  # noqa: SIM118
        if key in second:
            found.pop(key)
    return found


def symmetric_difference(first: Any, second: Any) -> Any:
    found = difference(first, second)
    for key in second.keys():  # noqa: SIM118
        if key not in first:
            found[key] = True
    return found


def issubset(first: Any, second: Any) -> bool:
    for key in first.keys():  # noqa: SIM110, SIM118
        if key not in second:
            return False
    return True


def issuperset(first: Any, second: Any) -> bool:
    return issubset(second, first)


def equal(first: Any, second: Any) -> bool:
    return len(first) == len(second) and issubset(first, second)


def proper_subset(first: Any, second: Any) -> bool:
    return len(first) < len(second) and issubset(first, second)


def proper_superset(first: Any, second: Any) -> bool:
    return len(first) > len(second) and issubset(second, first)


def isdisjoint(first: Any, second: Any) -> bool:
    for key in first.keys():  # noqa: SIM110, SIM118
        if key in second:
            return False
    return True


SET_OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        difference, equal, intersection, isdisjoint, issubset, issuperset, proper_subset,
        proper_superset, symmetric_difference, union,
    )
}  # fmt: skip

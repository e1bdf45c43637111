"""Functions of Python that TorchScript lacks, written with those that it has.

They are specialised like functions of the user's, so each call keeps what eager mode computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, List  # noqa: UP035

__all__ = ["SUBSTITUTES"]


def log2(x: float) -> float:
    """Exact for powers of two, as Python's is: only the fraction's logarithm is rounded."""
    fraction, exponent = math.frexp(float(x))
    return exponent + math.log(fraction) / math.log(2.0)


def exp2(x: float) -> float:
    return math.pow(2.0, x)


def cbrt(x: float) -> float:
    return math.copysign(math.pow(math.fabs(x), 1.0 / 3.0), x)


def hypot(x: float, y: float) -> float:
    return math.sqrt(x * x + y * y)


def isqrt(n: int) -> int:
    assert n >= 0, "isqrt() argument must be nonnegative"
    root = int(math.sqrt(n))
    while root * root > n:
        root -= 1
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


def lcm(a: int, b: int) -> int:
    common = math.gcd(a, b)
    if common == 0:
        return 0
    return abs(a // common * b)


def comb(n: int, k: int) -> int:
    result = 1
    for i in range(k):
        result = result * (n - i) // (i + 1)
    return result


def perm(n: int, k: int) -> int:
    result = 1
    for i in range(k):
        result = result * (n - i)
    return result


def trunc(x: float) -> int:
    return int(x)


def isclose(a: float, b: float, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> bool:
    return a == b or abs(a - b) <= max(rel_tol * max(abs(a), abs(b)), abs_tol)


def int_prod(values: List[int]) -> int:  # noqa: UP006
    product = 1
    for value in values:
        product = product * value
    return product


SUBSTITUTES: dict[Any, Callable[..., Any]] = {
    math.log2: log2,
    math.hypot: hypot,
    math.isqrt: isqrt,
    math.lcm: lcm,
    math.comb: comb,
    math.perm: perm,
    math.trunc: trunc,
    math.isclose: isclose,
    math.prod: int_prod,
}
for _function in (cbrt, exp2):  # since Python 3.11
    if hasattr(math, _function.__name__):
        SUBSTITUTES[getattr(math, _function.__name__)] = _function

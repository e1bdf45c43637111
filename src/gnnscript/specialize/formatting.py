"""Numbers as texts of a format, which TorchScript's own formatting has none of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Format"]

_SPEC = re.compile(
    r"(?:(?P<fill>.)?(?P<align>[<>^]))?(?P<sign>[-+ ])?(?P<zero>0)?(?P<width>\d+)?(?P<group>,)?"
    r"(?:\.(?P<digits>\d+))?(?P<kind>[dfF%s])?"
)


@dataclass(frozen=True)
class Format:
    """What stands behind the colon in ``f"{x:>8.3f}"``, as far as it is known how to write it.

    Args:
        kind: ``d``, ``f``, ``%`` or ``s``.
        digits: Behind the point.
        width: At least so many characters.
        align: ``<``, ``>`` or ``^``.
        fill: What is put in up to the width.
        sign: What stands before numbers that are not negative.
        group: What stands between thousands.
    """

    kind: str
    digits: int
    width: int
    align: str
    fill: str
    sign: str
    group: str

    @classmethod
    def parse(cls, spec: str, *, integer: bool, text: bool) -> Format | None:
        """Reads a format for a value of a type; ``None`` for what is not known."""
        found = _SPEC.fullmatch(spec)
        if found is None:
            return None
        kind = found["kind"] or ("s" if text else "d" if integer and not found["digits"] else "")
        digits = int(found["digits"] or 6)
        wrong = (text != (kind == "s")) or (kind == "d" and not integer)
        if not kind or wrong or digits > 15 or (kind in "ds" and found["digits"]):
            return None
        zero = found["zero"] is not None and found["align"] is None
        if zero and (found["group"] or text):
            return None
        return cls(
            kind.lower(),
            digits,
            int(found["width"] or 0),
            "0" if zero else found["align"] or ("<" if text else ">"),
            found["fill"] or " ",
            (found["sign"] or "").strip("-"),
            found["group"] or "",
        )

    @property
    def writer(self) -> tuple[Callable[..., str], list[str | int]]:
        """The function that writes a value in this format, and its arguments behind the value."""
        place: list[str | int] = [self.width, self.align, self.fill]
        if self.kind == "s":
            return placed, place
        if self.kind == "d":
            return integer, [self.sign, self.group, *place]
        return fixed, [self.digits, self.kind == "%", self.sign, self.group, *place]


def _repeated(text: str, count: int) -> str:
    found = ""
    for _ in range(count):
        found = found + text
    return found


def placed(text: str, width: int, align: str, fill: str) -> str:
    missing = max(width - len(text), 0)
    before = missing if align == ">" else 0
    if align == "^":
        before = missing // 2
    return _repeated(fill, before) + text + _repeated(fill, missing - before)


def _signed(digits: str, negative: bool, sign: str, width: int, align: str, fill: str) -> str:
    lead = "-" if negative else sign
    if align == "0":
        return lead + _repeated("0", width - len(lead) - len(digits)) + digits
    return placed(lead + digits, width, align, fill)


def _grouped(n: int, group: str) -> str:
    digits = str(n)
    if len(group) == 0:
        return digits
    found = ""
    for place in range(len(digits)):
        if place > 0 and (len(digits) - place) % 3 == 0:
            found = found + group
        found = found + digits[place]
    return found


def integer(n: int, sign: str, group: str, width: int, align: str, fill: str) -> str:
    return _signed(_grouped(abs(n), group), n < 0, sign, width, align, fill)


def fixed(
    x: float, digits: int, percent: bool, sign: str, group: str, width: int, align: str, fill: str
) -> str:
    """The nearest decimal number: the binary one has its digits taken off one by one, exactly."""
    value = x * 100.0 if percent else x
    suffix = "%" if percent else ""
    size = math.fabs(value)
    negative = math.copysign(1.0, value) < 0
    if math.isnan(value):
        return _signed("nan" + suffix, False, sign, width, align, fill)
    if math.isinf(value):
        return _signed("inf" + suffix, negative, sign, width, align, fill)
    assert size < 9.2e18, "a number is too large to be written with all its digits"
    whole = math.floor(size)
    unit = 9007199254740992  # 2 ** 53, twice, hold all bits behind the point
    scaled = (size - math.floor(size)) * unit
    high = math.floor(scaled)
    low = math.floor((scaled - math.floor(scaled)) * unit)
    behind, power = 0, 1
    for _ in range(digits):
        low = low * 10
        high = high * 10 + low // unit
        behind = behind * 10 + high // unit
        low, high = low % unit, high % unit
        power = power * 10
    last = behind if digits > 0 else whole
    half = unit // 2
    if high > half or (high == half and (low > 0 or last % 2 == 1)):
        behind = behind + 1
    if behind >= power:
        behind, whole = behind - power, whole + 1
    text = _grouped(whole, group)
    if digits > 0:
        shown = str(behind)
        text = text + "." + _repeated("0", digits - len(shown)) + shown
    return _signed(text + suffix, negative, sign, width, align, fill)

"""The error types of gnnscript: every message says where, what the cause is, and the remedy."""

from __future__ import annotations

import functools
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GnnscriptError", "Location", "UnsupportedError"]


@dataclass(frozen=True)
class Location:
    """A place in the user's source.

    Args:
        file: Path of the source file as Python reports it.
        line: Line number, starting at 1.
        code: The offending line or expression, stripped; may be empty.
    """

    file: str
    line: int
    code: str = ""

    @property
    def in_library(self) -> bool:
        """Whether the file is part of Python, of an installed package or of gnnscript."""
        return self.file.startswith(_libraries())

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Where the files of Python, of installed packages and of gnnscript lie."""
    found = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found.add(str(Path(__file__).parent))
    return tuple(f"{path}{os.sep}" for path in found if path)


class GnnscriptError(Exception):
    """Base class of all errors that gnnscript raises on purpose."""


class UnsupportedError(GnnscriptError):
    """A class cannot be specialised to TorchScript.

    Args:
        cause: What cannot be done, and why, as one sentence.
        remedy: What the user can change, as one sentence.
        location: Where in the user's source the cause stands, if known.

    Attributes:
        cause: As passed in.
        remedy: As passed in.
        location: As passed in.
        caller: The user's line from which the code of a library at ``location`` is reached.
    """

    caller: Location | None = None

    def __init__(self, cause: str, remedy: str, location: Location | None = None) -> None:
        self.cause = cause
        self.remedy = remedy
        self.location = location
        super().__init__(cause, remedy, location)

    def locate(self, location: Location) -> None:
        """Adds the location, once it is known."""
        self.location = location
        self.args = (self.cause, self.remedy, location)

    def called_from(self, place: Location) -> None:
        """Adds the user's line that leads to code of a library, unless it is known."""
        if self.caller is None and self.location is not None:
            if self.location.in_library and not place.in_library:
                self.caller = place

    def __str__(self) -> str:
        lines = []
        for place, lead in ((self.caller, ""), (self.location, "in " if self.caller else "")):
            if place is None:
                continue
            lines.append(f"{lead}{place}")
            if place.code:
                lines.append(f"    {place.code}")
        lines.append(f"cause:  {self.cause}")
        lines.append(f"remedy: {self.remedy}")
        return "\n".join(lines)

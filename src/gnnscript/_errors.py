"""The error types of gnnscript: every message says where, what the cause is, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


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
    """

    def __init__(self, cause: str, remedy: str, location: Location | None = None) -> None:
        self.cause = cause
        self.remedy = remedy
        self.location = location
        super().__init__(cause, remedy, location)

    def locate(self, location: Location) -> None:
        """Adds the location, once it is known."""
        self.location = location
        self.args = (self.cause, self.remedy, location)

    def __str__(self) -> str:
        lines = []
        if self.location is not None:
            lines.append(str(self.location))
            if self.location.code:
                lines.append(f"    {self.location.code}")
        lines.append(f"cause:  {self.cause}")
        lines.append(f"remedy: {self.remedy}")
        return "\n".join(lines)

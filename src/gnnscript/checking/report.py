"""The result of a check: plain data, a table, and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gnnscript._errors import UnsupportedError

__all__ = ["DOORS", "Outcome", "Report", "Row", "outcome_of"]

DOORS = ("script", "load", "fx", "compile", "export")
"""``torch.jit.script``; the saved file in a process with torch alone; ``gnnscript.fx``;
``torch.compile(fullgraph=True, dynamic=True)``; ``torch.export.export`` with dynamic sizes."""


@dataclass(frozen=True)
class Outcome:
    """What came of one door.

    Attributes:
        status: ``ok``, ``failed``, or ``skipped`` where there is nothing to try it with.
        cause: Why it is not ``ok``.
        remedy: What can be changed, if that is known.
        location: ``file:line`` in the user's source, if that is known.
    """

    status: str
    cause: str = ""
    remedy: str = ""
    location: str = ""


@dataclass(frozen=True)
class Row:
    """The outcomes of one module.

    Attributes:
        path: Where it is in the model that was checked; empty for the model itself.
        name: Its class.
        outcomes: By door.
    """

    path: str
    name: str
    outcomes: dict[str, Outcome]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(outcome.status != "failed" for outcome in self.outcomes.values())


@dataclass(frozen=True)
class Report:
    """The outcomes of a model and of each conv in it; ``str(report)`` is a table.

    Attributes:
        rows: The model's own first.
    """

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(row.ok for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {"ok": self.ok, "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        doors = list(self.rows[0].outcomes) if self.rows else list(DOORS)
        lines = [["module", *doors]]
        notes: list[str] = []
        for row in self.rows:
            label = f"{row.path} ({row.name})" if row.path else row.name
            lines.append([label, *(row.outcomes[door].status for door in doors)])
            alike: dict[Outcome, list[str]] = {}
            for door, outcome in row.outcomes.items():
                if outcome.status != "ok":
                    alike.setdefault(outcome, []).append(door)
            notes += [_note(label, closed, outcome) for outcome, closed in alike.items()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*table, *notes])


def _note(label: str, doors: list[str], outcome: Outcome) -> str:
    lines = [f"\n{label}, {', '.join(doors)}: {outcome.status}"]
    lines += [f"  {outcome.location}"] if outcome.location else []
    lines += [f"  cause:  {outcome.cause}"]
    lines += [f"  remedy: {outcome.remedy}"] if outcome.remedy else []
    return "\n".join(lines)


def outcome_of(error: BaseException) -> Outcome:
    """What an exception says of the door at which it was raised."""
    if isinstance(error, UnsupportedError):
        location = "" if error.location is None else str(error.location)
        return Outcome("failed", error.cause, error.remedy, location)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[0] if not lines[0].endswith(":") else f"{lines[0]} {lines[-1]}"
    return Outcome("failed", f"{type(error).__name__}: {text}"[:500])

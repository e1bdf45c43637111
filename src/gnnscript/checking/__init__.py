"""What a module can do: is it scripted, loaded, traced, compiled, exported, and if not, why."""

from gnnscript.checking.doors import check
from gnnscript.checking.report import DOORS, Outcome, Report, Row

__all__ = ["DOORS", "Outcome", "Report", "Row", "check"]

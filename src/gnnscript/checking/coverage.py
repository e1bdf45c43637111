"""The page docs/coverage.md: the cases of the conformance tests, put through every door."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnscript import _pyg
from gnnscript._bare import BareProcess
from gnnscript._errors import GnnscriptError
from gnnscript.checking.doors import check
from gnnscript.checking.report import DOORS, Outcome, Row, outcome_of

__all__ = ["CaseResult", "Entry", "cases", "page", "run_cases"]

_TITLES = {
    "nn.conv": "Convolutions",
    "nn.aggr": "Aggregations",
    "nn.norm": "Norms",
    "nn.pool": "Pooling",
    "nn.unpool": "Unpooling",
    "nn.models": "Models",
    "nn.dense": "Dense layers",
    "nn": "Containers and other modules",
    "": "Modules that call PyG's functions",
}


@dataclass(frozen=True)
class Entry:
    """One case: a module in one configuration, called in one form.

    Attributes:
        name: The case's name.
        of: The class that the case names, if it does.
        make: Makes the module and its calls.
    """

    name: str
    of: str
    make: Callable[[], tuple[nn.Module, list[Any]]]


@dataclass(frozen=True)
class CaseResult:
    """What came of a case.

    Attributes:
        name: The case's name.
        cls: The class of PyG's that it is about.
        package: Where in ``torch_geometric`` the class is; empty for a module of the tests.
        row: The outcomes.
    """

    name: str
    cls: str
    package: str
    row: Row

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON."""
        return asdict(self)


def cases(folder: Path) -> list[Entry]:
    """All cases in the tables of a folder of conformance tests.

    A table is a list in one of its modules, of rows that have ``make``, and ``inputs`` (a function
    of a graph) or ``forms`` (each with ``model``, around the module, and ``inputs``).

    Raises:
        GnnscriptError: There is no such folder.
    """
    if not (folder / "graphs.py").is_file():
        raise GnnscriptError(
            f"there are no conformance cases in '{folder}'; run this in a clone of the "
            "repository, or name the folder with --cases"
        )
    sys.path.insert(0, str(folder.resolve().parent))
    graphs = importlib.import_module(f"{folder.name}.graphs").GRAPHS
    found: dict[int, Entry] = {}
    entries: list[Entry] = []
    for file in sorted(folder.glob("*.py")):
        if file.stem == "conftest":
            continue
        module = importlib.import_module(f"{folder.name}.{file.stem}")
        for table in list(vars(module).values()):
            if not isinstance(table, list):
                continue
            for case in table:
                if id(case) not in found and callable(getattr(case, "make", None)):
                    made = list(_entries(case, graphs))
                    entries += made
                    if made:
                        found[id(case)] = made[0]
    return entries


def _entries(case: Any, graphs: Any) -> Iterator[Entry]:
    named = getattr(case, "conv", "")
    name = f"{named}-{case.option}" if named else case.name
    if hasattr(case, "forms"):
        for form in case.forms:
            yield Entry(f"{name}-{form.name}", named, _maker(case, form, graphs))
    elif hasattr(case, "inputs"):
        yield Entry(name, named, _maker(case, None, graphs))


def _maker(case: Any, form: Any, graphs: Any) -> Callable[[], tuple[nn.Module, list[Any]]]:
    def make() -> tuple[nn.Module, list[Any]]:
        torch.manual_seed(0)
        named = getattr(case, "conv", None)
        module = case.make() if named is None else case.make(_pyg.module_class(named))
        if form is not None and form.model is not None:
            module = form.model(module)
        inputs = case.inputs if form is None else form.inputs
        # A module that caches may see one graph only.
        seen = graphs[:1] if getattr(case, "same_graph", False) else graphs
        calls = [inputs(graph) for graph in seen]
        if getattr(case, "lazy", False):
            with torch.no_grad():
                module(*calls[0])
        return module, calls

    return make


def run_cases(
    entries: Sequence[Entry],
    doors: Sequence[str] = DOORS,
    progress: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Puts each case through the doors.

    Args:
        entries: The cases.
        doors: The doors.
        progress: Called with each result.
    """
    results = []
    with BareProcess() as bare:
        for entry in entries:
            try:
                module, calls = entry.make()
            except Exception as error:
                failed: Outcome = outcome_of(error)
                row = Row("", entry.of or entry.name, dict.fromkeys(doors, failed))
                result = CaseResult(entry.name, entry.of or entry.name, "", row)
            else:
                row = check(module, calls, doors=doors, convs=False, bare=bare).rows[0]
                result = CaseResult(entry.name, *_subject(entry, module), row)
            results.append(result)
            if progress is not None:
                progress(result)
    return results


def _subject(entry: Entry, module: nn.Module) -> tuple[str, str]:
    """The class of PyG's that a case is about, and where PyG has it."""
    for one in module.modules():
        cls = type(one)
        if cls.__module__.startswith("torch_geometric.") and entry.of in ("", cls.__name__):
            return cls.__name__, ".".join(cls.__module__.split(".")[1:3])
    return entry.of or type(module).__name__, ""


def page(results: Sequence[CaseResult], doors: Sequence[str] = DOORS) -> str:
    """The page, in Markdown."""
    total = len(results)
    passed = {d: sum(r.row.outcomes[d].status == "ok" for r in results) for d in doors}
    versions = f"torch {torch.__version__} and PyG {_pyg.version()}"
    lines = [
        "# Coverage",
        "",
        "What `gnnscript check --all-pyg --write docs/coverage.md` found: the cases of",
        f"`tests/conformance`, {total} configurations and forms of call, with {versions}.",
        "A case passes a door if what comes out runs on two graphs of different size and equals",
        "eager.",
        "",
        "| door | what is called | cases that pass |",
        "|---|---|---|",
        *(f"| {d} | {_CALLS[d]} | {passed[d]} of {total} |" for d in doors),
        "",
    ]
    groups: dict[str, dict[str, list[CaseResult]]] = {}
    for result in results:
        group = result.package if result.package in _TITLES else "nn" if result.package else ""
        groups.setdefault(group, {}).setdefault(result.cls, []).append(result)
    for group, title in _TITLES.items():
        if group in groups:
            lines += _section(title, groups[group], doors)
    return "\n".join(lines).rstrip() + "\n"


_CALLS = {
    "script": "`torch.jit.script(model)`",
    "load": "the saved file, in a process that imports torch alone",
    "fx": "`gnnscript.fx.symbolic_trace(model, example)`",
    "compile": "`torch.compile(model, fullgraph=True, dynamic=True)`, compiled once",
    "export": "`torch.export.export(model, example, dynamic_shapes=...)`",
}


def _section(title: str, classes: dict[str, list[CaseResult]], doors: Sequence[str]) -> list[str]:
    lines = [f"## {title}", "", f"| class | {' | '.join(doors)} |", "|---" * (len(doors) + 1) + "|"]
    notes: list[str] = []
    for name in sorted(classes):
        cells = []
        for door in doors:
            outcomes = [(r.name, r.row.outcomes[door]) for r in classes[name]]
            failed = [(case, outcome) for case, outcome in outcomes if outcome.status != "ok"]
            cells.append(f"{len(outcomes) - len(failed)}/{len(outcomes)}")
            notes += _notes(name, door, failed)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", *([*notes, ""] if notes else [])]


def _notes(name: str, door: str, failed: list[tuple[str, Outcome]]) -> list[str]:
    by_cause: dict[str, list[str]] = {}
    for case, outcome in failed:
        place = _portable(outcome.location)
        cause = " ".join(_portable(outcome.cause).replace("|", "\\|").split())
        text = cause + (f" ({place})" if place else "")
        if outcome.remedy:
            text += f"; {outcome.remedy}"
        by_cause.setdefault(text, []).append(case)
    return [f"- {name}, {door} ({', '.join(names)}): {cause}" for cause, names in by_cause.items()]


def _portable(text: str) -> str:
    """Text in which paths of this machine begin at the package."""
    words = []
    for word in text.split(" "):
        for package in ("torch_geometric/", "torch/", "tests/"):
            if f"/{package}" in word:
                lead = "'" if word.startswith("'") else ""
                word = lead + package + word.split(f"/{package}", 1)[1]  # noqa: PLW2901
                break
        words.append(word)
    return " ".join(words)

"""The cases of the conformance tests, put through every door."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnscript import _pyg
from gnnscript._bare import BareProcess
from gnnscript._errors import GnnscriptError
from gnnscript.checking.doors import Subject, check, quiet
from gnnscript.checking.report import DOORS, Outcome, Row, outcome_of

__all__ = ["CaseResult", "Entry", "cases", "not_tried", "run_cases"]


@dataclass(frozen=True)
class Entry:
    """One case: a module in one configuration, called in one form.

    Attributes:
        name: The case's name.
        of: The class that the case names, if it does.
        make: Makes the module, its calls, and the part of the module that the case is about.
    """

    name: str
    of: str
    make: Callable[[], tuple[nn.Module, list[Any], nn.Module]]


@dataclass(frozen=True)
class CaseResult:
    """What came of a case.

    Attributes:
        name: The case's name.
        cls: The class of PyG's that it is about.
        package: Where in ``torch_geometric`` the class is; empty for a module of the tests.
        row: The outcomes.
        alone: Whether ``torch.jit.script`` without gnnscript gives a model that runs, is saved,
            loaded where torch is alone, and equals eager.
    """

    name: str
    cls: str
    package: str
    row: Row
    alone: bool = False

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
    modules = _modules(folder)
    graphs = modules["graphs"].GRAPHS
    found: dict[int, Entry] = {}
    entries: list[Entry] = []
    for module in modules.values():
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


def not_tried(folder: Path) -> dict[str, str]:
    """Classes without a case, each with the reason: the tables ``NOT_TRIED`` of the folder.

    Raises:
        GnnscriptError: There is no such folder.
    """
    reasons: dict[str, str] = {}
    for module in _modules(folder).values():
        reasons.update(getattr(module, "NOT_TRIED", {}))
    return reasons


def _modules(folder: Path) -> dict[str, types.ModuleType]:
    if not (folder / "graphs.py").is_file():
        raise GnnscriptError(
            f"there are no conformance cases in '{folder}'; run this in a clone of the "
            "repository, or name the folder with --cases"
        )
    parent = str(folder.resolve().parent)
    if parent not in sys.path:
        sys.path.insert(0, parent)
    names = sorted(file.stem for file in folder.glob("*.py") if file.stem != "conftest")
    return {name: importlib.import_module(f"{folder.name}.{name}") for name in names}


def _entries(case: Any, graphs: Any) -> Iterator[Entry]:
    named = getattr(case, "conv", "")
    name = f"{named}-{case.option}" if named else case.name
    if hasattr(case, "forms"):
        for form in case.forms:
            yield Entry(f"{name}-{form.name}", named, _maker(case, form, graphs))
    elif hasattr(case, "inputs"):
        yield Entry(name, named, _maker(case, None, graphs))


_Made = tuple[nn.Module, list[Any], nn.Module]


def _maker(case: Any, form: Any, graphs: Any) -> Callable[[], _Made]:
    def make() -> _Made:
        torch.manual_seed(0)
        named = getattr(case, "conv", None)
        about = case.make() if named is None else case.make(_pyg.module_class(named))
        module = about
        if form is not None and form.model is not None:
            module = form.model(module)
        inputs = case.inputs if form is None else form.inputs
        # A module that caches may see one graph only.
        seen = graphs[:1] if getattr(case, "same_graph", False) else graphs
        calls = [inputs(graph) for graph in seen]
        if getattr(case, "lazy", False):
            with torch.no_grad():
                module(*calls[0])
        return module, calls, about

    return make


def run_cases(
    entries: Sequence[Entry],
    doors: Sequence[str] = DOORS,
    progress: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Puts each case through the doors, and then through ``torch.jit.script`` without gnnscript.

    In this order, as PyG's ``Sequential`` leaves the code of one model on its class.

    Args:
        entries: The cases.
        doors: The doors.
        progress: Called with each result of the doors.
    """
    from gnnscript.intercept.hook import installed

    with BareProcess() as bare:
        results = []
        with installed():
            for entry in entries:
                result = _through_doors(entry, doors, bare)
                results.append(result)
                if progress is not None:
                    progress(result)
        alone = [_alone(entry, bare) for entry in entries]
    return [replace(result, alone=passed) for result, passed in zip(results, alone, strict=True)]


def _through_doors(entry: Entry, doors: Sequence[str], bare: BareProcess) -> CaseResult:
    try:
        module, calls, about = entry.make()
        row = check(module, calls, doors=doors, convs=False, bare=bare).rows[0]
    except Exception as error:
        failed: Outcome = outcome_of(error)
        row = Row("", entry.of or entry.name, dict.fromkeys(doors, failed))
        return CaseResult(entry.name, entry.of or entry.name, "", row)
    return CaseResult(entry.name, *_subject(entry, about), row)


def _alone(entry: Entry, bare: BareProcess) -> bool:
    """Whether a case scripts, runs, is saved and loaded with torch and PyG alone."""
    with quiet():
        try:
            module, calls, _ = entry.make()
            module.eval()
            subject = Subject(module, calls)
            scripted = torch.jit.script(subject.fresh())
            subject.compare(scripted)
            subject.compare_reloaded(scripted, subject.calls, bare)
        except Exception:
            return False
    return True


def _subject(entry: Entry, about: nn.Module) -> tuple[str, str]:
    """The class of PyG's that a case is about, and where PyG has it."""
    own = [
        type(one) for one in about.modules() if type(one).__module__.startswith("torch_geometric.")
    ]
    name = entry.of or entry.name.split("-")[0]
    named = [cls for cls in own if cls.__name__ == name]
    if not named and not entry.of and own[:1] == [type(about)]:
        named = own
    if named:
        return named[0].__name__, ".".join(named[0].__module__.split(".")[1:3])
    return name, ""

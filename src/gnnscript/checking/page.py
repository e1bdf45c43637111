"""The page docs/coverage.md: what came of the cases, in Markdown."""

from __future__ import annotations

import platform
import re
import textwrap
from collections.abc import Mapping, Sequence

import torch

from gnnscript import _pyg
from gnnscript.checking.coverage import CaseResult
from gnnscript.checking.report import DOORS, Outcome
from gnnscript.ops import library

__all__ = ["page"]

_TITLES = {
    "nn.conv": "Convolutions",
    "nn.aggr": "Aggregations",
    "nn.norm": "Norms",
    "nn.pool": "Pooling",
    "nn.unpool": "Unpooling",
    "nn.models": "Models",
    "nn.dense": "Dense layers",
    "nn": "Containers and other modules",
    "": "Modules of one's own that call PyG's functions",
}
_CALLS = {
    "script": "`torch.jit.script(model)`",
    "load": "the saved file, in a process that has imported torch alone",
    "fx": "`gnnscript.fx.symbolic_trace(model, example)`",
    "compile": "`torch.compile(model, fullgraph=True, dynamic=True)`: no graph break, and not "
    "compiled again for the second graph",
    "export": "`torch.export.export(model, example)` with dynamic node and edge counts",
}
_ALONE = "`torch.jit.script(model)`, saved, and loaded in a process that has imported torch alone"


def page(
    results: Sequence[CaseResult],
    doors: Sequence[str] = DOORS,
    not_tried: Mapping[str, str] | None = None,
    there: int | None = None,
) -> str:
    """Writes the page.

    Args:
        results: What came of the cases.
        doors: The doors that they were put through.
        not_tried: Classes without a case, each with the reason.
        there: How many cases there are; by default, those that results are given of.
    """
    results = sorted(results, key=lambda result: (result.cls.lower(), result.name))
    total = len(results)
    alone = sum(result.alone for result in results)
    among = f"{total} " if there in (None, total) else f"{total} of the {there} "
    python = ".".join(platform.python_version_tuple()[:2])
    introduction = (
        f"`gnnscript check --all-pyg --write docs/coverage.md` has written this page, from "
        f"{among}cases: modules of PyG, in their configurations and forms of call (the tables of "
        f"`tests/conformance`), with torch {torch.__version__}, PyG {_pyg.version()}, Python "
        f"{python} and the {library.implementation()} ops. A case passes a door if what comes out "
        "runs on two graphs of different size, in eval mode, and equals eager. "
        "[The other doors](doors.md) says how to check a model of yours."
    )
    lines = [
        "# Coverage",
        "",
        *textwrap.wrap(introduction, 100),
        "",
        "| door | what is called | cases that pass |",
        "|---|---|---|",
        f"| without gnnscript | {_ALONE} | {alone} of {total} |",
        *(f"| {d} | {_CALLS[d]} | {_passed(results, d)} of {total} |" for d in doors),
        "",
    ]
    groups: dict[str, dict[str, list[CaseResult]]] = {}
    for result in results:
        group = result.package if result.package in _TITLES else "nn" if result.package else ""
        groups.setdefault(group, {}).setdefault(result.cls, []).append(result)
    present = {group: title for group, title in _TITLES.items() if group in groups}
    lines += [_head("", "cases", "without gnnscript", *doors)]
    for group, title in present.items():
        own = [result for cases in groups[group].values() for result in cases]
        numbers = (len(own), sum(r.alone for r in own), *(_passed(own, d) for d in doors))
        lines.append(f"| {title} | {' | '.join(map(str, numbers))} |")
    lines += ["", *_closed(results, doors, not_tried or {})]
    for group, title in present.items():
        lines += _section(title, groups[group], doors)
    return "\n".join(lines).rstrip() + "\n"


def _passed(results: Sequence[CaseResult], door: str) -> int:
    return sum(result.row.outcomes[door].status == "ok" for result in results)


def _head(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n{'|---' * len(cells)}|"


def _closed(
    results: Sequence[CaseResult], doors: Sequence[str], not_tried: Mapping[str, str]
) -> list[str]:
    """The doors that are closed, and why: one entry for each cause and remedy."""
    causes: dict[tuple[str, str], dict[str, dict[str, list[CaseResult]]]] = {}
    for result in results:
        for door in doors:
            outcome = result.row.outcomes[door]
            if outcome.status != "ok":
                by_place = causes.setdefault(_cause(outcome), {})
                at = by_place.setdefault(portable(outcome.location), {})
                at.setdefault(door, []).append(result)
    lines = ["## What does not pass, and why", ""]
    for (cause, remedy), places in sorted(causes.items()):
        lines.append(f"- {cause}." + (f" Remedy: {remedy}." if remedy else ""))
        for place, by_door in sorted(places.items()):
            shown: dict[str, list[str]] = {}
            for door, failed in by_door.items():  # in the order of the doors
                shown.setdefault(", ".join(_labels(failed)), []).append(door)
            where = f" (`{place}`)" if place else ""
            lines += [f"  - {', '.join(found)}: {cases}{where}" for cases, found in shown.items()]
    if not_tried:
        lines += ["", "Not among the cases:", ""]
        lines += [f"- {name}: {not_tried[name]}" for name in sorted(not_tried, key=str.lower)]
    return [*lines, ""]


def _labels(results: Sequence[CaseResult]) -> list[str]:
    """The classes that cases are about, with the option where it is not the class alone."""
    labels = []
    for result in results:
        option = _option(result)
        labels.append(f"{result.cls} ({option})" if option else result.cls)
    return labels


def _option(result: CaseResult) -> str:
    """What is special in a case, as its name says beside the class."""
    return result.name.removeprefix(result.cls).lstrip("-")


def _section(title: str, classes: dict[str, list[CaseResult]], doors: Sequence[str]) -> list[str]:
    lines = [f"## {title}", "", _head("class, configuration", "without gnnscript", *doors)]
    for name in sorted(classes, key=str.lower):
        own = classes[name]
        cells = [_share(sum(result.alone for result in own), len(own))]
        cells += [_share(_passed(own, door), len(own)) for door in doors]
        lines.append(f"| **{name}** | {' | '.join(cells)} |")
        options: dict[tuple[bool, ...], list[str]] = {}
        for result in own:
            marks = (result.alone, *(result.row.outcomes[d].status == "ok" for d in doors))
            options.setdefault(marks, []).append(_option(result) or "default")
        for marks, named in options.items():
            shown = " | ".join("✓" if mark else "✗" for mark in marks)
            if named != ["default"]:
                lines.append(f"| {', '.join(named)} | {shown} |")
    return [*lines, ""]


def _share(passed: int, total: int) -> str:
    return f"{passed} of {total}"


# The door is named beside the cause, and what torch calls a size differs from case to case.
_BESIDE = re.compile(r"^torch\.\w+ does not accept this: ")
_VALUES = "it depends on the values that a tensor holds"


def _cause(outcome: Outcome) -> tuple[str, str]:
    cause = _BESIDE.sub("", " ".join(portable(outcome.cause).split())).rstrip(".!")
    if cause.startswith(_VALUES):
        cause = _VALUES
    return cause, " ".join(portable(outcome.remedy).split()).rstrip(".")


_FOLDER = re.compile(r"(?<![\w.])/[^\s'\",:]*?/(?=(torch_geometric|torch|tests|gnnscript)/)")


def portable(text: str) -> str:
    """Text without what differs from machine to machine and from run to run."""
    text = _FOLDER.sub("", text)
    text = re.sub(r"/\S+/(\w+\.cpp)\b", r"\1", text)  # of torch, as built elsewhere
    text = re.sub(r"gnnscript_lowered/(\w+?)_\d+\.py:\d+", r"the code of \1", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)

"""Say of a module, and of each conv in it, which doors it passes, and if not, why.

The doors are script (torch.jit.script), load (the saved file, in a process with torch alone), fx
(gnnscript.fx.symbolic_trace), compile (torch.compile, fullgraph and dynamic) and export
(torch.export.export with dynamic sizes). For a failure, the line, the cause and the remedy are
given. Example inputs are those of --inputs, one call as a tuple or several in a list; or the target
returns a pair of a module and these; otherwise calls are made up for usual arguments such as x and
edge_index. A file or package.module without a name stands for each class of modules in it.

Exit code 0: nothing failed. 1: something failed. 2: the target could not be made.

With --all-pyg, instead of a target, the cases of this project's conformance tests are checked (in a
clone of the repository), and the page docs/coverage.md is written from them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gnnscript._bare import BareProcess
from gnnscript._errors import GnnscriptError
from gnnscript.checking import DOORS, check
from gnnscript.checking.report import Outcome, Report, Row
from gnnscript.commands._target import (
    add_inputs,
    add_target,
    find,
    find_classes,
    inputs_of,
    module_and_inputs,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``gnnscript check``."""
    add_target(parser, nargs="?")
    add_inputs(parser)
    parser.add_argument(
        "--doors",
        default=",".join(DOORS),
        help="which to check, separated by commas (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--all-pyg", action="store_true", help="check the cases of PyG's classes instead"
    )
    parser.add_argument(
        "--cases",
        type=Path,
        default=Path("tests/conformance"),
        help="with --all-pyg: the folder of the cases (default: %(default)s)",
    )
    parser.add_argument(
        "--only", default="", help="with --all-pyg: only cases whose name contains this"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="with --all-pyg: how many processes share the cases (default: %(default)s)",
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="with --all-pyg: the page to write"
    )


def run(arguments: argparse.Namespace) -> int:
    """Checks, and prints the report."""
    doors = [door for door in arguments.doors.split(",") if door]
    if set(doors) - set(DOORS):
        raise GnnscriptError(f"expected doors out of {', '.join(DOORS)}, got {arguments.doors}")
    if arguments.all_pyg:
        return _all_pyg(arguments, doors)
    if arguments.target is None:
        raise GnnscriptError("name a target, or use --all-pyg")
    inputs = None if arguments.inputs is None else inputs_of(arguments.inputs)
    if ":" in arguments.target:
        module, own = module_and_inputs(find(arguments.target), arguments.target)
        report = check(module, own if inputs is None else inputs, doors=doors)
    else:
        report = _every(arguments.target, inputs, doors)
    print(json.dumps(report.to_dict(), indent=2) if arguments.json else report)
    return 0 if report.ok else 1


def _every(where: str, inputs: Any, doors: list[str]) -> Report:
    """Checks each class of modules of a file."""
    rows: list[Row] = []
    reports = 0
    with BareProcess() as bare:
        for name, cls in find_classes(where).items():
            try:
                module, _ = module_and_inputs(cls, f"{where}:{name}")
                rows += check(module, inputs, doors=doors, bare=bare).rows
                reports += 1
            except GnnscriptError as error:
                rows.append(Row("", name, dict.fromkeys(doors, Outcome("skipped", str(error)))))
    if not reports:
        raise GnnscriptError(
            f"none of the modules of {where!r} could be made:\n{Report(tuple(rows))}"
        )
    return Report(tuple(rows))


def _all_pyg(arguments: argparse.Namespace, doors: list[str]) -> int:
    from gnnscript.checking.coverage import CaseResult, cases, not_tried, run_cases
    from gnnscript.checking.page import page
    from gnnscript.checking.sharing import run_shared

    if arguments.jobs < 1:
        raise GnnscriptError(f"expected a number of processes for --jobs, got {arguments.jobs}")
    every = cases(arguments.cases)
    numbers = [n for n, entry in enumerate(every) if arguments.only in entry.name]
    done = 0

    def tell(result: CaseResult) -> None:
        nonlocal done
        done += 1
        failed = [door for door, out in result.row.outcomes.items() if out.status != "ok"]
        closed = f": not {', '.join(failed)}" if failed else ""
        print(f"{done}/{len(numbers)} {result.name}{closed}", file=sys.stderr)

    if arguments.jobs > 1:
        results = run_shared(arguments.cases, numbers, doors, arguments.jobs, tell)
    else:
        results = run_cases([every[n] for n in numbers], doors, tell)
    if arguments.json:
        print(json.dumps([result.to_dict() for result in results], indent=2))
    if arguments.write is not None:
        text = page(results, doors, not_tried(arguments.cases), len(every))
        arguments.write.write_text(text, encoding="utf-8")
    if not arguments.json:
        passed = sum(result.row.ok for result in results)
        print(f"{passed} of {len(results)} cases pass {', '.join(doors)}")
    return 0 if all(result.row.ok for result in results) else 1

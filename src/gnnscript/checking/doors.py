"""``check``: puts a module through the doors and compares what comes out with eager."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gnnscript._bare import SEED, BareProcess, Call, arguments
from gnnscript._errors import GnnscriptError
from gnnscript.checking.inputs import guess, positional, watch
from gnnscript.checking.report import DOORS, Outcome, Report, Row, outcome_of
from gnnscript.hetero import spelled

__all__ = ["Subject", "check", "quiet"]

_GIVE = (
    "pass example_inputs; on the command line, --inputs names them, or the target returns the "
    "module and a call, such as (model, (x, edge_index))"
)
_TOLERANCE = 1e-4  # float32, sums in another order


def check(
    module: nn.Module | Callable[[], nn.Module],
    example_inputs: Call | Sequence[Call] | None = None,
    *,
    doors: Sequence[str] = DOORS,
    convs: bool = True,
    bare: BareProcess | None = None,
) -> Report:
    """Says of a module, and of each conv in it, which doors it passes, and if not, why.

    Each door is opened as with ``import gnnscript.auto``, in eval mode, on a copy. What comes out
    must run on all examples and equal eager; with two examples of different size, a graph that
    holds for one size only is found out.

    Args:
        module: The module; or a class or function that makes it without arguments.
        example_inputs: A call of the module (a tuple of positional or a dict of keyword
            arguments) or a list of calls. Without it, calls are made up for the usual arguments
            (``x``, ``edge_index``, ...); where that does not do, ``script`` and ``load`` are
            checked without running, and the others are skipped.
        doors: Which to check, of :data:`DOORS`.
        convs: Whether to check each conv of a model by itself too, with the arguments that the
            model calls it with.
        bare: The process for ``load``, if one is running already.

    Returns:
        The report. ``report.ok`` says whether nothing failed, ``str(report)`` is a table.

    Raises:
        ValueError: A door is unknown.
        TypeError: What was made is no module.
        GnnscriptError: The module cannot be copied, or raises on the example inputs.
    """
    from gnnscript.intercept.hook import installed

    unknown = set(doors) - set(DOORS)
    if unknown:
        raise ValueError(f"expected doors out of {DOORS}, got {sorted(unknown)}")
    made = module if isinstance(module, nn.Module) else module()
    if not isinstance(made, nn.Module):
        raise TypeError(f"expected a module, or what makes one without arguments, got {made!r}")
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(installed())
        process = bare or stack.enter_context(BareProcess())
        try:
            with torch.no_grad():  # some modules compute when their mode is set
                model = copy.deepcopy(made)
                model.eval()  # of which some modules do not return themselves
        except Exception as error:
            raise GnnscriptError(
                f"'{type(made).__name__}' cannot be copied ({type(error).__name__}: {error}); a "
                "check needs a model that copy.deepcopy takes, such as one that has not run yet"
            ) from error
        calls, lacking = guess(model) if example_inputs is None else (_calls(example_inputs), "")
        subject = Subject(model, calls, lacking)
        try:
            subject.expected()
        except Exception as error:
            raise GnnscriptError(
                f"'{type(made).__name__}' itself raises on the example inputs "
                f"({outcome_of(error).cause}); give calls that it takes"
            ) from error
        rows = [_row("", subject, doors, process)]
        if convs and calls:
            for path, (conv, seen) in watch(copy.deepcopy(model), calls).items():
                subject = Subject(conv, seen, "the model does not call it on the examples")
                rows.append(_row(path, subject, doors, process))
    return Report(tuple(rows))


def _calls(given: Call | Sequence[Call]) -> list[Call]:
    return list(given) if isinstance(given, list) else [given]  # type: ignore[list-item]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch from reporting at length what ends up in the report anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(redirect_stdout(io.StringIO()))
            stack.enter_context(redirect_stderr(io.StringIO()))
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@dataclass
class Subject:
    """A module to check, and the calls to check it with, or why there are none."""

    module: nn.Module
    calls: list[Call]
    lacking: str = ""

    def fresh(self) -> nn.Module:
        """A copy, so that no door sees what another has left in caches."""
        with torch.no_grad():
            fresh = copy.deepcopy(self.module)
            fresh.eval()
            return fresh

    def expected(self) -> list[Any]:
        """What eager gives."""
        return self.outputs(self.fresh())

    def outputs(self, run: Callable[..., Any], calls: Sequence[Call] | None = None) -> list[Any]:
        """What ``run`` gives for each call."""
        found = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for call in self.calls if calls is None else calls:
                args, kwargs = arguments(_copied(call))
                torch.manual_seed(SEED)
                found.append(run(*args, **kwargs))
        return found

    def compare(self, run: Callable[..., Any], calls: Sequence[Call] | None = None) -> None:
        """Asserts that ``run`` gives what eager gives."""
        self.same(self.outputs(run, calls))

    def compare_reloaded(self, scripted: Any, calls: Sequence[Call], bare: BareProcess) -> None:
        """Asserts that a scripted model, saved and loaded by ``bare``, gives what eager gives."""
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        found = bare.run(file.getvalue(), calls)
        if calls:
            self.same(found)

    def same(self, found: list[Any]) -> None:
        """Asserts that outputs are those of eager, edge types spelled as TorchScript does."""
        from gnnscript.testing import _assert_close

        expected, found = spelled(self.expected()), spelled(found)
        for number, (want, got) in enumerate(zip(expected, found, strict=True)):
            _assert_close(want, got, _TOLERANCE, _TOLERANCE, f"example {number} differs from eager")


def _copied(call: Call) -> Call:
    """A call of its own: some modules write into what they are given."""
    return copy.deepcopy(call)


def _row(path: str, subject: Subject, doors: Sequence[str], bare: BareProcess) -> Row:
    outcomes: dict[str, Outcome] = {}
    for door in doors:
        if door in ("fx", "compile", "export") and not subject.calls:
            outcomes[door] = Outcome("skipped", subject.lacking or "no example inputs", _GIVE)
            continue
        try:
            if door == "load":
                _load(subject, bare)
            else:
                _OPEN[door](subject)
            outcomes[door] = Outcome("ok")
        except Exception as error:
            outcomes[door] = outcome_of(error)
    return Row(path, type(subject.module).__name__, outcomes)


def _scripted(subject: Subject) -> tuple[Any, list[tuple[Any, ...]]]:
    module = subject.fresh()
    calls = [positional(module, call) for call in subject.calls]
    if None in calls:
        return torch.jit.script(module), []
    given = [call for call in calls if call is not None]
    scripted = torch.jit.script(module, example_inputs=given[:1] or None)
    return scripted, [spelled(call) for call in given]


def _script(subject: Subject) -> None:
    scripted, calls = _scripted(subject)
    if calls:
        subject.compare(scripted, calls)


def _load(subject: Subject, bare: BareProcess) -> None:
    subject.compare_reloaded(*_scripted(subject), bare)


def _fx(subject: Subject) -> None:
    import gnnscript.fx

    args, kwargs = arguments(subject.calls[0])
    graph = gnnscript.fx.symbolic_trace(subject.fresh(), kwargs or args)
    remain = [str(node.target) for node in graph.graph.find_nodes(op="placeholder")]
    calls = [spelled(_by_name(subject.module, call, remain)) for call in subject.calls]
    subject.compare(graph, calls)


def _by_name(module: nn.Module, call: Call, names: list[str]) -> Call:
    args, kwargs = arguments(call)
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    if not set(names) <= set(bound) and not kwargs:  # `*args`, named by what it is passed to
        bound = dict(zip(names, args, strict=True))
    return {name: bound[name] for name in names}


def _compile(subject: Subject) -> None:
    import torch._dynamo

    from gnnscript.dynamo import REMEDY
    from gnnscript.script import explained

    torch._dynamo.reset()
    try:
        run: Any = torch.compile(subject.fresh(), fullgraph=True, dynamic=True, backend="eager")
        for _ in range(2):  # a module that caches is compiled with its cache empty, and filled
            subject.outputs(run, subject.calls[:1])
        with torch._dynamo.config.patch(error_on_recompile=True):
            subject.compare(run)
    except Exception as error:
        reason = explained(error, subject.module, "torch.compile", REMEDY)
        if reason is error:
            raise
        raise reason from error
    finally:
        torch._dynamo.reset()


def _export(subject: Subject) -> None:
    args, kwargs = arguments(_copied(subject.calls[0]))
    other = arguments(subject.calls[-1])
    shapes, named = _dynamic((args, kwargs), other)
    by_name = inspect.signature(subject.module.forward).bind(*shapes, **named).arguments
    program = torch.export.export(subject.fresh(), args, kwargs, dynamic_shapes=dict(by_name))
    subject.compare(program.module())


def _dynamic(first: Any, second: Any) -> Any:
    """Which sizes differ between two calls; with one call only, any may."""
    from torch.export import Dim

    if isinstance(first, torch.Tensor):
        sizes = range(first.dim())
        if first is second:
            return dict.fromkeys(sizes, Dim.AUTO)
        return {n: Dim.DYNAMIC for n in sizes if first.size(n) != second.size(n)} or None
    if isinstance(first, (tuple, list)):
        items = [_dynamic(*pair) for pair in zip(first, second, strict=True)]
        return tuple(items) if isinstance(first, tuple) else items
    if isinstance(first, dict):
        return {key: _dynamic(value, second[key]) for key, value in first.items()}
    if isinstance(first, int) and not isinstance(first, bool) and first != second:
        return Dim.DYNAMIC
    return None


_OPEN: dict[str, Callable[[Subject], None]] = {
    "script": _script,
    "fx": _fx,
    "compile": _compile,
    "export": _export,
}

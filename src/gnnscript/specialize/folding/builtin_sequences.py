"""Python's functions over sequences: ``len``, ``zip``, ``enumerate``, ``list``, ..."""

from __future__ import annotations

import ast
import collections
import functools
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import INT, list_of, tuple_of
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.builtins import evaluated, for_, keep
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Mapping,
    ModuleRef,
    Seq,
    constant_items,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame


@for_(len)
def _len(frame: Frame, function: Any, given: Arguments) -> Folded:
    value, node = given.args[0]
    items = constant_items(value)
    if items is not None:
        return Const(len(items)), None
    if isinstance(value, ModuleRef):
        return Const(len(value.module)), None  # type: ignore[arg-type]
    t = static_type(value)
    if t.name == "Tuple":
        return Const(len(t.args)), None
    value, kept = frame.present(value, frame.needed(value, node))
    return Dyn(INT), ast.Call(ast.Name("len", ast.Load()), [kept], [])


@for_(range)
def _range(frame: Frame, function: Any, given: Arguments) -> Folded:
    return evaluated(frame, function, given) or keep(frame, function, given, list_of(INT))


def parts_of(frame: Frame, folded: Folded) -> list[Folded] | None:
    """The elements of a known sequence, each with its expression."""
    value, node = folded
    items = constant_items(value)
    if items is None and isinstance(value, ModuleRef):
        items = list(frame.module_items(value))
        return [(item, literal(item)) for item in items]
    if items is None and static_type(value).name == "Tuple":
        items = [Dyn(t) for t in static_type(value).args]
    if items is None:
        return None
    if node is None or isinstance(value, Const):
        return [(item, literal(item)) for item in items]
    return list(zip(items, frame.element_nodes(node, len(items)).elts, strict=True))


def _listed(frame: Frame, parts: list[Folded], kind: str = "list") -> Folded:
    return frame.sequence(kind, [v for v, _ in parts], [n for _, n in parts])


@for_(enumerate)
def _enumerate(frame: Frame, function: Any, given: Arguments) -> Folded:
    parts = parts_of(frame, given.args[0])
    if parts is None:
        element = frame.element_type(static_type(given.args[0][0]))
        return keep(frame, function, given, list_of(tuple_of(INT, element.type)))
    start = 0
    for value, _ in [*given.args[1:], *given.kwargs.values()]:
        if not isinstance(value, Const):
            raise UnsupportedError(
                "'enumerate' starts at a number known only at run time",
                "add it to the numbers that are counted from 0",
            )
        start = value.value
    return _listed(
        frame,
        [
            _listed(frame, [(Const(i), ast.Constant(i)), part], "tuple")
            for i, part in enumerate(parts, start)
        ],
    )


@for_(zip)
def _zip(frame: Frame, function: Any, given: Arguments) -> Folded:
    columns = [parts_of(frame, folded) for folded in given.args]
    if any(column is None for column in columns):
        # one side is known: index the other by position
        known = [len(column) for column in columns if column is not None]
        if not known:
            elements = [frame.element_type(static_type(v)).type for v, _ in given.args]
            return keep(frame, function, type(given)(given.args, {}), list_of(tuple_of(*elements)))
        for position, column in enumerate(columns):
            if column is None:
                value, node = given.args[position]
                element = frame.element_type(static_type(value))
                nodes = frame.element_nodes(frame.needed(value, node), min(known)).elts
                columns[position] = [(element, n) for n in nodes]
    rows = zip(*[column for column in columns if column is not None], strict=False)
    return _listed(frame, [_listed(frame, list(row), "tuple") for row in rows])


def Arguments_(given: Arguments) -> Arguments:
    return type(given)(given.args, {})


@for_(reversed, sorted)
def _ordered(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None and function is sorted:
        return done
    if "key" in given.kwargs:
        return frame.by_key(function, given)
    parts = parts_of(frame, given.args[0])
    if parts is not None and function is reversed:
        return _listed(frame, parts[::-1])
    t = static_type(given.args[0][0])
    if function is reversed:
        kept = frame.needed(*given.args[0])
        return Dyn(t), ast.Subscript(kept, ast.Slice(None, None, ast.Constant(-1)), ast.Load())
    return keep(frame, function, given, t)


@for_(list, tuple, set, frozenset)
def _collection(frame: Frame, function: Any, given: Arguments) -> Folded:
    if not given.args:
        if function is list:
            return Seq((), "list"), ast.List([], ast.Load())
        return Const(function()), None
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    if function in (set, frozenset):
        raise UnsupportedError("TorchScript has no sets", "use a list or a dictionary")
    parts = parts_of(frame, given.args[0])
    if parts is not None:
        return _listed(frame, parts, function.__name__)
    value, node = given.args[0]
    if function is list:
        element = frame.element_type(static_type(value)).type
        return keep(frame, function, given, list_of(element))
    return value, frame.needed(value, node)


@for_(collections.defaultdict)
def _defaultdict(frame: Frame, function: Any, given: Arguments) -> Folded:
    default = given.args[0][0] if given.args else Const(None)
    value, node = _dict(frame, dict, type(given)(given.args[1:], given.kwargs))
    if isinstance(value, Mapping) and not (isinstance(default, Const) and default.value is None):
        value = Mapping(value.items, default)
    return value, node


@for_(dict, collections.OrderedDict)
def _dict(frame: Frame, function: Any, given: Arguments) -> Folded:
    items = {k: v for k, (v, _) in given.kwargs.items()}
    if given.args and isinstance(given.args[0][0], Mapping):
        items = given.args[0][0].items | items
    elif given.args:
        done = evaluated(frame, function, given)
        if done is not None:
            return done
        return keep(frame, function, given, static_type(given.args[0][0]))
    nodes: dict[str, ast.expr | None] = {k: node for k, (_, node) in given.kwargs.items()}
    base = given.args[0][1] if given.args else None
    if isinstance(base, ast.Dict):
        names = list(given.args[0][0].items) if isinstance(given.args[0][0], Mapping) else []
        nodes = {**dict(zip(names, base.values, strict=True)), **nodes}
    return frame.mapping(items, [nodes.get(name) for name in items])


@for_(functools.reduce)
def _reduce(frame: Frame, function: Any, given: Arguments) -> Folded:
    (callee, callee_node), sequence, *start = given.args
    parts = parts_of(frame, sequence)
    if parts is None:
        raise UnsupportedError("'reduce' over an unknown sequence", "write a loop")
    total, *rest = [*start, *parts]
    for part in rest:
        total = frame.call(callee, type(given)([total, part], {}), callee_node)
    return total


@for_(filter)
def _filter(frame: Frame, function: Any, given: Arguments) -> Folded:
    (callee, callee_node), sequence = given.args
    parts = parts_of(frame, sequence)
    if parts is None:
        raise UnsupportedError("'filter' over an unknown sequence", "write a list comprehension")
    chosen = []
    for part in parts:
        by_itself = isinstance(callee, Const) and callee.value is None
        kept = part if by_itself else frame.call(callee, type(given)([part], {}), callee_node)
        kept = frame.truth(*kept)
        if not isinstance(kept[0], Const):
            raise UnsupportedError(
                "'filter' decides by values of run time how many elements there are",
                "write a list comprehension",
            )
        chosen += [part] if kept[0].value else []
    return _listed(frame, chosen)


@for_(map)
def _map(frame: Frame, function: Any, given: Arguments) -> Folded:
    callee, callee_node = given.args[0]
    columns = [parts_of(frame, folded) for folded in given.args[1:]]
    known = [column for column in columns if column is not None]
    if len(known) != len(columns):
        raise UnsupportedError("'map' over an unknown sequence", "write a list comprehension")
    return _listed(
        frame,
        [
            frame.call(callee, type(given)(list(row), {}), callee_node)
            for row in zip(*known, strict=False)
        ],
    )

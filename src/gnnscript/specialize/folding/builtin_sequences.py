"""Python's functions over sequences: ``len``, ``zip``, ``enumerate``, ``list``, ..."""

from __future__ import annotations

import ast
import collections
import functools
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import INT, NUMBER, TENSOR, dict_of, list_of, tuple_of
from gnnscript.specialize import substitutes
from gnnscript.specialize.folding.base import Arguments, Binding, Folded
from gnnscript.specialize.folding.builtins import evaluated, for_, keep
from gnnscript.specialize.folding.iterators import first_parts, refuse_second_reader
from gnnscript.specialize.folding.rewritten import parsed_expression
from gnnscript.specialize.helpers import filled_range
from gnnscript.specialize.values import (
    Const,
    Defaulting,
    Dyn,
    Limited,
    Mapping,
    ModuleRef,
    Seq,
    Value,
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
        return Const(frame.compute(ast.Constant("len"), len, value.module)), None
    if isinstance(value, Const) and hasattr(value.value, "__len__"):
        return Const(frame.compute(ast.Constant("len"), len, value.value)), None
    t = static_type(value)
    if t.name == "Tuple":
        return Const(len(t.args)), None
    value, kept = frame.present(value, frame.needed(value, node))
    return Dyn(INT), ast.Call(ast.Name("len", ast.Load()), [kept], [])


@for_(iter)
def _iter(frame: Frame, function: Any, given: Arguments) -> Folded:
    parts = parts_of(frame, given.args[0])
    if parts is None or len(given.args) > 1:
        raise UnsupportedError(
            "an iterator is made of what is known only at run time",
            "use a loop, or a sequence of fixed length",
        )
    refuse_second_reader(frame)
    held = [(value, frame.hold("item", node)) for value, node in parts]
    return frame.sequence("list", [v for v, _ in held], [n for _, n in held], keep=True)


@for_(slice)
def _slice(frame: Frame, function: Any, given: Arguments) -> Folded:
    """An index that is kept: it is spelled where it is used."""
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    none: Folded = (Const(None), None)
    bounds = [none, *given.args] if len(given.args) == 1 else list(given.args)
    bounds = [(value, frame.hold("bound", node)) for value, node in [*bounds, none][:3]]
    return frame.sequence("tuple", [v for v, _ in bounds], [n for _, n in bounds], slice)


@for_(range)
def _range(frame: Frame, function: Any, given: Arguments) -> Folded:
    given = Arguments([as_int(frame, folded) for folded in given.args], given.kwargs)
    return evaluated(frame, function, given) or keep(frame, function, given, list_of(INT))


def as_int(frame: Frame, folded: Folded) -> Folded:
    """What ``item()`` gives, where only an integer can stand."""
    value, node = folded
    if static_type(value) != NUMBER:
        return folded
    return Dyn(INT), ast.Call(ast.Name("int", ast.Load()), [frame.needed(value, node)], [])


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


def listed(frame: Frame, parts: list[Folded], kind: str = "list") -> Folded:
    """A list or tuple of known elements."""
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
    return listed(
        frame,
        [
            listed(frame, [(Const(i), ast.Constant(i)), part], "tuple")
            for i, part in enumerate(parts, start)
        ],
    )


@for_(zip)
def _zip(frame: Frame, function: Any, given: Arguments) -> Folded:
    columns = [parts_of(frame, folded) for folded in given.args]
    known = [len(column) for column in columns if column is not None]
    if known:
        columns = [
            first_parts(folded, min(known)) if column is None else column
            for column, folded in zip(columns, given.args, strict=True)
        ]
    if any(column is None for column in columns):
        # one side is known: index the other by position
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
    return listed(frame, [listed(frame, list(row), "tuple") for row in rows])


def _leading(value: Value) -> Value:
    """What decides on a value's place in an order: of a pair led by a constant, that."""
    return value.items[0] if isinstance(value, Seq) and value.items else value


@for_(reversed, sorted)
def _ordered(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None and function is sorted:
        return done
    t = static_type(given.args[0][0])
    if t.name == "Dict" and isinstance(given.args[0][0], Dyn):  # its keys
        keys_of = ast.Attribute(frame.needed(*given.args[0]), "keys", ast.Load())
        listed_keys = ast.Call(ast.Name("list", ast.Load()), [ast.Call(keys_of, [], [])], [])
        given = Arguments([(Dyn(list_of(t.args[0])), listed_keys)], given.kwargs)
    if "key" in given.kwargs:
        return frame.by_key(function, given)
    parts = parts_of(frame, given.args[0])
    if parts is not None and function is reversed:
        return listed(frame, parts[::-1])
    keys = [_leading(part) for part, _ in parts or ()]
    if parts is not None and all(isinstance(key, Const) for key in keys):
        return frame.by_key(function, given, keys)
    t = static_type(given.args[0][0])
    if function is reversed:
        kept = filled_range(frame.needed(*given.args[0]))
        return Dyn(t), ast.Subscript(kept, ast.Slice(None, None, ast.Constant(-1)), ast.Load())
    reverse = given.kwargs.pop("reverse", None)
    found, listing = keep(frame, function, given, t)
    if reverse is None:
        return found, listing
    behind_first = ast.Slice(None, None, ast.Constant(-1))
    turned: ast.expr = ast.Subscript(frame.needed(found, listing), behind_first, ast.Load())
    decided = frame.truth(*reverse)[0]
    if not isinstance(decided, Const):
        raise UnsupportedError("'reverse' is known only at run time", "use a constant")
    return found, turned if decided.value else listing


@for_(list, tuple, set, frozenset)
def _collection(frame: Frame, function: Any, given: Arguments) -> Folded:
    if function in (set, frozenset) and given.args:
        return frame.make_set(given.args[0])
    if not given.args:
        if function is list:
            return Seq((), "list"), ast.List([], ast.Load())
        return Const(function()), None
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    parts = parts_of(frame, given.args[0])
    if parts is not None:
        return listed(frame, parts, function.__name__)
    value, node = given.args[0]
    if static_type(value) == TENSOR:
        rows = ast.Call(ast.Name("list", ast.Load()), [frame.needed(value, node)], [])
        return Dyn(list_of(TENSOR)), rows
    if function is list:
        element = frame.element_type(static_type(value)).type
        return keep(frame, function, given, list_of(element))
    return value, frame.needed(value, node)


@for_(collections.deque)
def _deque(frame: Frame, function: Any, given: Arguments) -> Folded:
    """A list, which TorchScript has; one that is to forget what is in it, by its elements."""
    limits = [*given.args[1:], *given.kwargs.values()]
    limit = limits[0][0] if limits else Const(None)
    made = _collection(frame, list, Arguments(given.args[:1], {}))
    if isinstance(limit, Const) and limit.value is None:
        return made
    parts = parts_of(frame, made)
    if parts is None or not isinstance(limit, Const):
        raise UnsupportedError(
            "a deque of limited length is made whose length or elements are known only at run time",
            "use a list, and its slices",
        )
    kept = parts[max(len(parts) - limit.value, 0) :]
    node = frame.sequence("list", [v for v, _ in kept], [n for _, n in kept], keep=True)[1]
    return Limited(tuple(v for v, _ in kept), "list", None, limit.value), node


@for_(collections.defaultdict)
def _defaultdict(frame: Frame, function: Any, given: Arguments) -> Folded:
    default = given.args[0][0] if given.args else Const(None)
    value, node = _dict(frame, dict, type(given)(given.args[1:], given.kwargs))
    if isinstance(value, Mapping) and not (isinstance(default, Const) and default.value is None):
        value = Mapping(value.items, default)
    return value, node


def _pairs(frame: Frame, folded: Folded) -> dict[Any, Folded] | None:
    """``[(key, value), ...]`` with known keys, as a dictionary; else ``None``."""
    if isinstance(folded[0], Const):
        return None
    found: dict[Any, Folded] = {}
    for row in parts_of(frame, folded) or []:
        pair = parts_of(frame, row)
        if pair is None or len(pair) != 2 or not isinstance(pair[0][0], Const):
            return None
        value, node = pair[1]
        found[pair[0][0].value] = value, frame.hold("item", node)
    return found or None


@for_(collections.Counter)
def _counter(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    zero = Const(int)
    if done is None:
        found, node = frame.call_function(substitutes.counted, given, None)
        return Defaulting(static_type(found), zero, True), node
    counted = {key: Const(count) for key, count in getattr(done[0], "value", {}).items()}
    return frame.mapping(dict(counted), [None] * len(counted), zero, collections.Counter)


@for_(dict, collections.OrderedDict)
def _dict(frame: Frame, function: Any, given: Arguments) -> Folded:
    items = {k: v for k, (v, _) in given.kwargs.items()}
    if given.args and isinstance(given.args[0][0], Mapping):
        items = given.args[0][0].items | items
    elif given.args:
        pairs = _pairs(frame, given.args[0])
        if pairs is not None:
            entries = {**pairs, **given.kwargs}
            values = {key: value for key, (value, _) in entries.items()}
            return frame.mapping(values, [node for _, node in entries.values()])
        done = evaluated(frame, function, given)
        if done is not None:
            return done
        t = static_type(given.args[0][0])
        if t.name == "List" and t.args[0].name == "Tuple" and len(t.args[0].args) == 2:
            t = dict_of(*t.args[0].args)
        return keep(frame, function, given, t)
    nodes: dict[str, ast.expr | None] = {k: node for k, (_, node) in given.kwargs.items()}
    base = given.args[0][1] if given.args else None
    if isinstance(base, ast.Dict):
        names = list(given.args[0][0].items) if isinstance(given.args[0][0], Mapping) else []
        nodes = {**dict(zip(names, base.values, strict=True)), **nodes}
    return frame.mapping(items, [nodes.get(name) for name in items])


@for_(functools.partial)
def _partial(frame: Frame, function: Any, given: Arguments) -> Folded:
    """A function with some arguments, as the ``lambda`` that Python's would be."""
    if given.constant:
        (called, *args), kwargs = given.values()
        return Const(functools.partial(called, *args, **kwargs)), None
    names = []
    for value, node in [*given.args, *given.kwargs.values()]:
        names.append(frame.fresh("given"))
        frame.env[names[-1]] = Binding(value, None, node)
        if node is not None:
            frame.bind(names[-1], value, node)
    first = ", ".join([*names[1 : len(given.args)], "*args"])
    kept = zip(given.kwargs, names[len(given.args) :], strict=True)
    options = "".join(f"{key!r}: {name}, " for key, name in kept)
    spelled = f"lambda *args, **kwargs: {names[0]}({first}, **{{{options}**kwargs}})"
    return frame.fold(parsed_expression(spelled, frame.current))


@for_(functools.reduce)
def _reduce(frame: Frame, function: Any, given: Arguments) -> Folded:
    (callee, callee_node), sequence, *start = given.args
    parts = parts_of(frame, sequence)
    if parts is None:
        written = substitutes.reduced_from if start else substitutes.reduced
        return frame.call_function(written, given, None)
    if not parts and not start:
        raise UnsupportedError("'reduce' over nothing", "give it a first value")
    total, *rest = [*start, *parts]
    for part in rest:
        total = frame.call(callee, type(given)([total, part], {}), callee_node)
    return total


def _filtered(frame: Frame, test: Folded, sequence: Folded) -> Folded:
    """``filter`` where the run decides how many elements there are."""
    names = [frame.fresh(wish) for wish in ("test", "values")]
    frame.env[names[0]] = Binding(test[0], None, test[1])
    frame.bind(names[1], *sequence)
    plain = isinstance(test[0], Const) and test[0].value is None
    asked = "value" if plain else f"{names[0]}(value)"
    spelled = f"[value for value in {names[1]} if {asked}]"
    return frame.fold(parsed_expression(spelled, frame.current))


@for_(filter)
def _filter(frame: Frame, function: Any, given: Arguments) -> Folded:
    (callee, callee_node), sequence = given.args
    parts = parts_of(frame, sequence)
    if parts is None:
        return _filtered(frame, (callee, callee_node), sequence)
    chosen = []
    for part in parts:
        by_itself = isinstance(callee, Const) and callee.value is None
        kept = part if by_itself else frame.call(callee, type(given)([part], {}), callee_node)
        kept = frame.truth(*kept)
        if not isinstance(kept[0], Const):
            return _filtered(frame, (callee, callee_node), listed(frame, parts))
        chosen += [part] if kept[0].value else []
    return listed(frame, chosen)


@for_(map)
def _map(frame: Frame, function: Any, given: Arguments) -> Folded:
    callee, callee_node = given.args[0]
    columns = [parts_of(frame, folded) for folded in given.args[1:]]
    known = [column for column in columns if column is not None]
    if len(known) != len(columns) and len(columns) == 1:
        names = [frame.fresh(wish) for wish in ("function", "parts")]
        frame.env[names[0]] = Binding(callee, None, callee_node)
        frame.bind(names[1], *given.args[1])
        spelled = f"[{names[0]}(part) for part in {names[1]}]"
        return frame.fold(parsed_expression(spelled, frame.current))
    if len(known) != len(columns):
        raise UnsupportedError("'map' over an unknown sequence", "write a list comprehension")
    return listed(
        frame,
        [
            frame.call(callee, type(given)(list(row), {}), callee_node)
            for row in zip(*known, strict=False)
        ],
    )

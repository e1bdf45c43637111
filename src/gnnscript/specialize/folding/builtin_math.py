"""Functions of numbers and of gradients whose TorchScript form is another than Python's."""

from __future__ import annotations

import ast
import collections
import copy
import functools
import inspect
import math
import numbers
from typing import TYPE_CHECKING, Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    NUMBER,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    list_of,
    optional,
)
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.builtin_sequences import parts_of
from gnnscript.specialize.folding.builtins import evaluated, for_
from gnnscript.specialize.folding.numbers import arithmetic
from gnnscript.specialize.helpers import torch_name, unwrap_optional
from gnnscript.specialize.substitutes import (
    SUBSTITUTES,
    int_hash,
    ints_hash,
    leaf_copy,
    lexsort,
    tuple_hash,
)
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Mapping,
    Seq,
    Value,
    constant_items,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame


@for_(*SUBSTITUTES)
def _substituted(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    if function is math.prod:
        parts = parts_of(frame, given.args[0])
        if parts is not None:
            parts = [*given.kwargs.values(), *parts]
            (t, kept), rest = (static_type(parts[0][0]), frame.needed(*parts[0])), parts[1:]
            for value, node in rest:
                t = arithmetic(t, static_type(value), ast.Mult())
                kept = ast.BinOp(kept, ast.Mult(), frame.needed(value, node))
            return Dyn(t), kept
    if function in (math.fsum, math.dist):
        given = Arguments([_floats(frame, folded) for folded in given.args], {})
    return frame.call_function(SUBSTITUTES[function], given, None)


def _floats(frame: Frame, numbers: Folded) -> Folded:
    """Known numbers of several types as a list of one."""
    parts = parts_of(frame, numbers)
    if parts is None:
        return numbers
    nodes = [frame.needed(*part) for part in parts]
    spelled = [ast.Call(ast.Name("float", ast.Load()), [node], []) for node in nodes]
    return Dyn(list_of(FLOAT)), ast.List(list[ast.expr](spelled), ast.Load())


_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@for_(torch.finfo, torch.iinfo)
def _limits(frame: Frame, function: Any, given: Arguments) -> Folded:
    """Limits of a number type: constants, chosen by the type where the run decides on it."""
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    value, node = given.args[0] if given.args else (Const(torch.get_default_dtype()), None)
    chosen = _FLOATS if function is torch.finfo else _INTEGERS
    names = ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution")
    entries: dict[str, Value] = {}
    nodes: list[ast.expr | None] = []
    kept = frame.hold("dtype", frame.needed(value, node)) or ast.Constant(None)
    for name in names:
        if not hasattr(function(chosen[0]), name):
            continue
        limits = [getattr(function(dtype), name) for dtype in chosen]
        choice = frame.needed(Const(limits[-1]), literal(Const(limits[-1])))
        for dtype, limit in zip(chosen[-2::-1], limits[-2::-1], strict=True):
            test = ast.Compare(
                kept, [ast.Eq()], [frame.needed(Const(dtype), literal(Const(dtype)))]
            )
            choice = ast.IfExp(test, frame.needed(Const(limit), literal(Const(limit))), choice)
        entries[name] = Dyn(static_type(Const(limits[0])))
        nodes.append(choice)
    return Seq(tuple(entries.values()), "tuple", _record(tuple(entries))), ast.Tuple(
        [n for n in nodes if n is not None], ast.Load()
    )


@functools.cache
def _record(names: tuple[str, ...]) -> Any:
    """A class that only names the parts: each is read, never the whole."""
    return collections.namedtuple("limits", names)  # noqa: PYI024


_ELEMENTWISE = (
    "sqrt",
    "log",
    "log2",
    "log10",
    "log1p",
    "exp",
    "expm1",
    "sin",
    "cos",
    "tan",
    "tanh",
)


# Functions of arrays that torch has with the same arguments and results.
_AS_TORCH = ("isin",)


def numpy_function(frame: Frame, function: Any, given: Arguments) -> Folded | None:
    """A function of NumPy's: evaluated on constants, Python's own for numbers of run time."""
    owner = function if type(function).__name__ == "ufunc" else getattr(function, "__self__", None)
    module = type(owner).__module__ if type(owner).__module__ == "numpy" else None
    module = module or getattr(function, "__module__", None) or ""
    if module.split(".")[0] != "numpy" or not callable(function):
        return None
    if given.constant:
        args, kwargs = given.values()
        spelled = ast.Constant(f"numpy.{getattr(function, '__name__', function)}")
        return frame.wrap(frame.compute(spelled, function, *args, **kwargs)), None
    name = getattr(function, "__name__", "")
    types, _ = given.types()
    if inspect.isclass(function) and issubclass(function, numbers.Real):
        plain = int if issubclass(function, numbers.Integral) else float
        return frame.call(Const(plain), given, None)
    if name in _ELEMENTWISE and types and types[0] in (INT, FLOAT, BOOL, NUMBER):
        return frame.call(Const(getattr(math, name)), given, None)
    if name in _AS_TORCH and types and types[0] in (TENSOR, UNKNOWN):
        return frame.call(Const(getattr(torch, name)), given, None)
    if name == "lexsort" and static_type(given.args[0][0]) == list_of(TENSOR):
        return frame.call_function(lexsort, given, None)
    raise UnsupportedError(
        f"'numpy.{name}' is given a value that exists only at run time",
        "use the torch function of that name",
    )


@for_(torch.tensor)
def _tensor(frame: Frame, function: Any, given: Arguments) -> Folded:
    """Of a tensor, a copy without history, which TorchScript spells otherwise."""
    done = _of_array(frame, function, given)
    if done is not None:
        return done
    if not given.args or static_type(given.args[0][0]) != TENSOR:
        if given.args:
            given = Arguments([_of_one_type(frame, given.args[0]), *given.args[1:]], given.kwargs)
        return frame.call_torch(function, given)
    copied: ast.expr = frame.needed(*given.args[0])
    for name in ("detach", "clone"):
        copied = ast.Call(ast.Attribute(copied, name, ast.Load()), [], [])
    for key, (value, node) in given.kwargs.items():
        if key in ("dtype", "device") and not (isinstance(value, Const) and value.value is None):
            to = ast.Attribute(copied, "to", ast.Load())
            copied = ast.Call(to, [frame.needed(value, node)], [])
    return Dyn(TENSOR), copied


@for_(torch.as_tensor)
def _as_tensor(frame: Frame, function: Any, given: Arguments) -> Folded:
    return _of_array(frame, function, given) or frame.call_torch(function, given)


def _of_array(frame: Frame, function: Any, given: Arguments) -> Folded | None:
    """The tensor of a constant array, or of a list of numbers of several types or of none.

    An array knows the type of its numbers, as no list of TorchScript's does.
    """
    data = given.args[0][0] if given.args else None
    shape = _empty_shape(data) if data is not None else None
    if shape is not None:
        empty = Const(shape)
        return frame.call_torch(torch.zeros, Arguments([(empty, literal(empty))], given.kwargs))
    if not isinstance(data, Const) or not given.constant:
        return None
    args, kwargs = given.values()
    if not hasattr(data.value, "__array__") and len(set(map(type, _flat(data.value)))) < 2:
        return None
    return Const(frame.compute(ast.Constant("torch.tensor"), function, *args, **kwargs)), None


def _empty_shape(data: Value) -> list[int] | None:
    """The shape of nested lists without a number in them; ``None`` for any other."""
    items = constant_items(data)
    if items == []:
        return [0]
    shapes = [_empty_shape(item) for item in items or ()]
    if not shapes or shapes[0] is None or any(shape != shapes[0] for shape in shapes):
        return None
    return [len(shapes), *shapes[0]]


def _flat(numbers: Any) -> list[Any]:
    """The numbers of nested lists."""
    if not isinstance(numbers, (list, tuple)):
        return [numbers]
    return [number for part in numbers for number in _flat(part)]


def _of_one_type(frame: Frame, numbers: Folded) -> Folded:
    """A list of numbers: as floats where one is, as TorchScript's lists have one type."""
    value, node = numbers
    if not isinstance(value, Seq) or node is None:
        return numbers
    types = {static_type(item) for item in value.items}
    mixed = FLOAT in types and types <= {INT, FLOAT, BOOL, NUMBER}
    if len(types) < 2 or not (mixed or types == {INT, BOOL}):
        return numbers
    t, name = (FLOAT, "float") if mixed else (INT, "int")
    nodes: list[ast.expr | None] = [
        ast.Call(ast.Name(name, ast.Load()), [element], [])
        for element in frame.element_nodes(node, len(value.items)).elts
    ]
    return frame.sequence("list", [Dyn(t) for _ in nodes], nodes)


_TYPED = {
    torch.Tensor: torch.float32,
    torch.FloatTensor: torch.float32,
    torch.DoubleTensor: torch.float64,
    torch.HalfTensor: torch.float16,
    torch.LongTensor: torch.int64,
    torch.IntTensor: torch.int32,
    torch.BoolTensor: torch.bool,
}


@for_(*_TYPED)
def _typed_tensor(frame: Frame, function: Any, given: Arguments) -> Folded:
    """``torch.LongTensor([0, 1])``; given sizes, what these make is not initialised."""
    data = given.args[0][0] if len(given.args) == 1 else None
    if data is None or static_type(data).name not in ("List", "Tuple"):
        raise UnsupportedError(
            f"'{function.__name__}' is given something else than a list of numbers",
            "use torch.tensor, torch.zeros or x.to(dtype)",
        )
    dtype = Const(torch.get_default_dtype() if function is torch.Tensor else _TYPED[function])
    options: dict[str, Folded] = {"dtype": (dtype, literal(dtype))}
    return frame.call(Const(torch.tensor), Arguments(given.args, options), None)


@for_(torch.from_numpy)
def _from_numpy(frame: Frame, function: Any, given: Arguments) -> Folded:
    value, node = given.args[0]
    if static_type(value) == TENSOR:
        return value, node  # ``x.numpy()`` is the tensor itself here
    done = evaluated(frame, function, given)
    if done is None:
        raise UnsupportedError("NumPy is given values of run time", "register them as a buffer")
    return done


@for_(copy.copy, copy.deepcopy)
def _copy(frame: Frame, function: Any, given: Arguments) -> Folded:
    value, node = given.args[0]
    deep = function is copy.deepcopy

    def copied(folded: Folded) -> Folded:
        return _copy(frame, function, Arguments([folded], {})) if deep else folded

    if isinstance(value, Mapping):
        entries = zip(value.items.values(), frame.entries(value, node), strict=True)
        found = dict(zip(value.items, map(copied, entries), strict=True))
        values = {key: item for key, (item, _) in found.items()}
        return frame.mapping(values, [n for _, n in found.values()], value.default, value.cls)
    if isinstance(value, Seq) and node is not None:
        parts = zip(value.items, frame.element_nodes(node, len(value.items)).elts, strict=True)
        nodes: list[ast.expr | None] = [made for _, made in map(copied, parts)]
        return frame.sequence(value.kind, list(value.items), nodes, value.cls, keep=True)
    if isinstance(value, Const):
        return frame.wrap(function(value.value)), node
    if static_type(value) == TENSOR:
        return frame.call_function(leaf_copy, given, None) if deep else (value, node)
    if static_type(value) in (INT, FLOAT, BOOL, STR, NUMBER):
        return value, node
    raise UnsupportedError(
        f"'copy.{function.__name__}' of this value has no TorchScript form", "use '.clone()'"
    )


@for_(torch.autograd.grad)
def _grad(frame: Frame, function: Any, given: Arguments) -> Folded:
    """Gradients inside of the model (forces of an energy): TorchScript takes and gives lists."""
    names = ("outputs", "inputs", "grad_outputs", "retain_graph", "create_graph")
    bound = dict(zip(names, given.args, strict=False)) | given.kwargs
    if set(bound) - {*names, "allow_unused"}:
        raise UnsupportedError(
            "'torch.autograd.grad' has no such options in TorchScript",
            f"leave out {sorted(set(bound) - {*names, 'allow_unused'})}",
        )
    lists: dict[str, ast.expr] = {}
    count = None
    for name in names[:3]:
        value, node = bound.pop(name, (Const(None), None))
        if isinstance(value, Const) and value.value is None:
            continue
        parts = [(value, node)] if static_type(value) == TENSOR else parts_of(frame, (value, node))
        t = optional(TENSOR) if name == "grad_outputs" else TENSOR
        if parts is None:
            lists[name] = frame.needed(value, node)
            continue
        display = ast.List([frame.needed(v, n) for v, n in parts], ast.Load())
        lists[name] = display
        if name == "grad_outputs":
            held = frame.fresh("grad_outputs")
            frame.emit(_annotated(held, list_of(t), display))
            lists[name] = ast.Name(held, ast.Load())
        if name == "inputs":
            count = len(parts)
    unused = bound.get("allow_unused", (Const(False), None))[0]
    keep = bound.get("create_graph", (Const(False), None))
    bound.setdefault("retain_graph", keep)
    kwargs = [ast.keyword(k, frame.needed(v, n or literal(v))) for k, (v, n) in bound.items()]
    call = ast.Call(
        torch_name("torch.autograd.grad"),
        [lists["outputs"], lists["inputs"]],
        [*([ast.keyword("grad_outputs", lists[names[2]])] if names[2] in lists else []), *kwargs],
    )
    if count is None:
        return Dyn(list_of(optional(TENSOR))), call
    found = frame.hold("gradients", call)
    assert found is not None
    always = isinstance(unused, Const) and not unused.value
    nodes: list[ast.expr | None] = []
    for position in range(count):
        entry: ast.expr = ast.Subscript(found, ast.Constant(position), ast.Load())
        nodes.append(unwrap_optional(entry) if always else entry)
    t = TENSOR if always else optional(TENSOR)
    return Seq((Dyn(t),) * count), ast.Tuple([n for n in nodes if n is not None], ast.Load())


def _annotated(name: str, t: Type, value: ast.expr) -> ast.stmt:
    from gnnscript.specialize.helpers import annotation

    return ast.AnnAssign(ast.Name(name, ast.Store()), annotation(t), value, 1)


@for_(hash)
def _hash(frame: Frame, function: Any, given: Arguments) -> Folded:
    """Of integers and tuples of them, which hash alike in each process."""
    value, node = given.args[0]
    t = static_type(value)
    if t in (INT, BOOL):
        done = evaluated(frame, function, given)
        whole = ast.Call(ast.Name("int", ast.Load()), [frame.needed(value, node)], [])
        return done or frame.call_function(int_hash, Arguments([(Dyn(INT), whole)], {}), None)
    if t == list_of(INT):
        return frame.call_function(ints_hash, given, None)
    parts = parts_of(frame, (value, node)) if t.name == "Tuple" else None
    if parts is None:
        raise UnsupportedError(
            f"'hash' of a '{t}' is not the same in each process",
            "hash integers or tuples of integers, or look the value up in a dictionary instead",
        )
    lanes = [_hash(frame, function, Arguments([part], {})) for part in parts]
    nodes = [frame.needed(lane, made or literal(lane)) for lane, made in lanes]
    listed = Arguments([(Dyn(list_of(INT)), ast.List(nodes, ast.Load()))], {})
    return frame.call_function(tuple_hash, listed, None)

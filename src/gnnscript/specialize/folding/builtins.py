"""Python's own functions: evaluated on what is known, kept where TorchScript has them."""

from __future__ import annotations

import ast
import builtins
import logging
import os
import types
import typing
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import (
    BOOL,
    FLOAT,
    INT,
    NONE,
    NUMBER,
    STR,
    TENSOR,
    UNKNOWN,
    Type,
    from_annotation,
    is_optional,
    strip_optional,
    tuple_of,
)
from gnnscript.specialize import sparse, substitutes
from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.numbers import arithmetic
from gnnscript.specialize.helpers import import_reference, op_reference, torch_name
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Seq,
    Value,
    constant_items,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame


Handler = Callable[["Frame", Any, "Arguments"], "Folded"]
BUILTINS: dict[Any, Handler] = {}

_CLASSES: dict[str, type] = {
    "Tensor": torch.Tensor,
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "None": type(None),
    "List": list,
    "Dict": dict,
    "Tuple": tuple,
    "device": torch.device,
    "dtype": torch.dtype,
}


_LOGGING = ("debug", "info", "warning", "error", "critical", "exception", "log")


def for_(*functions: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for function in functions:
            BUILTINS[function] = handler
        return handler

    return register


def keep(frame: Frame, function: Any, given: Arguments, t: Type) -> Folded:
    """The call stays as it is."""
    name = ast.Name(function.__name__, ast.Load())
    return Dyn(t), ast.Call(name, *frame.nodes(given))


def evaluated(frame: Frame, function: Any, given: Arguments) -> Folded | None:
    if not given.constant:
        return None
    args, kwargs = given.values()
    return frame.wrap(
        frame.compute(ast.Constant(function.__name__), function, *args, **kwargs)
    ), None


# Types ############################################################################


def python_class(t: Type) -> type | None:
    return _CLASSES.get(t.name) if t.cls is None or isinstance(t.cls, str) else t.cls


def _is_instance(t: Type, classes: tuple[Any, ...]) -> bool:
    cls = python_class(t)
    return cls is not None and any(isinstance(c, type) and issubclass(cls, c) for c in classes)


def _classes(value: Any) -> tuple[Any, ...]:
    if isinstance(value, (tuple, list)):
        return tuple(c for item in value for c in _classes(item))
    if typing.get_args(value):
        origin = typing.get_origin(value)
        if isinstance(origin, type) and origin is not types.UnionType:
            return (origin,)
        return tuple(c for item in typing.get_args(value) for c in _classes(item))
    return (type(None) if value is None else value,)


@for_(isinstance)
def _isinstance(frame: Frame, function: Any, given: Arguments) -> Folded:
    (value, node), (wanted, _) = given.args
    if not isinstance(wanted, Const):
        raise UnsupportedError("'isinstance' with a class known only at run time", "name the class")
    classes = _classes(wanted.value)
    if isinstance(value, Const):
        return Const(isinstance(value.value, classes)), None
    if isinstance(value, ModuleRef):
        return Const(isinstance(value.module, classes)), None
    if isinstance(value, Seq):
        cls = value.cls or (tuple if value.kind == "tuple" else list)
        if issubclass(cls, sparse.Entries) and any(map(_pyg.is_sparse_tensor, classes)):
            return Const(True), None
        return Const(issubclass(cls, classes)), None
    if isinstance(value, Mapping):
        return Const(issubclass(value.cls, classes)), None
    if isinstance(value, (Closure, Method)):
        return Const(isinstance(lambda: None, classes)), None
    t = static_type(value)
    if t == UNKNOWN:
        if torch.Tensor in classes:
            return Const(True), None
        return Const(False), None
    members = t.args if t.name == "Union" else (strip_optional(t),)
    matches = [_is_instance(member, classes) for member in members]
    if is_optional(t) and t != NONE:
        none = _is_instance(NONE, classes)
        if (all(matches) and none) or (not any(matches) and not none):
            return Const(none), None
        operator: ast.cmpop = ast.Is() if none else ast.IsNot()
        kept = ast.Compare(frame.needed(value, node), [operator], [ast.Constant(None)])
        return Dyn(BOOL), kept
    if all(matches) or not any(matches):
        return Const(matches[0]), None
    raise UnsupportedError(
        f"the class of a '{t}' is known only at run time", "annotate one concrete type"
    )


@for_(type)
def _type_of(frame: Frame, function: Any, given: Arguments) -> Folded:
    return Const(class_of(given.args[0][0])), None


def class_of(value: Value) -> type:
    """The class of a value, as Python has it.

    Raises:
        UnsupportedError: It is known only at run time.
    """
    if isinstance(value, ModuleRef):
        return type(value.module)
    if isinstance(value, Const):
        return type(value.value)
    if isinstance(value, Mapping):
        return value.cls
    t = static_type(value)
    cls = python_class(t) if t != UNKNOWN or not isinstance(value, Dyn) else torch.Tensor
    if cls is None:
        raise UnsupportedError("'type' of a value of unknown type", "use 'isinstance'")
    return cls


@for_(callable)
def _callable(frame: Frame, function: Any, given: Arguments) -> Folded:
    value, _ = given.args[0]
    if isinstance(value, Const):
        return Const(callable(value.value)), None
    return Const(isinstance(value, (ModuleRef, Method, Closure))), None


# Numbers ##########################################################################


@for_(int, float, bool, str)
def _convert(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    value, node = given.args[0]
    if function is str and isinstance(value, ModuleRef):
        return Const(str(value.module)), None
    if function is bool:
        decided, test = frame.truth(value, node)
        if isinstance(decided, Const):
            return decided, None
        t = static_type(value)
        if t not in (TENSOR, INT, FLOAT, NUMBER, UNKNOWN):
            return Dyn(BOOL), test
    value, kept = frame.present(value, frame.needed(value, node))
    if function is str and static_type(value).name in ("dtype", "layout"):
        raise UnsupportedError(
            f"the name of a {static_type(value).name} is asked for, which TorchScript has a number "
            "for",
            "compare it: x.dtype == torch.float32",
        )
    result = {int: INT, float: FLOAT, bool: BOOL, str: STR}[function]
    if static_type(value) == result:
        return value, kept
    if function in (int, bool) and static_type(value) == TENSOR:
        return Dyn(result), ast.Call(op_reference(f"as_{function.__name__}"), [kept], [])
    return Dyn(result), ast.Call(ast.Name(function.__name__, ast.Load()), [kept], [])


@for_(abs, round)
def _unary(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    t = static_type(given.args[0][0])
    if function is not round or t == TENSOR:
        return keep(frame, function, given, t)
    digits = [*given.args[1:], *given.kwargs.values()]
    if digits and not (isinstance(digits[0][0], Const) and digits[0][0].value is None):
        plain = ast.Call(ast.Name("float", ast.Load()), [frame.needed(*given.args[0])], [])
        return frame.call_function(
            substitutes.round_to, Arguments([(Dyn(FLOAT), plain), digits[0]], {}), None
        )
    rounded, kept = keep(frame, function, Arguments(given.args[:1], {}), FLOAT)
    # Python's is an integer then, TorchScript's is not.
    return Dyn(INT), ast.Call(ast.Name("int", ast.Load()), [frame.needed(rounded, kept)], [])


@for_(pow, divmod)
def _power(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    types, _ = given.types()
    if function is pow and types == [INT, INT]:
        return frame.int_power(*given.args)
    t = arithmetic(types[0], types[1], ast.Pow())
    return keep(frame, function, given, t if function is pow else tuple_of(t, t))


@for_(min, max)
def _extremum(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    if "key" in given.kwargs:
        return frame.by_key(function, given)
    folded = given.args
    if len(folded) == 1:
        value, node = folded[0]
        items = constant_items(value)
        if items is None and static_type(value).name == "Tuple":
            items = [Dyn(t) for t in static_type(value).args]
        if items == []:
            return given.kwargs["default"]
        if items is None and static_type(value) == TENSOR:  # of a vector, as in Python
            found = ast.Attribute(frame.needed(value, node), function.__name__, ast.Load())
            return Dyn(TENSOR), ast.Call(found, [], [])
        if items is None:
            if given.kwargs:
                return frame.or_default(function, given)
            return keep(frame, function, given, frame.element_type(static_type(value)).type)
        nodes = frame.element_nodes(frame.needed(value, node), len(items)).elts
        folded = [(item, n) for item, n in zip(items, nodes, strict=True)]
    result, kept = frame.present(folded[0][0], frame.needed(*folded[0]))
    t = static_type(result)
    for value, node in folded[1:]:
        candidate, candidate_node = frame.present(value, frame.needed(value, node))
        other = static_type(candidate)
        t = t if t == other else arithmetic(t, other, ast.Add())
        kept = ast.Call(ast.Name(function.__name__, ast.Load()), [kept, candidate_node], [])
    return Dyn(t), kept


@for_(sum)
def _sum(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is not None:
        return done
    value, node = given.args[0]
    items = constant_items(value)
    if items is None and static_type(value).name == "Tuple":
        items = [Dyn(t) for t in static_type(value).args]
    if items is None:
        element = frame.element_type(static_type(value))
        if element.type in (INT, FLOAT) and len(given.args) + len(given.kwargs) == 1:
            return keep(frame, function, given, element.type)
        return frame.call_function(substitutes.total, given, None)
    nodes = frame.element_nodes(frame.needed(value, node), len(items)).elts if items else []
    start = [*given.args[1:], *given.kwargs.values()]
    folded: list[Folded] = [*start, *zip(items, nodes, strict=True)]
    if not folded:
        return Const(0), None
    t, kept = static_type(folded[0][0]), frame.needed(*folded[0])
    for item, item_node in folded[1:]:
        t = arithmetic(t, static_type(item), ast.Add())
        kept = ast.BinOp(kept, ast.Add(), frame.needed(item, item_node))
    return Dyn(t), kept


@for_(any, all)
def _quantifier(frame: Frame, function: Any, given: Arguments) -> Folded:
    value, node = given.args[0]
    items = constant_items(value)
    if items is None and static_type(value) == TENSOR:
        found = ast.Attribute(frame.needed(value, node), function.__name__, ast.Load())
        return Dyn(BOOL), ast.Call(ast.Name("bool", ast.Load()), [ast.Call(found, [], [])], [])
    if items is None:
        return keep(frame, function, given, BOOL)
    nodes: list[ast.expr | None] = [literal(item) for item in items]
    if node is not None and not isinstance(value, Const):
        nodes = list(frame.element_nodes(node, len(items)).elts)
    kept = []
    for item, item_node in zip(items, nodes, strict=True):
        decided, test = frame.truth(item, item_node)
        if not isinstance(decided, Const):
            assert test is not None
            kept.append(test)
        elif bool(decided.value) is (function is any):
            return Const(function is any), None
    if not kept:
        return Const(function is all), None
    operator: ast.boolop = ast.Or() if function is any else ast.And()
    return Dyn(BOOL), kept[0] if len(kept) == 1 else ast.BoolOp(operator, kept)


# Others ###########################################################################


@for_(print)
def _print(frame: Frame, function: Any, given: Arguments) -> Folded:
    args: list[Folded] = []
    for value, node in given.args:
        shown = value.module if isinstance(value, ModuleRef) else getattr(value, "value", None)
        if node is None and isinstance(value, (Const, ModuleRef)):
            args.append((value, literal(value) or ast.Constant(str(shown))))
        else:
            args.append((value, node))
    return keep(frame, function, type(given)(args, {}), NONE)


@for_(warnings.warn)
def _warn(frame: Frame, function: Any, given: Arguments) -> Folded:
    text = frame.needed(*given.args[0])
    func = ast.Attribute(import_reference("warnings", "", "warnings"), "warn", ast.Load())
    return Dyn(NONE), ast.Call(func, [text], [])


@for_(warnings.filterwarnings, warnings.simplefilter, warnings.resetwarnings)
def _filter_warnings(frame: Frame, function: Any, given: Arguments) -> Folded:
    """Of Python's warnings, which a scripted model does not give."""
    return Const(None), None


@for_(*(getattr(logging, name) for name in _LOGGING))
def _log(frame: Frame, function: Any, given: Arguments) -> Folded:
    """A scripted model has no loggers: what it computes is the same without."""
    return Const(None), None


@for_(logging.getLogger, os.getenv)
def _by_name(frame: Frame, function: Any, given: Arguments) -> Folded:
    done = evaluated(frame, function, given)
    if done is None:
        raise UnsupportedError(
            f"'{function.__name__}' is given a name known only at run time", "give it a fixed one"
        )
    return done


def is_logging(function: Any) -> bool:
    """Whether a function is a method of a logger that writes a record."""
    logger = getattr(function, "__self__", None)
    return isinstance(logger, logging.Logger) and function.__name__ in _LOGGING


@for_(torch.get_default_dtype)
def _default_dtype(frame: Frame, function: Any, given: Arguments) -> Folded:
    """Which is what it was when the model was scripted."""
    return Const(function()), None


@for_(typing.cast, torch.jit.annotate)
def _cast(frame: Frame, function: Any, given: Arguments) -> Folded:
    (wanted, _), (value, node) = given.args
    t = from_annotation(wanted.value) if isinstance(wanted, Const) else UNKNOWN
    if isinstance(value, Dyn) and value.type == UNKNOWN:
        value = Dyn(t)
    return value, node


@for_(torch.is_tensor)
def _is_tensor(frame: Frame, function: Any, given: Arguments) -> Folded:
    tensor = Const(torch.Tensor)
    return _isinstance(frame, isinstance, type(given)([given.args[0], (tensor, None)], {}))


@for_(torch.nn.functional.dropout)
def _dropout(frame: Frame, function: Any, given: Arguments) -> Folded:
    names = ("input", "p", "training", "inplace")
    bound = dict(zip(names, given.args, strict=False)) | given.kwargs
    for name, nothing in (("p", 0), ("training", False)):
        value = bound.get(name, (None, None))[0]
        if isinstance(value, Const) and value.value == nothing:
            return bound["input"]  # TorchScript would draw random numbers that eager does not
    return frame.call_torch(function, given)


@for_(torch.is_floating_point, torch.is_complex)
def _is_floating(frame: Frame, function: Any, given: Arguments) -> Folded:
    value, node = frame.present(given.args[0][0], frame.needed(*given.args[0]))
    del value
    return Dyn(BOOL), ast.Call(torch_name(f"torch.{function.__name__}"), [node], [])


for _name in (
    "open",
    "input",
    "exec",
    "eval",
    "globals",
    "locals",
    "dir",
    "id",
    "next",
    "compile",
    "__import__",
):

    def _refuse(frame: Frame, function: Any, given: Arguments, name: str = _name) -> Folded:
        raise UnsupportedError(
            f"'{name}' has no TorchScript form", "move it out of what runs in the scripted model"
        )

    BUILTINS[getattr(builtins, _name)] = _refuse

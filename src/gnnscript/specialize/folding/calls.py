"""Calls: what is called decides whether it is evaluated, specialised or kept."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import types
import typing
from typing import TYPE_CHECKING, Any, cast

import torch

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.calls import refuse_open_keywords
from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import INT, TENSOR, UNKNOWN, list_of
from gnnscript.specialize import adjacency, sparse, substitutes
from gnnscript.specialize.effects import has_effects, is_settled
from gnnscript.specialize.folding import (  # noqa: F401  have their functions known
    builtin_memory,
    builtin_objects,
    builtin_operators,
    builtin_random,
    clocks,
)
from gnnscript.specialize.folding.base import Arguments, Folded, Folding
from gnnscript.specialize.folding.builtin_itertools import Getter
from gnnscript.specialize.folding.builtin_math import numpy_function
from gnnscript.specialize.folding.builtin_sequences import parts_of
from gnnscript.specialize.folding.builtins import BUILTINS, class_of, is_logging
from gnnscript.specialize.folding.einops_calls import einops_function
from gnnscript.specialize.folding.functions import _declared
from gnnscript.specialize.helpers import (
    Op,
    annotation,
    as_list,
    is_ignored,
    is_torch_function,
    op_reference,
    own_interop,
    own_op,
    torch_name,
)
from gnnscript.specialize.values import (
    Choice,
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Seq,
    Super,
    Value,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame


class Calls(Folding):
    """The part of a frame that folds calls."""

    def fold_Call(self, node: ast.Call) -> Folded:
        refuse_open_keywords_of(node, self.source)
        func = node.func
        if isinstance(func, ast.Name) and func.id == "super" and "super" not in self.env:
            return self._super(node), None
        if isinstance(func, ast.Name) and func.id == "next" and "next" not in self.env:
            first = self._next(node)
            if first is not None:
                return first
        if isinstance(func, ast.Attribute):
            known = self.parameter(func.value) if func.attr in ("size", "dim", "numel") else None
            if known is not None and all(isinstance(arg, ast.Constant) for arg in node.args):
                sizes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                return self.wrap(self.compute(node, getattr(known, func.attr), *sizes)), None
            holder, base = self.fold(func.value)
            if isinstance(holder, (Dyn, Seq, Mapping)) or (
                isinstance(holder, Const) and isinstance(holder.value, _PLAIN_CLASSES)
            ):
                return self.method_of_value(holder, base, func.attr, node)
            if isinstance(holder, Super) and isinstance(holder.owner, Mapping):
                return self.method_of_parent(holder, func.attr, self.arguments(node))
            callee, callee_node = self.attribute(holder, base, func.attr)
        else:
            callee, callee_node = self.fold(func)
        if isinstance(callee, Const) and _pyg.is_invertible(callee.value):
            # InvertibleFunction.apply(function, inverse, passes, count, *inputs, *weights): only
            # its backward pass needs more than the function and its inputs.
            return self.fold(ast.copy_location(ast.Call(node.args[0], [node.args[4]], []), node))
        if isinstance(callee, Const) and callee.value is zip:
            columns = self.transposed(node)
            if columns is not None:
                return columns
        spread = isinstance(callee, Const) and is_torch_function(callee.value)
        _refuse_own_backward(callee)
        return self.call(callee, self.arguments(node, spread), callee_node)

    def _next(self, node: ast.Call) -> Folded | None:
        """``next(...)``: the first element, which a variable that holds the iterator loses."""
        source = node.args[0]
        if isinstance(source, ast.Name):
            held, base = self.fold(source)
            if not isinstance(held, Seq) or held.kind != "list":
                return None
            if held.items:
                return self.change(held, base, "pop", Arguments([(Const(0), None)], {}))
            return self.fold(node.args[1]) if len(node.args) > 1 else None
        called = source.func if isinstance(source, ast.Call) else None
        if isinstance(source, ast.Call) and isinstance(called, ast.Name) and called.id == "iter":
            source = source.args[0]
        elif not isinstance(source, (ast.GeneratorExp, ast.Call)):
            return None
        parts = parts_of(cast("Frame", self), self.fold(source))
        if parts is None:
            return None
        if parts:
            return parts[0]
        return self.fold(node.args[1]) if len(node.args) > 1 else None

    def _super(self, node: ast.Call) -> Value:
        if node.args:
            after, _ = self.fold(node.args[0])
            cls = after.value if isinstance(after, Const) else None
        else:
            cls = self.cls
        name = getattr(self.source.node, "args").args[0].arg  # noqa: B009
        owner = self.env[name].value
        if cls is None:
            raise UnsupportedError("'super()' is used outside of a class", "call the function")
        return Super(owner, cls)

    def arguments(self, node: ast.Call, spread: bool = False) -> Arguments:
        """Folds the arguments of a call, ``*`` and ``**`` expanded.

        Args:
            node: The call.
            spread: Whether it is torch's that is called, which takes integers as a list as well,
                ``x.view(*shape, 2)``, and some arguments by the names that NumPy has for them.
        """
        args: list[Folded] = []
        kwargs: dict[str, Folded] = {}
        opened = False
        whole = getattr(node.func, "id", "") in ("max", "min") and len(node.args) == 1
        whole = whole and not node.keywords  # which take one sequence as well
        parts = [*node.args, *(keyword.value for keyword in node.keywords)]
        folded = self.in_order(
            [getattr(p, "value") if isinstance(p, ast.Starred) else p for p in parts]  # noqa: B009
        )
        for arg, (value, residual) in zip(node.args, folded, strict=False):
            if not isinstance(arg, ast.Starred):
                args.append((value, residual))
                continue
            if whole and isinstance(value, Dyn) and value.type.name == "List":
                return Arguments([(value, residual)], {})
            if spread and isinstance(value, Dyn) and value.type in (list_of(INT), TENSOR):
                args.append(_integers(value, self.needed(value, residual)))
                opened = True
                continue
            items = self.known_items(value)
            if residual is None or isinstance(value, Const):
                args += [(item, literal(item)) for item in items]
            else:
                nodes = self.element_nodes(residual, len(items)).elts
                args += list(zip(items, nodes, strict=True))
        if opened:
            args = self._one_list(args)
        for keyword, (value, residual) in zip(node.keywords, folded[len(node.args) :], strict=True):
            if keyword.arg is not None:
                kwargs[keyword.arg] = value, residual
                continue
            if isinstance(value, Const) and isinstance(value.value, dict):
                kwargs |= {k: (self.wrap(v), literal(Const(v))) for k, v in value.value.items()}
            elif isinstance(value, Mapping):
                entries = self.entries(value, residual)
                kwargs |= {
                    name: (item, entry)
                    for (name, item), entry in zip(value.items.items(), entries, strict=True)
                }
            else:
                raise UnsupportedError(
                    f"'**{ast.unparse(keyword.value)}' holds names known only at run time",
                    "pass each argument by its own name",
                )
        if len(args) + len(kwargs) > 1 and kwargs:  # which may be passed in another order
            if has_effects([n for _, n in [*args, *kwargs.values()] if n is not None]):
                args = [(v, self._held(n)) for v, n in args]
                kwargs = {k: (v, self._held(n)) for k, (v, n) in kwargs.items()}
        if spread:
            kwargs = {_NUMPY_NAMES.get(name, name): value for name, value in kwargs.items()}
        return Arguments(args, kwargs)

    def _held(self, node: ast.expr | None) -> ast.expr | None:
        return node if is_settled(node) else self.hold("held", node, force=True)

    def _one_list(self, args: list[Folded]) -> list[Folded]:
        """Integers and lists of them, behind the arguments that are neither, as one list."""
        numbers = (INT, list_of(INT))
        first = next(i for i, (v, _) in enumerate(args) if static_type(v) in numbers)
        lists: list[ast.expr] = []
        for value, node in args[first:]:
            t, kept = static_type(value), self.needed(value, node)
            if t not in (*numbers, UNKNOWN):
                raise UnsupportedError(
                    f"a list of unknown length is unpacked beside a '{t}'", "pass it as a list"
                )
            if t == list_of(INT):
                lists.append(as_list(kept))
            elif lists and isinstance(lists[-1], ast.List):
                lists[-1].elts.append(kept)
            else:
                lists.append(ast.List([kept], ast.Load()))
        whole = lists[0]
        for part in lists[1:]:
            whole = ast.BinOp(whole, ast.Add(), part)
        return [*args[:first], (Dyn(list_of(INT)), whole)]

    def call(self, callee: Value, given: Arguments, callee_node: ast.expr | None) -> Folded:
        """Calls a value."""
        if isinstance(callee, ModuleRef):
            return self.call_module(callee, given)
        if isinstance(callee, Method):
            return self.call_method(callee, given)
        if isinstance(callee, Closure):
            return self.call_closure(callee, given)
        if isinstance(callee, Choice):
            return self._call_choice(callee, given)
        if isinstance(callee, Const):
            return self._call_constant(callee.value, given)
        if isinstance(callee, Seq) and all(isinstance(i, ModuleRef) for i in callee.items):
            folded = given.args[0]  # a slice of torch.nn.Sequential
            for module in callee.items:
                folded = self.call(module, Arguments([folded], {}), None)
            return folded
        if isinstance(callee, Dyn):
            node = self.needed(callee, callee_node)
            return Dyn(UNKNOWN), ast.Call(node, *self.nodes(given))
        raise UnsupportedError("this cannot be called", "call a function, a method or a module")

    def _call_choice(self, choice: Choice, given: Arguments) -> Folded:
        """Calls the one of two functions or modules that a test of run time has chosen."""
        args = [(value, self.hold("given", node)) for value, node in given.args]
        kwargs = {k: (value, self.hold("given", node)) for k, (value, node) in given.kwargs.items()}
        name = self.fresh("out")
        arms = []
        for callee in (choice.first, choice.second):
            with self.nested(dict(self.env)) as body:
                folded = self.call(callee, Arguments(list(args), dict(kwargs)), None)
                self.bind(name, *folded)
                arms.append((self.env, body))
        self.env = self.merge(arms)
        self.emit(ast.If(choice.test, arms[0][1], arms[1][1]))
        return self.fold_Name(ast.Name(name, ast.Load()))

    def nodes(self, given: Arguments) -> tuple[list[ast.expr], list[ast.keyword]]:
        """Arguments as they stand in the specialised code."""
        args = [self.needed(v, n) for v, n in given.args]
        kwargs = [ast.keyword(k, self.needed(v, n)) for k, (v, n) in given.kwargs.items()]
        return args, kwargs

    def _call_constant(self, function: Any, given: Arguments) -> Folded:
        if isinstance(function, functools.partial):
            args = [(self.wrap(a), literal(Const(a))) for a in function.args]
            kwargs = {k: (self.wrap(v), literal(Const(v))) for k, v in function.keywords.items()}
            merged = Arguments([*args, *given.args], kwargs | given.kwargs)
            return self.call(self.wrap(function.func), merged, None)
        function = typing.get_origin(function) or function  # ``OrderedDict[str, Tensor]()``
        if isinstance(function, typing.NewType):
            return given.args[0]
        if typing.is_typeddict(function):
            function = dict
        if _is_single_dispatch(function):
            function = function.dispatch(class_of(given.args[0][0]))
        try:
            handler = BUILTINS.get(function)
        except TypeError:
            handler = None
        if function in _UNORDERED and given.args:
            given = Arguments([self.listed_set(given.args[0]), *given.args[1:]], given.kwargs)
        if handler is not None:
            return handler(cast("Frame", self), function, given)
        if inspect.isclass(function):
            by_numpy = numpy_function(cast("Frame", self), function, given)
            return by_numpy or self.construct(function, given)
        if isinstance(function, Op):
            return Dyn(function.returns), ast.Call(op_reference(function.name), *self.nodes(given))
        if isinstance(function, Getter):
            return function.call(cast("Frame", self), given.args[0])
        if isinstance(function, torch.nn.Module):
            forward = type(function).forward
            holder: Folded = (Const(function), None)
            return self.call_function(
                forward, Arguments([holder, *given.args], given.kwargs), type(function)
            )
        if _is_hashable(function):
            if function in _pyg.predicates():
                return Const(_pyg.predicate(function, self.source.function)), None
            if function in _pyg.substitutes():
                written = getattr(substitutes, _pyg.substitutes()[function])
                return self.call_function(written, given, None)
            if _pyg.is_spmm(function):
                return self._product(given)
            if function in _pyg.op_substitutes():
                return self.call_op(_pyg.op_substitutes()[function], function, given)
        if getattr(function, "__self__", None) is os.environ and given.constant:
            args, kwargs = given.values()
            return Const(function(*args, **kwargs)), None
        if is_logging(function):
            return Const(None), None
        if function is torch.nn.Module.__call__ and isinstance(given.args[0][0], ModuleRef):
            return self.call_forward(given.args[0][0], Arguments(given.args[1:], given.kwargs))
        builtin_random.drawn(function)
        if isinstance(function, types.MethodType):
            owner = self.wrap(function.__self__)
            if isinstance(owner, ModuleRef):
                return self.call_method(Method(owner, function.__func__, function.__name__), given)
            if isinstance(function.__self__, torch.Tensor):
                raise UnsupportedError("a constant tensor is used", "register it as a buffer")
            cls = type(function.__self__)
            defining = next((c for c in cls.__mro__ if function.__name__ in vars(c)), cls)
            bound = Arguments([(owner, None), *given.args], given.kwargs)
            return self.call_function(function.__func__, bound, defining)
        replaced = _pyg.replaced_op(function)
        if replaced is not None:
            return self.call_replaced(replaced, given)
        own = own_op(function)
        if own is not None:
            return self.call_op(own, function, given)
        scatter = _pyg.scatter_function(function) or own_interop(function)
        if scatter is not None:
            return self.call_interop(scatter, given)
        written = sparse.FUNCTIONS.get(_pyg.sparse_function(function) or "")
        if written is not None:
            return self.call_function(written, given, None)
        cluster = _pyg.cluster_function(function)
        if cluster is not None:
            if "src" in given.kwargs:  # the one name that differs: that of the points of fps
                given = Arguments(given.args, {"x": given.kwargs["src"], **given.kwargs})
                del given.kwargs["src"]
            return self.call_function(cluster, given, None)
        for of_library in (numpy_function, einops_function):
            called = of_library(cast("Frame", self), function, given)
            if called is not None:
                return called
        if is_torch_function(function) and not _handles_modules(function, given):
            return self.call_torch(function, given)
        if is_ignored(function) and not _pyg.is_own(function):
            return Dyn(_declared(function)), self.unseen(self.needed(Const(function), None), given)
        if inspect.isfunction(function) or inspect.isfunction(
            getattr(function, "__wrapped__", None)
        ):
            return self.call_function(function, given, None)
        name = getattr(function, "__name__", "")
        if getattr(torch.Tensor, name, None) is function and hasattr(torch, name):
            return self.call_torch(getattr(torch, name), given)  # torch.Tensor.tanh(x)
        if given.constant and _is_pure_builtin(function):
            args, kw = given.values()
            return self.wrap(self.compute(ast.Constant(str(function)), function, *args, **kw)), None
        if callable(function) and inspect.isfunction(type(function).__call__):
            bound = Arguments([(Const(function), None), *given.args], given.kwargs)
            return self.call_function(type(function).__call__, bound, type(function))
        raise UnsupportedError(
            f"'{getattr(function, '__name__', function)}' is called, which has no source that "
            "could be specialised",
            "use torch functions, or a function written in Python",
        )

    def _product(self, given: Arguments) -> Folded:
        """``torch_geometric.utils.spmm``."""
        src = given.args[0] if given.args else given.kwargs["src"]
        if not adjacency.is_matrix(src[0]):
            raise UnsupportedError(
                f"'spmm' is given a '{static_type(src[0])}' for its sparse matrix; the tensors "
                "that a scripted model is given are dense",
                "make the sparse tensor in the model, or 'propagate' along an edge index",
            )
        return self.call_function(sparse.product, given, None)


def _integers(value: Value, node: ast.expr) -> Folded:
    """A list of integers, or a tensor of them as one."""
    if static_type(value) != TENSOR:
        return value, node
    listed = ast.Call(ast.Attribute(node, "tolist", ast.Load()), [], [])
    t = annotation(list_of(INT))
    return Dyn(list_of(INT)), ast.Call(torch_name("torch.jit.annotate"), [t, listed], [])


# Of whose constants methods are called on constants.
_PLAIN_CLASSES = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset, range)
# As torch's functions take them in Python, and not in TorchScript.
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def _handles_modules(function: Any, given: Arguments) -> bool:
    """Whether a function that torch has written in Python is given modules, as only Python can."""
    folded = [*given.args, *given.kwargs.values()]
    return inspect.isfunction(function) and any(isinstance(v, ModuleRef) for v, _ in folded)


# Of which the result for a set does not depend on its order.
_UNORDERED = (sorted, min, max, sum)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_single_dispatch(function: Any) -> bool:
    """Whether a function is of ``functools.singledispatch``."""
    made = getattr(function, "dispatch", None)
    home = getattr(getattr(made, "__code__", None), "co_filename", None)
    return home == functools.singledispatch.__code__.co_filename


def _is_pure_builtin(function: Any) -> bool:
    module = getattr(function, "__module__", "") or ""
    return module in ("builtins", "math", "operator", "itertools", "_operator", "os.path")


def refuse_open_keywords_of(node: ast.Call, source: FunctionSource) -> None:
    """An open ``**kwargs`` may not reach ``propagate``."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("propagate", "edge_updater"):
        refuse_open_keywords(node, source)


def _refuse_own_backward(callee: Value) -> None:
    """``torch.autograd.Function`` runs Python when gradients are computed."""
    made_by = getattr(callee.value, "__self__", None) if isinstance(callee, Const) else None
    if inspect.isclass(made_by) and issubclass(made_by, torch.autograd.Function):
        raise UnsupportedError(
            f"'{made_by.__name__}' has a backward pass of its own in Python, which TorchScript "
            "cannot express",
            "use torch functions, whose derivatives are known; a layer that recomputes to save "
            "memory often has an option to disable it",
        )

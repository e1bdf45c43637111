"""The tracer: runs the specialised code on nodes of a graph, and an example along with them."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import linecache
import operator
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node
from torch.fx.proxy import Proxy as FxProxy

from gnnscript._errors import Location, UnsupportedError
from gnnscript.fx.indexing import split
from gnnscript.fx.namespace import is_generated, renamed
from gnnscript.fx.proxy import Mode, Proxy
from gnnscript.ops.derivatives import gradients
from gnnscript.script import Lowered, user_location
from gnnscript.specialize.folding.mutation import CHANGE_IN_PLACE

__all__ = ["Tracer"]

# It has no result to keep it in a graph.
torch.fx.node.has_side_effect(torch.set_grad_enabled)

_MISSING: Any = object()

# What these say of a tensor does not depend on the values that it holds.
_SHAPE_METHODS = frozenset(
    {
        "dim",
        "element_size",
        "get_device",
        "is_complex",
        "is_contiguous",
        "is_floating_point",
        "ndimension",
        "nelement",
        "numel",
        "size",
        "storage_offset",
        "stride",
        "type",
    }
)
_SHAPE_FUNCTIONS: frozenset[Any] = frozenset(
    {getattr, len, operator.getitem, torch.is_complex, torch.is_floating_point, torch.numel}
)


class Tracer(torch.fx.Tracer):
    """Traces specialised modules.

    With each node goes what it is for the example inputs, where there are some. It decides the
    branches that are left in the code, and the graph asserts that they are decided alike.

    Args:
        inputs: Examples of the arguments, by name; empty where there are none.
        fixed: Values of the arguments that are no arguments of the graph, by name.
    """

    proxy_buffer_attributes = True

    def __init__(
        self, inputs: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(autowrap_modules=())  # type: ignore[arg-type]  # namespace.py sees to math
        self._inputs = inputs or {}
        self._fixed = fixed or {}
        self._examples: dict[Node, Any] = {}
        self._from_values: set[Node] = set()
        self._asserted: dict[Node, Any] = {}
        self._computing = False
        self._grad = True
        self._generated = False
        self._training: Any = None

    # The trace ####################################################################

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> Graph:
        """Traces a module; see ``torch.fx.Tracer.trace``."""
        self._grad = torch.is_grad_enabled()
        self._generated = is_generated(type(root).forward)
        with renamed(root, self), self._attributes(root):
            graph = super().trace(root, concrete_args)
        for node in graph.find_nodes(op="call_function", target=torch.is_grad_enabled):
            if not node.users:
                graph.erase_node(node)
        return graph

    @contextlib.contextmanager
    def _attributes(self, root: nn.Module) -> Iterator[None]:
        """Reads ``self.training`` as a node, and follows the attributes that the code writes."""
        traced = {id(module) for module in root.modules()}
        mode = root.training
        tracer = self

        def get(module: nn.Module) -> Any:
            value = vars(module)["training"]
            if tracer._computing or id(module) not in traced or value != mode:
                return value
            if tracer._training is None:
                tracer._training = tracer.create_proxy("get_attr", "training", (), {})
            return tracer._training

        def put(module: nn.Module, value: bool) -> None:
            vars(module)["training"] = value

        with contextlib.ExitStack() as stack:
            nn.Module.training = property(get, put)  # type: ignore[assignment]
            stack.callback(delattr, nn.Module, "training")
            for cls in {type(module) for module in root.modules() if isinstance(module, Lowered)}:
                for name in vars(cls).get("__annotations__", ()):
                    setattr(cls, name, _Written(name))
                    stack.callback(delattr, cls, name)
            yield

    def proxy(self, node: Node) -> Proxy:
        """The value that traced code sees for a node."""
        return Proxy(node, self)

    def create_args_for_root(
        self,
        root_fn: Any,
        is_module: bool,  # noqa: ARG002
        concrete_args: Any = None,  # noqa: ARG002
    ) -> Any:
        """Makes a node for each argument of the root that is not fixed."""
        parameters = list(inspect.signature(inspect.unwrap(root_fn)).parameters.values())[1:]
        made: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.name in self._fixed:
                made[parameter.name] = self._fixed[parameter.name]
            elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                default = () if parameter.default is parameter.empty else (parameter.default,)
                made[parameter.name] = self.create_proxy("placeholder", parameter.name, default, {})
        return functools.partial(root_fn, **made), [self.root]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module stays a module: those of torch, and scripted ones."""
        if isinstance(m, Lowered):
            return False
        return isinstance(m, torch.jit.ScriptModule) or super().is_leaf_module(
            m, module_qualified_name
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Records or traces the call of a module, unless an example is being computed."""
        if self._computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Reads a parameter or buffer as a node, unless an example is being computed."""
        if self._computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> Node:
        """Makes a node, and computes its example."""
        node = super().create_node(kind, *args, **kwargs)
        value = self._compute(node)
        if value is not _MISSING:
            self._examples[node] = value
        return node

    def create_proxy(self, kind: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a node, and what traced code sees of it."""
        made = super().create_proxy(kind, *args, **kwargs)
        value = self._examples.get(made.node, _MISSING)
        if value is None:
            return None
        if kind.startswith("call") and self._grad and not torch.is_grad_enabled():
            if value is _MISSING:
                raise self._undecided(made.node, "whether to detach it under 'torch.no_grad()'")
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                with torch.enable_grad():
                    return made.detach()
        return made

    # Examples #####################################################################

    def _compute(self, node: Node) -> Any:
        """What a node is for the example inputs, if that is known."""
        if node.op == "placeholder":
            return self._inputs.get(str(node.target), _MISSING)
        if node.op == "output":
            return _MISSING
        if node.op == "get_attr":
            with self._quietly():
                return _attribute(self.root, str(node.target))
        if any(used not in self._examples for used in node.all_input_nodes):
            return _MISSING
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self._examples.__getitem__)
        if node.target is gradients:  # whose values decide nothing
            inputs: Any = args[1]
            return [torch.zeros_like(one) for one in inputs]
        with self._quietly():
            if node.op == "call_module":
                value = self.root.get_submodule(str(node.target))(*args, **kwargs)
            elif node.op == "call_method":
                value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                assert callable(node.target)
                value = node.target(*args, **kwargs)
        if self._reads_values(node, (*args, *kwargs.values()), value):
            self._from_values.add(node)
        return value

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._computing = self._computing, True
        try:
            with torch.no_grad():
                yield
        finally:
            self._computing = before

    def _reads_values(self, node: Node, args: tuple[Any, ...], value: Any) -> bool:
        """Whether a number comes from what a tensor holds, as that of ``item()`` does."""
        if isinstance(value, torch.Tensor):
            return False
        if any(used in self._from_values for used in node.all_input_nodes):
            return True
        if node.target in (_SHAPE_METHODS if node.op == "call_method" else _SHAPE_FUNCTIONS):
            return False
        if isinstance(value, list) and any(map(torch.is_tensor, value)):
            return False  # there are as many as a tensor has dimensions or parts
        return isinstance(value, (bool, int, float, list)) and any(map(torch.is_tensor, args))

    def example(self, proxy: Any) -> Any:
        """What a value is for the example inputs; None where that is not known."""
        return self._examples.get(proxy.node)

    def known(self, value: Any) -> Any:
        """The example of a node, or the value itself.

        Raises:
            UnsupportedError: There is none.
        """
        if not isinstance(value, FxProxy):
            return value
        if value.node not in self._examples:
            raise self._undecided(value.node, "its type")
        return self._examples[value.node]

    # Where Python asks ############################################################

    def concrete(self, proxy: Any, kind: type) -> Any:
        """The example of a value, as ``bool``, ``int`` or ``float``; the graph asserts it.

        Raises:
            UnsupportedError: There is no example, or it depends on the values of a tensor.
        """
        node = proxy.node
        if node not in self._examples:
            if kind is bool and _plain_assertion():
                self._assert(node, True)
                return True
            raise self._undecided(node, "which way a branch or loop goes")
        value = self._examples[node]
        if isinstance(value, torch.Tensor) or node in self._from_values:
            if _is_check():
                whole = self.create_proxy("call_function", bool, (proxy,), {})
                self._assert(whole.node, bool(value))
                return kind(value)
            raise UnsupportedError(
                f"a branch, loop or size depends on the values that a tensor holds ('{node}'), "
                "and a graph has no branches",
                "compute both ways and choose with torch.where, or script the model, which keeps "
                "branches",
                _location(),
            )
        if isinstance(value, (tuple, list, dict)):
            return kind(len(self.elements(proxy)))
        if kind is bool and not isinstance(value, bool):  # only whether it is zero decides
            node = self.create_proxy("call_function", operator.ne, (proxy, 0), {}).node
            value = bool(value)
        self._assert(node, value)
        return kind(value)

    def elements(self, proxy: Any) -> list[Any]:
        """The elements of a value, as many as the example has; of a dictionary, its keys."""
        node = proxy.node
        if node not in self._examples:
            raise self._undecided(node, "how many elements it has")
        value = self._examples[node]
        if isinstance(value, dict):
            return list(value)
        if node in self._from_values:
            self.concrete(proxy.__getitem__(0), bool)
        if isinstance(value, torch.Tensor):
            self._assert(self.create_proxy("call_method", "size", (proxy, 0), {}).node, len(value))
        elif isinstance(value, list):
            self._assert(self.create_proxy("call_function", len, (proxy,), {}).node, len(value))
        return [proxy[position] for position in range(len(value))]

    def _assert(self, node: Node, value: Any) -> None:
        """Has the graph make sure that a number is what it is for the examples."""
        if self._asserted.get(node, _MISSING) == value:
            return
        self._asserted[node] = value
        holds = self.proxy(node)
        if value is not True:
            holds = self.create_proxy("call_function", operator.eq, (holds, value), {})
        where = _location()
        place = "" if where is None else f"{where}: "
        message = f"{place}the graph was traced where '{node}' is {value}, for inputs like those"
        self.create_node("call_function", torch._assert, (holds.node, message), {})

    def set_item(self, proxy: Any, index: Any, value: Any) -> None:
        """``proxy[index] = value`` by in-place methods, which TorchScript compiles as well."""
        indices = index if isinstance(index, tuple) else (index,)
        by_tensor = any(
            isinstance(self.known(i), (torch.Tensor, list)) for i in indices if i is not None
        )
        tensor = isinstance(self.known(value), torch.Tensor)
        if not isinstance(self.known(proxy), torch.Tensor):
            raise UnsupportedError(
                "an element of a list or dictionary is replaced that is an argument of the model",
                "build a new list",
                _location(),
            )
        if not by_tensor:
            part = proxy[index]
            if tensor:
                part.copy_(value)
            else:
                part.fill_(value)
        elif len(indices) == 1 and not tensor and _is_mask(self.known(indices[0])):
            mask = indices[0]
            for _ in range(self.known(mask).dim(), self.known(proxy).dim()):
                mask = mask.unsqueeze(-1)
            proxy.masked_fill_(mask, value)
        else:
            parts = split(indices, self.known, self.known(proxy).dim())
            if parts is None:
                raise UnsupportedError(
                    "an assignment indexes by a list", "index by a tensor", _location()
                )
            view, places = parts
            part = proxy if all(i == slice(None) for i in view) else proxy[view]
            filled = value if tensor else proxy.new_full([], value)
            put: Any = torch.ops.aten.index_put_
            self.create_proxy("call_function", put, (part, places, filled), {})

    def is_grad_enabled(self) -> Mode:
        """``torch.is_grad_enabled()``, while tracing and in the graph."""
        found = self.create_proxy("call_function", torch.is_grad_enabled, (), {})
        return Mode(torch.is_grad_enabled(), found)

    def set_grad_enabled(self, mode: bool | Mode) -> None:
        """``torch.set_grad_enabled(mode)``, while tracing and in the graph."""
        given = mode.found if isinstance(mode, Mode) else mode
        self.create_proxy("call_function", torch.set_grad_enabled, (given,), {})
        self._grad = bool(mode)
        torch.set_grad_enabled(self._grad)

    def in_place(self, function: Callable[..., Any], proxy: Any, other: Any) -> Any:
        """``proxy += other`` and the like: in place where the value is a tensor."""
        if self._generated or isinstance(self._examples.get(proxy.node), torch.Tensor):
            return self.create_proxy("call_function", function, (proxy, other), {})
        plain = getattr(operator, function.__name__[1:])
        return plain(proxy, other)

    def _undecided(self, node: Node, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"the trace has to know of '{node}' {what}",
            "pass example_inputs=(...), one call of the model, which decides it",
            _location(),
        )


class _Written:
    """An attribute that the code writes, while it is traced.

    One that is written before it is read carries nothing from call to call, and the graph can do
    without it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[int, Any] = {}
        self.read: set[int] = set()

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if id(module) not in self.values:
            self.read.add(id(module))
            held = vars(module)[self.name]
            return _Unchanged.of(held, self.name) if type(held) in (list, dict) else held
        return self.values[id(module)]

    def __set__(self, module: Any, value: Any) -> None:
        if id(module) in self.read:
            raise _keeps(self.name)
        self.values[id(module)] = value


class _Unchanged:
    """A list or dictionary that an attribute holds: what is put in would be there for good."""

    _name: str

    @staticmethod
    def of(held: Any, name: str) -> Any:
        base = type(held)
        changes = ("__setitem__", "__delitem__", "__iadd__", "__ior__", *CHANGE_IN_PLACE)
        refusing = {change: _Unchanged._refuse for change in changes if hasattr(base, change)}
        copied = type(base.__name__, (base,), refusing)(held)
        copied._name = name
        return copied

    def _refuse(self, *_: Any) -> Any:
        raise _keeps(self._name)


class KeptState(UnsupportedError):
    """An attribute that the code reads is written by it, for the calls that follow."""


def _keeps(name: str) -> KeptState:
    return KeptState(
        f"attribute '{name}' is kept from one call to the next, and a graph has no "
        "state but buffers",
        "switch off the caching or counting that needs it, or script the model, which "
        "keeps attributes",
        _location(),
    )


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _attribute(root: nn.Module, path: str) -> Any:
    value: Any = root
    for name in path.split("."):
        value = vars(value)["training"] if name == "training" else getattr(value, name)
    return value


def _lines() -> tuple[str, str]:
    """The line of specialised code that is being traced, and the one after it."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if user_location(frame.f_code.co_filename, frame.f_lineno) is not None:
            # With the globals, by which linecache finds the text of a module without a file.
            file, number, names = frame.f_code.co_filename, frame.f_lineno, frame.f_globals
            following = linecache.getline(file, number + 1, names)
            return linecache.getline(file, number, names).strip(), following.strip()
        frame = frame.f_back
    return "", ""


def _is_check() -> bool:
    """Whether the line being traced only checks: an ``assert``, or an ``if`` that raises.

    Such a line may look at values: the graph checks them likewise.
    """
    line, following = _lines()
    return line.startswith("assert ") or (
        line.startswith(("if ", "elif ")) and following.startswith("raise ")
    )


def _plain_assertion() -> bool:
    """Whether the line being traced asserts a condition, and no combination of some."""
    line, _ = _lines()
    try:
        statement = ast.parse(line).body[0]
    except (SyntaxError, IndexError):
        return False
    mixed = (ast.Not, ast.Or, ast.IfExp)
    return isinstance(statement, ast.Assert) and not any(
        isinstance(node, mixed) for node in ast.walk(statement.test)
    )


def _location() -> Location | None:
    """The user's line that is being traced."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        found = user_location(frame.f_code.co_filename, frame.f_lineno)
        if found is not None:
            return found
        frame = frame.f_back
    return None

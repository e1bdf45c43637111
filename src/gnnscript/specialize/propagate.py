"""Writes out ``propagate`` and ``edge_updater``: gather, message, aggregate, update in a row."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gnnscript import _pyg
from gnnscript._errors import UnsupportedError
from gnnscript.analyze.calls import declared_types
from gnnscript.analyze.sources import function_source
from gnnscript.analyze.spec import Hook, HookParameter, analyze
from gnnscript.analyze.types import (
    INT,
    NONE,
    TENSOR,
    UNKNOWN,
    is_optional,
    join,
    optional,
    strip_optional,
)
from gnnscript.specialize import adjacency
from gnnscript.specialize.declared import declare, warn_of_stale
from gnnscript.specialize.folding.base import Arguments, NoReturn
from gnnscript.specialize.helpers import op_reference
from gnnscript.specialize.templates import falls_back
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Method,
    ModuleRef,
    Poison,
    Seq,
    Value,
    constant_items,
    literal,
    static_type,
)
from gnnscript.specialize.watching import call_message_hooks, refuse_hooks

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Folded
    from gnnscript.specialize.folding.statements import Frame
    from gnnscript.specialize.program import Program, Specialized

__all__ = ["handlers"]

Handler = Callable[["Frame", ModuleRef, Arguments], "Folded"]


@functools.cache
def handlers() -> dict[Any, Handler]:
    """Methods of PyG's ``MessagePassing`` that are written out instead of specialised."""
    from gnnscript.specialize import collecting

    base = _pyg.message_passing()
    return {
        inspect.unwrap(base.propagate): functools.partial(_call, "propagate"),
        inspect.unwrap(base.edge_updater): functools.partial(_call, "edge_updater"),
        inspect.unwrap(base.aggregate): _aggregate,
        **collecting.handlers(base),
    }


def call_template(name: str, frame: Frame, ref: ModuleRef, given: Arguments) -> Folded:
    """Calls what a function from PyG's templates stands for."""
    return _call(name, frame, ref, given)


def _aggregate(frame: Frame, ref: ModuleRef, given: Arguments) -> Folded:
    """The default ``aggregate``: the module's aggregation, in the dimension of the nodes."""
    aggregation, _ = frame.module_attribute(ref, "aggr_module")
    if not isinstance(aggregation, ModuleRef):
        raise UnsupportedError(
            f"'{type(ref.module).__name__}' has no aggregation ('aggr=None') and does not "
            "define 'aggregate'",
            "define 'aggregate', or pass 'aggr' to the constructor",
        )
    names = ("inputs", "index", "ptr", "dim_size")
    bound = dict(zip(names, given.args, strict=False)) | given.kwargs
    none: Folded = (Const(None), None)
    args = [bound["inputs"], bound["index"], bound.get("ptr", none), bound.get("dim_size", none)]
    node_dim = frame.module_attribute(ref, "node_dim")
    return frame.call_forward(aggregation, Arguments([*args, node_dim], {}))


def _call(name: str, frame: Frame, ref: ModuleRef, given: Arguments) -> Folded:
    """A call of ``self.propagate(...)`` or ``self.edge_updater(...)``."""
    module = ref.module
    called, ref = ref, frame.program.owner(ref).ref
    given = _by_keyword(name, ref, given)
    if not given.args and "edge_index" not in given.kwargs:
        raise UnsupportedError(f"'{name}' is given no 'edge_index'", "pass it as first argument")
    edge_index = given.args[0] if given.args else given.kwargs.pop("edge_index")
    size = given.args[1] if len(given.args) > 1 else given.kwargs.pop("size", None)
    if size is None or (name == "edge_updater" and falls_back(type(module), name)):
        size = (Const(None), None)
    declared = declared_types(name, frame.source, type(module))
    warn_of_stale(name, frame, declared, given)
    kwargs = {}
    for key, (value, node) in given.kwargs.items():
        kwargs[key] = declare(value, node, declared.get(key, UNKNOWN))
    if static_type(edge_index[0]) == UNKNOWN:
        edge_index = (Dyn(TENSOR), edge_index[1])
    t = static_type(edge_index[0])
    if t == NONE:
        raise NoReturn  # as in eager mode, on the paths that come here
    if strip_optional(t) != TENSOR and not adjacency.is_matrix(edge_index[0]):
        raise UnsupportedError(
            f"'{name}' is given a '{t}' for its edge index",
            "pass a tensor of shape [2, E]; annotate the argument as a Tensor",
        )
    edge_index = frame.present(edge_index[0], frame.needed(*edge_index))
    if adjacency.is_matrix(edge_index[0]):
        fused = adjacency.call_fused(frame, called, edge_index, kwargs, name)
        if fused is not None:
            return fused
        edge_index, size = adjacency.take_apart(frame, ref, name, edge_index, kwargs)
    bound: dict[str, Value] = {"self": ref, "edge_index": edge_index[0]}
    nodes: dict[str, ast.expr | None] = {"edge_index": edge_index[1]}
    for key, (value, node) in kwargs.items():
        bound[key], nodes[key] = value, node
    bound["size"], nodes["size"] = size
    frame.flatten(bound, nodes)
    done = write(frame.program, ref, name, bound, list(kwargs))
    return frame.call_specialized(done, nodes, called)


def write(
    program: Program, ref: ModuleRef, name: str, bound: dict[str, Value], keywords: list[str]
) -> Specialized:
    """Writes out ``propagate`` or ``edge_updater`` of a module.

    Args:
        program: The model.
        ref: The module.
        name: The method.
        bound: What is known of its arguments.
        keywords: Those of them that the user gives by keyword.
    """
    module = ref.module
    refuse_hooks(module)
    function = getattr(_pyg.message_passing(), f"_orig_{name}", None)
    function = function or getattr(_pyg.message_passing(), name)
    spec = analyze(type(module))
    hooks = ["message", "aggregate", "update"] if name == "propagate" else ["edge_update"]

    def body(inner: Frame) -> None:
        by_flow = falls_back(type(module), name)
        Writer(inner, ref, [spec.hooks[h] for h in hooks], keywords, by_flow).write()

    return program.specialize(
        function_source(function),
        bound,
        program.owner(ref),
        _pyg.message_passing(),
        name=name,
        body=body,
        key=(name, id(module)),
    )


def _by_keyword(name: str, ref: ModuleRef, given: Arguments) -> Arguments:
    """Names arguments that are passed by position, in the order PyG gives them."""
    if (len(given.args) <= 2 and name == "propagate") or len(given.args) <= 1:
        return Arguments(list(given.args), dict(given.kwargs))
    hooks = analyze(type(ref.module)).hooks
    wanted = ["message", "aggregate", "update"] if name == "propagate" else ["edge_update"]
    order = list(
        dict.fromkeys(p.keyword for hook in wanted for p in hooks[hook].parameters if not p.special)
    )
    free = [keyword for keyword in order if keyword not in given.kwargs]
    if len(given.args) - 1 > len(free):
        raise UnsupportedError(
            f"'{name}' is given more positional arguments than its hooks ask for",
            "pass every argument but 'edge_index' by keyword",
        )
    named = dict(zip(free, given.args[1:], strict=False))
    return Arguments([given.args[0]], {**named, **given.kwargs})


class Writer:
    """Writes the body of one ``propagate`` or ``edge_updater``."""

    def __init__(
        self,
        frame: Frame,
        ref: ModuleRef,
        hooks: list[Hook],
        keywords: list[str],
        by_flow: bool,
    ) -> None:
        self.by_flow = by_flow
        self.frame = frame
        self.edge_index: ast.expr = ast.Name("edge_index", ast.Load())
        self.ref = ref
        self.hooks = hooks
        self.given: dict[str, Folded] = {
            key: frame.fold_Name(ast.Name(key, ast.Load())) for key in keywords
        }
        flow, _ = frame.module_attribute(ref, "flow")
        if not isinstance(flow, Const):
            raise UnsupportedError("the code assigns 'flow'", "use one conv for each flow")
        self.i, self.j = (1, 0) if flow.value == "source_to_target" else (0, 1)
        node_dim, node = frame.module_attribute(ref, "node_dim")
        self.node_dim = frame.needed(node_dim, node or literal(node_dim))
        self.parameters: dict[str, HookParameter] = {}
        for hook in hooks:
            for parameter in hook.parameters:
                self.parameters.setdefault(parameter.name, parameter)
        self.sizes: list[Folded | None] = [None, None]
        self.pairs: dict[str, list[Folded]] = {}
        self.values: dict[str, Folded] = {}

    def write(self) -> None:
        """Writes it."""
        frame = self.frame
        self.prepare(*frame.fold_Name(ast.Name("size", ast.Load())))
        first, *rest = self.hooks
        frame.origin = (first.source.file, first.source.node.lineno)
        value, node = self._call(first, [])
        if first.name == "message" and getattr(self.ref.module, "_message_forward_hooks", None):
            given = self._arguments(first)
            value, node = call_message_hooks(frame, self.ref, given, (value, node))
        for hook in rest:
            value, node = self._named("out", value, node, first.name)
            frame.origin = (hook.source.file, hook.source.node.lineno)
            value, node = self._call(hook, [(value, node)])
            first = hook
        if isinstance(value, Poison):
            return
        frame.returns.append(value)
        statement = ast.Return(node if node is not None else literal(value))
        statement.comment_ = first.name  # type: ignore[attr-defined]
        frame.emit(statement)
        frame.terminated = True

    def prepare(self, value: Value, node: ast.expr | None) -> None:
        """Writes what the hooks are given, for ``size=value``."""
        check = ast.Call(op_reference("check_edge_index"), [self.edge_index], [])
        self.frame.emit(ast.Expr(check))
        self._read_size(value, node)
        self._lift()
        self._specials()

    def _named(self, wish: str, value: Value, node: ast.expr | None, what: str) -> Folded:
        """Gives an intermediate result a name of its own."""
        frame = self.frame
        if node is None or isinstance(node, (ast.Name, ast.Constant)):
            return value, node
        count = len(frame.out)
        frame.bind(wish, value, node)
        if len(frame.out) > count:
            frame.out[-1].comment_ = what  # type: ignore[attr-defined]
        return frame.fold_Name(ast.Name(wish, ast.Load()))

    # Sizes ########################################################################

    def _read_size(self, value: Value, node: ast.expr | None) -> None:
        """``size=(N, M)``, as far as it is given."""
        if isinstance(value, Const) and value.value is None:
            return
        items = constant_items(value)
        if items is not None:
            nodes = self.frame.element_nodes(self.frame.needed(value, node), len(items)).elts
            for dim, (item, element) in enumerate(zip(items, nodes, strict=True)):
                if not (isinstance(item, Const) and item.value is None):
                    self.sizes[dim] = (item, literal(item) or element)
            return
        t = static_type(value)
        if strip_optional(t).name not in ("Tuple", "List", "Unknown"):
            raise UnsupportedError(
                f"'size' is given a '{t}'", "pass a pair (sources, targets), or None"
            )
        kept = self.frame.needed(value, node)
        for dim in (0, 1):
            element = ast.Subscript(kept, ast.Constant(dim), ast.Load())
            inner = strip_optional(t)
            item_type = inner.args[dim] if inner.name == "Tuple" else INT
            if is_optional(t):
                given = ast.Compare(kept, [ast.IsNot()], [ast.Constant(None)])
                node = ast.IfExp(given, element, ast.Constant(None))
                self.sizes[dim] = (Dyn(optional(item_type)), node)
            else:
                self.sizes[dim] = (Dyn(item_type), element)

    def _seen(self, dim: int, value: Value, node: ast.expr | None) -> None:
        """A tensor with a row for each node: its length is the size, or must agree with it."""
        t = static_type(value)
        if strip_optional(t) != TENSOR or node is None:
            return
        frame = self.frame
        length: ast.expr = ast.Call(ast.Attribute(node, "size", ast.Load()), [self.node_dim], [])
        present = ast.Compare(node, [ast.IsNot()], [ast.Constant(None)])
        known = self.sizes[dim]
        if is_optional(t):
            if known is None:
                kept = ast.IfExp(present, length, ast.Constant(None))
                self.sizes[dim] = (Dyn(optional(INT)), kept)
            elif is_optional(static_type(known[0])):
                before = frame.needed(*known)
                if isinstance(before, ast.IfExp) and ast.unparse(before.body) == ast.unparse(
                    length
                ):
                    return
                kept = ast.IfExp(present, length, before)
                self.sizes[dim] = (Dyn(optional(INT)), kept)
            return
        if known is None:
            self.sizes[dim] = (Dyn(INT), length)
            return
        known_node = frame.needed(*known)
        if ast.unparse(known_node) == ast.unparse(length):
            return
        if is_optional(static_type(known[0])):
            if isinstance(known_node, ast.IfExp) and isinstance(known_node.orelse, ast.Constant):
                kept = ast.IfExp(known_node.test, known_node.body, length)
                self.sizes[dim] = (Dyn(INT), kept)
            else:
                self.sizes[dim] = (Dyn(INT), length)
            return
        parts = [
            ast.Constant("Encountered tensor with size "),
            ast.FormattedValue(length, -1, None),
            ast.Constant(f" in dimension {ast.unparse(self.node_dim)}, but expected size "),
            ast.FormattedValue(known_node, -1, None),
        ]
        agrees = ast.Compare(length, [ast.Eq()], [known_node])
        frame.emit(ast.Assert(agrees, ast.JoinedStr(parts)))

    def _size(self, dim: int) -> Folded:
        """The number of nodes on one side; the other side's where it is not known."""
        here, there = self.sizes[dim], self.sizes[1 - dim]
        if here is None:
            return there or (Const(None), None)
        if is_optional(static_type(here[0])) and there is not None:
            kept = self.frame.needed(*here)
            if isinstance(kept, ast.IfExp) and isinstance(kept.orelse, ast.Constant):
                fallback = self.frame.needed(*there)
                t = join(strip_optional(static_type(here[0])), static_type(there[0])) or INT
                return Dyn(t), ast.IfExp(kept.test, kept.body, fallback)
        return here

    # Arguments of the hooks #######################################################

    def _lift(self) -> None:
        """Gathers what the hooks ask for per edge."""
        frame = self.frame
        for name, parameter in self.parameters.items():
            if not parameter.lifted:
                continue
            dim = self.j if parameter.lifted == "j" else self.i
            if parameter.keyword not in self.given:
                self.values[name] = self._default(parameter)
                continue
            value, node = self.given[parameter.keyword]
            pair = self._pair(parameter.keyword, value, node)
            if pair is None:
                self._seen(dim, value, node)
            else:
                self._seen(0, *pair[0])
                self._seen(1, *pair[1])
                # PyG's templates take the first of a pair for x_j whatever the flow, its generic
                # method takes the side that the flow says: a model is scripted as it runs.
                fixed = 0 if parameter.lifted == "j" else 1
                value, node = pair[dim if self.by_flow else fixed]
            t = static_type(value)
            if t == UNKNOWN:
                t, value = TENSOR, Dyn(TENSOR)
            if strip_optional(t) != TENSOR:
                self.values[name] = (value, node)
                continue
            kept = frame.needed(value, node)
            gathered: ast.expr = ast.Call(
                op_reference("gather"), [kept, self._index(dim), self.node_dim], []
            )
            result: Value = Dyn(TENSOR)
            if is_optional(t):
                present = ast.Compare(kept, [ast.IsNot()], [ast.Constant(None)])
                gathered = ast.IfExp(present, gathered, ast.Constant(None))
                result = Dyn(optional(TENSOR))
            frame.bind(name, result, gathered)
            self.values[name] = frame.fold_Name(ast.Name(name, ast.Load()))

    def _pair(self, keyword: str, value: Value, node: ast.expr | None) -> list[Folded] | None:
        """``x=(x_src, x_dst)``: the first is gathered for ``x_j``, the second for ``x_i``."""
        if keyword in self.pairs:
            return self.pairs[keyword]
        items = constant_items(value) if isinstance(value, Seq) else None
        if isinstance(value, Const) and type(value.value) in (tuple, list):
            items = constant_items(value)
        if items is None and isinstance(value, Dyn) and value.type.name == "Tuple":
            items = [Dyn(t) for t in value.type.args]
        if items is None and isinstance(value, Dyn) and value.type.name == "List":
            items = [Dyn(value.type.args[0])] * 2
        if items is None or (isinstance(value, Seq) and value.cls is not None):
            return None
        if len(items) != 2:
            raise UnsupportedError(
                f"a tuple of {len(items)} is passed for an argument that is gathered to the edges",
                "pass a tensor, or a pair (source, target)",
            )
        nodes: list[ast.expr | None] = [literal(item) for item in items]
        if node is not None:
            nodes = list(self.frame.element_nodes(node, 2).elts)
        self.pairs[keyword] = [
            self._element(keyword, dim, *side)
            for dim, side in enumerate(zip(items, nodes, strict=True))
        ]
        return self.pairs[keyword]

    def _element(self, keyword: str, dim: int, value: Value, node: ast.expr | None) -> Folded:
        """One side of a pair; what may be ``None`` needs a name to be tested."""
        t = static_type(value)
        if not (is_optional(t) and t != NONE) or isinstance(node, ast.Name):
            return value, node
        name = self.frame.fresh(f"{keyword}_{'source' if dim == 0 else 'target'}")
        self.frame.bind(name, value, node)
        return self.frame.fold_Name(ast.Name(name, ast.Load()))

    def _index(self, dim: int) -> ast.expr:
        name = "edge_index_i" if dim == self.i else "edge_index_j"
        if name not in self.values:
            row = ast.Subscript(self.edge_index, ast.Constant(dim), ast.Load())
            self.frame.bind(name, Dyn(TENSOR), row)
            self.values[name] = self.frame.fold_Name(ast.Name(name, ast.Load()))
        node = self.values[name][1]
        assert node is not None
        return node

    def _specials(self) -> None:
        """What the base class itself provides, where a hook asks for it."""
        wanted = {name for name, p in self.parameters.items() if p.special}
        values = self.values
        values["edge_index"] = (Dyn(TENSOR), self.edge_index)
        values["adj_t"] = (Const(None), None)
        values["ptr"] = (Const(None), None)
        if wanted & {"index", "edge_index_i"}:
            values["index"] = (Dyn(TENSOR), self._index(self.i))
        if "edge_index_j" in wanted:
            self._index(self.j)
        held: dict[str, Folded] = {}
        for name, dim in (("size_i", self.i), ("size_j", self.j), ("dim_size", self.i)):
            if name not in wanted:
                continue
            value, node = self._size(dim)
            key = ast.unparse(node) if node is not None else ""
            if key in held:
                values[name] = held[key]
                continue
            if node is not None and not isinstance(node, (ast.Name, ast.Constant)):
                self.frame.bind(name, value, node)
                value, node = self.frame.fold_Name(ast.Name(name, ast.Load()))
            values[name] = held[key] = (value, node)
        if "size" in wanted:
            sides: list[Folded] = [s or (Const(None), None) for s in self.sizes]
            values["size"] = self.frame.sequence(
                "list", [v for v, _ in sides], [n for _, n in sides]
            )

    def _default(self, parameter: HookParameter) -> Folded:
        if parameter.default is not inspect.Parameter.empty:
            return self.frame.wrap(parameter.default), None
        call = "edge_updater" if self.hooks[0].name == "edge_update" else "propagate"
        raise UnsupportedError(
            f"'{parameter.keyword}' is not passed to '{call}', but a hook asks for "
            f"'{parameter.name}'",
            f"pass '{parameter.keyword}=...' to '{call}', or give '{parameter.name}' a default",
            self.hooks[0].source.location(),
        )

    def _arguments(self, hook: Hook) -> dict[str, Folded]:
        kwargs: dict[str, Folded] = {}
        for parameter in hook.parameters:
            if parameter.name in self.values:
                kwargs[parameter.name] = self.values[parameter.name]
            elif parameter.name in self.given:
                kwargs[parameter.name] = self.given[parameter.name]
            else:
                kwargs[parameter.name] = self._default(parameter)
            value, node = kwargs[parameter.name]
            if static_type(value) == UNKNOWN and isinstance(value, Dyn) and parameter.type.known:
                kwargs[parameter.name] = (Dyn(parameter.type), node)
        return kwargs

    def _call(self, hook: Hook, given: list[Folded]) -> Folded:
        kwargs = self._arguments(hook)
        static = inspect.getattr_static(type(self.ref.module), hook.name)
        own = vars(self.ref.module).get(hook.name)
        if own is not None:
            return self.frame.call(self.frame.wrap(own), Arguments(given, kwargs), None)
        method = self.frame.bind_method(self.ref, static, hook.name)
        if isinstance(method, Method):
            return self.frame.call_method(method, Arguments(given, kwargs))
        return self.frame.call(method, Arguments(given, kwargs), None)

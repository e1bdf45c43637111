"""What all parts of a frame share: its state, and the way they call one another."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.sources import FunctionSource
from gnnscript.analyze.types import NONE, TENSOR, Type, is_optional
from gnnscript.specialize.folding.parts import Parts
from gnnscript.specialize.helpers import is_absent, is_stateless, reference
from gnnscript.specialize.values import (
    Closure,
    Const,
    Dyn,
    Mapping,
    Method,
    ModuleRef,
    Poison,
    Seq,
    Value,
    is_object,
    literal,
    static_type,
)

if TYPE_CHECKING:
    from gnnscript.specialize.program import Owner, Program


OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


Folded = tuple[Value, "ast.expr | None"]


class NeedsConstant(UnsupportedError):
    """Something must be known while specialising that is not: a module's index, a name."""


class SeveralTypes(UnsupportedError):
    """A choice of run time is between values that no one type holds."""

    def __init__(self, choice: ast.IfExp | ast.BoolOp, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.choice = choice


class SeveralResults(UnsupportedError):
    """A function returns values of several types, perhaps as its caller knows too little."""


class Parted(UnsupportedError):
    """Specialise a function again, with what follows a test written in both of its branches."""

    def __init__(self, frame: Folding, place: str, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.frame = frame
        self.place = place


class Fails(UnsupportedError):
    """What the code does here raises in Python as well, as the configuration decides.

    Args:
        cause: As for :class:`UnsupportedError`.
        remedy: As for :class:`UnsupportedError`.
        error: What Python raises.

    Attributes:
        error: As passed in.
        always: Whether it is raised in every run that gets to the statement, and nothing is done
            before that an ``except`` would have to see.
    """

    def __init__(self, cause: str, remedy: str, error: Exception) -> None:
        super().__init__(cause, remedy)
        self.error = error
        self.always = True


class MissingAttribute(Fails):
    """An attribute does not exist in this configuration: reading it raises, as in Python."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy, AttributeError(cause))


class Opened(UnsupportedError):
    """A collection cannot be known by its elements: specialise again, with it held at run time."""

    def __init__(self, frame: Folding, names: set[str], cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.frame = frame
        self.names = names


class Tracked(Opened):
    """A collection must be known by its elements: specialise again, with its variables so held."""


class Learned(UnsupportedError):
    """The type of a dictionary is known now that is empty at first: specialise again with it."""

    def __init__(self, frame: Folding, name: str, t: Type) -> None:
        super().__init__(
            f"what '{name}' holds is put in under a condition", "declare its type where it is made"
        )
        self.frame, self.name, self.type = frame, name, t


class NoReturn(Exception):
    """A call never returns: what follows it in the block is not reached."""


@dataclass
class Arguments:
    """The arguments of a call, each a value and the expression that computes it."""

    args: list[Folded]
    kwargs: dict[str, Folded]

    @property
    def constant(self) -> bool:
        """Whether all of them are known."""
        return all(isinstance(v, Const) for v, _ in [*self.args, *self.kwargs.values()])

    def values(self) -> tuple[list[Any], dict[str, Any]]:
        """The Python objects of constant arguments."""
        args = [v.value for v, _ in self.args if isinstance(v, Const)]
        kwargs = {k: v.value for k, (v, _) in self.kwargs.items() if isinstance(v, Const)}
        return args, kwargs

    def types(self) -> tuple[list[Type], dict[str, Type]]:
        """Their static types."""
        args = [static_type(v) for v, _ in self.args]
        return args, {k: static_type(v) for k, (v, _) in self.kwargs.items()}


@dataclass(frozen=True, eq=False)
class Binding:
    """A variable: what is known of it, and the name that holds it in the specialised code."""

    value: Value
    name: str | None
    node: ast.expr | None = None

    @property
    def read(self) -> ast.expr | None:
        """The expression that reads it in the specialised code."""
        return self.node if self.name is None else ast.Name(self.name, ast.Load())


class Folding(Parts):
    """The state of a function being specialised, and what every part of its frame uses.

    A :class:`~gnnscript.specialize.folding.statements.Frame` is put together from the parts in
    this package; each folds one kind of syntax.
    """

    def __init__(
        self, program: Program, source: FunctionSource, owner: Owner | None, cls: type | None
    ) -> None:
        self.program = program
        self.source = source
        self.owner = owner
        self.cls = cls if cls is not None else _class_cell(source)
        self.env: dict[str, Binding] = {}
        self.scope: dict[str, Binding] | None = None  # the function's, inside of one in place
        self.facts: dict[tuple[str, frozenset[str]], bool] = {}
        self.out: list[ast.stmt] = []
        self.current: ast.AST = source.node
        self.terminated = False
        self.conditional = 0
        self.open_lists: dict[str, ast.stmt] = {}
        self.origin: tuple[str, int] | None = None
        self.restore: list[ast.stmt] = []
        self.depth_of_branches = 0
        self.returns: list[Value] = []
        self.loops: list[list[dict[str, Binding]] | None] = []
        self.variants: dict[str, list[tuple[Type, str]]] = {}
        self.declared: dict[str, Type] = {}
        self.mutated = program.changes(source)
        self.opened: set[str] = set()
        self.parted: set[str] = set()  # tests behind which the branches stay apart
        self.learned: dict[str, Type] = {}  # of dictionaries that are empty where they are made
        self.borrowed: tuple[str, ...] = ()
        self.parameters: list[ast.arg] = []
        self.summed: set[str] = set()  # numbers before a loop that adds tensors to them
        self.trials = 0
        self.frozen: list[list[Value]] = []
        self.assigned_once: set[str] = set()
        inner = [n for n in ast.walk(source.node) if isinstance(n, ast.Nonlocal)]
        self.assigned_inside = {name for n in inner for name in n.names}
        names = {n.id for n in ast.walk(source.node) if isinstance(n, ast.Name)}
        self.taken = names | {n.arg for n in ast.walk(source.node) if isinstance(n, ast.arg)}

    def fold(self, node: ast.expr) -> Folded:
        """What is known of an expression, and the expression that computes it at run time.

        The second is ``None`` where the value has no form at run time (functions, modules).
        """
        handler = getattr(self, f"fold_{type(node).__name__}", None)
        if handler is None:
            raise UnsupportedError(
                f"'{ast.unparse(node)}' has no TorchScript form",
                "write it with tensors, numbers, strings, tuples, lists or dictionaries",
                self.source.location(node),
            )
        try:
            value, residual = handler(node)
        except UnsupportedError as error:
            if error.location is None:
                error.locate(self.source.location(node))
            raise
        if residual is not None and isinstance(residual, ast.Name) and is_absent(residual):
            residual = None
        if residual is None:
            residual = literal(value)
        if isinstance(value, Const) and isinstance(value.value, torch.Tensor):
            residual = self.needed(value, residual)  # a global: made anew in each call
            value = Dyn(TENSOR)
        return value, residual

    def attempt(
        self, fold: Callable[[], Folded], instead: Callable[[], Folded | None] | None
    ) -> Folded | None:
        """Folds or, where a choice has several types, takes back what that wrote.

        Args:
            fold: Does it.
            instead: Goes another way; without it the error stays.
        """
        out, env = len(self.out), dict(self.env)
        try:
            return fold()
        except SeveralTypes as first:
            if instead is None:
                raise
            error = first
            del self.out[out:]
            self.env = env
        try:
            return instead()
        except SeveralTypes:
            raise error from None

    def fold_needed(self, node: ast.expr) -> tuple[Value, ast.expr]:
        """Like :meth:`fold`, for a value that must exist at run time."""
        value, residual = self.fold(node)
        return value, self.needed(value, residual)

    def needed(self, value: Value, residual: ast.expr | None) -> ast.expr:
        """The run-time expression of a value.

        Raises:
            UnsupportedError: The value exists only in Python.
        """
        if isinstance(value, Mapping) and not static_type(value).known:
            if is_object(value):
                raise UnsupportedError(
                    f"a '{value.cls.__name__}' is used as a value, which TorchScript cannot hold",
                    "pass and return its fields",
                )
            raise UnsupportedError(
                "a dictionary is used as a value whose keys are no strings or whose entries have "
                "several types",
                "TorchScript's dictionaries have one type of key and one of value: pick the "
                "entries by constants, or use a tuple",
            )
        if residual is not None and not is_absent(residual):
            return residual
        if isinstance(value, Const):
            if isinstance(value.value, torch.Tensor):
                raise UnsupportedError(
                    "a tensor is used that no module holds, and that is large, sparse or learned",
                    "register it as a buffer or parameter of the module",
                )
            found = reference(value.value)
            if found is not None:
                return found
            what = f"'{value.value!r}'" if len(repr(value.value)) < 60 else type(value.value)
        else:
            what = {
                ModuleRef: "a module",
                Method: "a method",
                Closure: "a function",
                Poison: "a value of several types",
            }.get(type(value), "a Python object")
        raise UnsupportedError(
            f"{what} is used as a value, which TorchScript cannot hold",
            "use it where its configuration is known, or pass tensors and numbers instead",
        )

    def wrap(self, value: Any) -> Value:
        """A Python object as a known value; modules of the model by their path."""
        if isinstance(value, torch.nn.Module):
            for name, module in self.program.root.module.named_modules(remove_duplicate=False):
                if module is value:
                    return ModuleRef(module, tuple(name.split(".")) if name else ())
            if is_stateless(value):
                return Const(value)
            raise UnsupportedError(
                f"a '{type(value).__name__}' is used that is not registered in the model",
                "register it as an attribute of its module, or in a torch.nn.ModuleList",
            )
        if type(value).__module__ == "numpy" and hasattr(value, "item") and not value.shape:
            value = value.item()
        if type(value) in (tuple, list) and any(isinstance(v, torch.nn.Module) for v in value):
            return Seq(tuple(self.wrap(v) for v in value), type(value).__name__)
        return Const(value)

    @staticmethod
    def as_load(node: ast.expr) -> ast.expr:
        """A target, as the expression that reads it."""
        copied = ast.parse(ast.unparse(node), mode="eval").body
        return ast.copy_location(copied, node)

    def mangled(self, name: str) -> str:
        """A private name as Python spells it inside a class."""
        if name.startswith("__") and not name.endswith("__") and self.cls is not None:
            return f"_{self.cls.__name__.lstrip('_')}{name}"
        return name

    def compute(self, node: ast.expr, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluates an operation on constants."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise Fails(
                f"'{ast.unparse(node)}' fails: {type(error).__name__}: {error}",
                "it fails in the same way when the model runs in Python; correct it there",
                error,
            ) from error

    def present(self, value: Value, residual: ast.expr) -> tuple[Value, ast.expr]:
        """An operand, which cannot be ``None``."""
        t = static_type(value)
        if is_optional(t) and t != NONE:
            return self.unwrap(value, residual)
        return value, residual


def store(name: str, node: ast.expr) -> ast.stmt:
    """``name = node``."""
    return ast.Assign([ast.Name(name, ast.Store())], node)


def _class_cell(source: FunctionSource) -> type | None:
    """The class that a function was defined in, where its code refers to it (``super()``)."""
    try:
        found = source.resolve("__class__")
    except KeyError:
        return None
    return found if isinstance(found, type) else None

"""One model being specialised: its modules, their methods, and the helpers they share."""

from __future__ import annotations

import ast
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from gnnscript._errors import Location, UnsupportedError
from gnnscript.analyze.annotations import annotation_type
from gnnscript.analyze.sources import FunctionSource, function_source
from gnnscript.analyze.types import UNKNOWN, Type, filled, is_subtype, join, optional, table_type
from gnnscript.specialize.effects import has_effects
from gnnscript.specialize.tree import is_inlinable, remove_dead_assignments
from gnnscript.specialize.values import (
    Const,
    Dyn,
    Mapping,
    ModuleRef,
    Poison,
    Seq,
    Value,
    key_of,
    static_type,
)

__all__ = [
    "AttributeFound",
    "Owner",
    "Program",
    "Specialized",
    "is_runtime",
]


# What these define is as it was when they were imported.
_LIBRARIES = frozenset(
    {"torch", "torch_geometric", "gnnscript", "math", "numpy", "builtins", "typing"}
)


class AttributeFound(Exception):
    """Something is known only now, of an attribute, say: specialisation starts again with it."""


@dataclass(eq=False)
class Specialized:
    """A function specialised to what is known of its arguments.

    Args:
        name: Its name; final for methods, a wish for helpers.
        owner: The module whose method it is, ``None`` for a helper function.
        source: The function it came from.
        parameters: Names and types of the arguments that remain.
        node: The residual function.
        value: What is known of its result.
        types: The types of its variables, as far as they are known.
        argument: The parameter whose object it returns, if its result is one of those.
    """

    name: str
    owner: Owner | None
    source: FunctionSource
    parameters: list[tuple[str, Type]]
    node: ast.FunctionDef
    value: Value
    defaults: dict[str, ast.expr] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    argument: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether calling it has no effect but its result."""
        return all(isinstance(s, (ast.Return, ast.Pass)) for s in self.node.body)

    @functools.cached_property
    def acts(self) -> bool:
        """Whether it does more than compute its result."""
        return has_effects(self.node.body)

    @property
    def inline(self) -> ast.expr | None:
        """The single expression that the function returns, if it is no more than that."""
        return is_inlinable(self.node)


@dataclass(eq=False)
class Owner:
    """A module of the model for which a lowered class is written.

    Args:
        ref: The module.
        methods: Its specialised methods, in the order they were asked for.
        attributes: Attributes that hold a value at run time: written in the code, or tensors.
    """

    ref: ModuleRef
    methods: list[Specialized] = field(default_factory=list)
    attributes: dict[str, Type] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def method_name(self, wish: str) -> str:
        """A name that is free on the lowered class."""
        wish = wish.strip("_") or "method" if wish.startswith("__") else wish
        wish = "call" if not wish.isidentifier() else wish
        taken = self.names | set(self.ref.module._modules) | set(self.ref.module._parameters)
        taken |= set(self.ref.module._buffers) | set(self.attributes)
        name, number = wish, 0
        while name in taken:
            number += 1
            name = f"{wish}_{number}"
        self.names.add(name)
        return name


class Program:
    """Specialises a model, from the entry points of its root on.

    Args:
        root: The model.
        lowers: Says of each module whether it is specialised or left to TorchScript.
        written: Attributes known to be written, from an earlier attempt: ``(path, name)`` to type.
        unfit: Modules, by ``id``, that TorchScript would not compile for the calls that are made.
        changed: By code, variables that hold what functions called with them change in place.
        fixed_shapes: Whether parameters keep their shape, which is configuration then.
    """

    def __init__(
        self,
        root: torch.nn.Module,
        lowers: Callable[[torch.nn.Module], bool],
        written: dict[tuple[tuple[str, ...], str], Type],
        unfit: set[int],
        changed: dict[Any, set[str]],
        *,
        fixed_shapes: bool = True,
    ) -> None:
        self.root = ModuleRef(root, ())
        self._lowers = lowers
        self.written = written
        self._unfit = unfit
        self._changed = changed
        self.fixed_shapes = fixed_shapes
        self.owners: dict[int, Owner] = {}
        self.used: dict[tuple[str, ...], torch.nn.Module] = {}
        self.homes: dict[int, tuple[ModuleRef, str, Any]] = {}
        self.reads: dict[tuple[int, str], tuple[Any, str]] = {}
        self.trials = 0  # loops being written that may be written out instead
        self.stored: set[tuple[str, ...]] = set()  # paths of modules whose attributes are assigned
        self.detours: list[tuple[ModuleRef, Location]] = []
        paths = [id(m) for _, m in root.named_modules(remove_duplicate=False)]
        self._shared = {key for key, count in Counter(paths).items() if count > 1}
        self._memo: dict[Hashable, Specialized | None] = {}
        self._keep: list[Any] = []

    def read(self, place: Any, name: str) -> None:
        """Notes that the meaning of a name of the user's was folded: it may change later.

        Args:
            place: The function's source, the module's class or the module of Python it is read in.
            name: The name.
        """
        function = place.function if isinstance(place, FunctionSource) else place
        home = str(getattr(function, "__module__", None) or getattr(function, "__name__", ""))
        if home.split(".", maxsplit=1)[0] not in _LIBRARIES:
            self.reads[id(function), name] = (place, name)

    def lowers(self, module: torch.nn.Module) -> bool:
        """Whether a module is specialised; TorchScript compiles the others as they stand."""
        return self._lowers(module) or any(id(m) in self._unfit for m in module.modules())

    def refit(self, module: torch.nn.Module) -> None:
        """Has a module specialised that was left to TorchScript so far.

        Raises:
            AttributeFound: Always.
        """
        self._unfit.add(id(module))
        raise AttributeFound

    def is_shared(self, module: torch.nn.Module) -> bool:
        """Whether a module of the user's is registered under several names.

        TorchScript makes an object of each, which share tensors but no other attributes.
        """
        known = type(module).__module__.startswith("torch.nn.")
        return id(module) in self._shared and not known

    def check_shared(self) -> None:
        """Refuses modules that are called by several names and assign attributes.

        Raises:
            UnsupportedError: There is one that the caller cannot reach by its first name.
        """
        for ref, location in self.detours:
            first = self.owner(ref).ref.path
            if any(path[: len(first)] == first for path in self.stored):
                raise UnsupportedError(
                    f"'{'.'.join(first)}' is called as '{'.'.join(ref.path)}' here, and its code "
                    "assigns attributes: TorchScript would keep those apart for each name",
                    "hold the module in one place, and pass what it computes to the others",
                    location,
                )

    def changes(self, source: FunctionSource) -> set[str]:
        """The variables of a function that hold objects which are changed in place."""
        from gnnscript.specialize.folding.mutation import mutated_names

        return mutated_names(source.node) | self._changed.get(source.function.__code__, set())

    def record_change(self, source: FunctionSource, names: set[str]) -> None:
        """Notes that what a function calls changes in place what these variables hold.

        Raises:
            AttributeFound: This was not known so far.
        """
        known = self._changed.setdefault(source.function.__code__, set())
        if not names <= known:
            known |= names
            raise AttributeFound

    def owner(self, ref: ModuleRef) -> Owner:
        """The lowered class in the making for a module; shared modules have one."""
        if id(ref.module) not in self.owners:
            self.owners[id(ref.module)] = Owner(ref)
        return self.owners[id(ref.module)]

    def record_write(self, ref: ModuleRef, name: str, written: Type) -> Type:
        """Notes that the code writes ``module.name``; returns the type the attribute has.

        Raises:
            AttributeFound: The attribute was taken for a constant so far.
            UnsupportedError: No single type holds all that is assigned to it.
        """
        key = (self.owner(ref).ref.path, name)
        known = self.written.get(key)
        if known is not None and is_subtype(written, known):
            self.owner(ref).attributes[name] = known
            return known
        wider = self._attribute_type(ref, name, written)
        if known is not None:
            joined = join(known, wider)
            if joined is None:
                raise UnsupportedError(
                    f"attribute '{name}' is assigned a '{written}', but holds a '{known}'",
                    "give the attribute one type, declared in the class body, or use two",
                )
            wider = joined
        self.written[key] = wider
        raise AttributeFound

    def empty_type(self, ref: ModuleRef, name: str, kind: str) -> Type | None:
        """The type of an attribute that is assigned an empty list or dictionary, if it is known."""
        known = self.written.get((self.owner(ref).ref.path, name)) or _declared(ref, name)
        held = getattr(ref.module, name, None)
        if known is None and held and isinstance(held, (list, dict)):
            known = table_type(held)
        return known if known is not None and known.name == kind and known.known else None

    def record_growth(self, ref: ModuleRef, name: str, given: Type) -> None:
        """Notes that the code changes in place the list or dictionary that ``module.name`` holds.

        Args:
            ref: The module.
            name: The attribute.
            given: The type of a list or dictionary that holds what is put in.

        Raises:
            AttributeFound: The attribute was taken for a constant so far, or held less.
            UnsupportedError: No single type holds all that is put into it.
        """
        key = (self.owner(ref).ref.path, name)
        known = self.written.get(key)
        held = known
        if held is None:
            held = self._held(ref, name)
        wider = filled(held, given)
        if wider is None:
            raise UnsupportedError(
                f"attribute '{name}' holds a '{held}', and what is put into it is not of that "
                f"type: it makes it a '{given}'",
                "give its keys one type (int or str) and its entries one, declared in the class "
                "body",
            )
        if wider != known:
            self.written[key] = wider
            raise AttributeFound

    def _held(self, ref: ModuleRef, name: str) -> Type:
        """The type of a list or dictionary that an attribute holds, and no other attribute."""
        held = getattr(ref.module, name)
        known = table_type(held) if held else UNKNOWN
        if known is None:
            raise UnsupportedError(
                f"attribute '{name}' is changed in place, and holds a Python object that has no "
                f"type in TorchScript: {held!r:.60}",
                "give its entries one type, and its keys (int or str)",
            )
        for path, module in self.root.module.named_modules():
            for other, value in vars(module).items():
                if value is held and (module is not ref.module or other != name):
                    raise UnsupportedError(
                        f"attribute '{name}' is changed in place, and '{other}' of "
                        f"'{path or 'the model'}' holds the same object",
                        "hold it in one place, and change it there",
                    )
        return filled(_declared(ref, name) or UNKNOWN, known) or known

    @staticmethod
    def _attribute_type(ref: ModuleRef, name: str, written: Type) -> Type:
        missing = object()
        current = getattr(ref.module, name, missing)
        declared = _declared(ref, name)
        if declared is not None and is_subtype(written, declared):
            return declared
        if current is missing:
            return optional(written)
        held = join(static_type(Const(current)), written)
        if held is None:
            raise UnsupportedError(
                f"attribute '{name}' holds a '{static_type(Const(current))}' and is assigned "
                f"a '{written}'",
                "give the attribute one type, declared in the class body, or use two attributes",
            )
        return held

    # Functions ####################################################################

    def functions(self) -> list[Specialized]:
        """Every function that was specialised."""
        return [done for done in self._memo.values() if done is not None]

    def specialize(
        self,
        source: FunctionSource,
        bound: dict[str, Value],
        owner: Owner | None,
        cls: type | None,
        *,
        name: str | None = None,
        body: Callable[[Any], None] | None = None,
        key: Hashable = None,
        borrowed: tuple[str, ...] = (),
    ) -> Specialized:
        """Specialises a function to its arguments, once for all calls that are alike.

        Args:
            source: The function.
            bound: What is known of each of its parameters.
            owner: The module on whose lowered class it becomes a method, if any.
            cls: The class that defines it, for ``super()``.
            name: The name to give it; by default its own.
            body: Writes the body instead of folding the function's own statements.
            key: Tells apart functions that share ``source``.
            borrowed: Its parameters whose elements it changes, and hands back with its result.
        """
        from gnnscript.specialize.folding.base import Learned, Opened, Parted, Tracked
        from gnnscript.specialize.folding.statements import Frame

        memo = (
            source.function.__code__,
            id(source.function.__globals__),  # that of a copy in another file is equal
            tuple(id(c.cell_contents) for c in source.function.__closure__ or () if _full(c)),
            key,
            None if owner is None else id(owner.ref.module),
            tuple((n, key_of(v)) for n, v in bound.items()),
            borrowed,
        )
        if memo in self._memo:
            done = self._memo[memo]
            if done is None:
                raise UnsupportedError(
                    f"'{source.function.__qualname__}' calls itself with arguments of the "
                    "same types, which TorchScript cannot express",
                    "write the recursion as a loop",
                    source.location(),
                )
            return done
        self._memo[memo] = None
        self._keep.append((source, bound))
        wish = name or str(getattr(source.node, "name", "function"))
        final = owner.method_name(wish) if owner is not None else wish
        opened: set[str] = set()
        tracked: set[str] = set()
        parted: set[str] = set()
        learned: dict[str, Type] = {}
        try:
            while True:
                frame = Frame(self, source, owner, cls)
                frame.opened, frame.borrowed, frame.parted = opened, borrowed, parted
                frame.learned = learned
                frame.mutated |= tracked
                parameters = frame.bind_parameters(bound)
                received = {
                    name: binding.value
                    for name, binding in frame.env.items()
                    if name in bound and key_of(binding.value) == key_of(bound[name])
                }
                try:
                    if body is None:
                        frame.run()
                    else:
                        body(frame)
                    break
                except Opened as error:
                    if error.frame is not frame or not error.names:
                        raise
                    (tracked if isinstance(error, Tracked) else opened).update(error.names)
                except Parted as error:
                    if error.frame is not frame:
                        raise
                    parted.add(error.place)
                except Learned as error:
                    if error.frame is not frame:
                        raise
                    learned[error.name] = error.type
            node = remove_dead_assignments(frame.finish(final))
            value = frame.result()
        except BaseException:
            del self._memo[memo]
            if owner is not None:
                owner.names.discard(final)
            raise
        done = Specialized(final, owner, source, parameters, node, value)
        if isinstance(value, (Seq, Mapping)):
            done.argument = next((n for n, held in received.items() if held is value), None)
        done.types.update((held, t) for held_as in frame.variants.values() for t, held in held_as)
        done.types.update(parameters)
        if owner is not None:
            owner.methods.append(done)
        self._memo[memo] = done
        return done


def _declared(ref: ModuleRef, name: str) -> Type | None:
    """The type that a class declares for an attribute: in its body, or in ``__init__``."""
    for cls in type(ref.module).__mro__:
        init = vars(cls).get("__init__")
        if not inspect.isfunction(init) or cls is torch.nn.Module:
            continue
        try:
            source = function_source(init)
        except UnsupportedError:
            continue  # made without a file, as by exec
        annotations = [vars(cls).get("__annotations__", {}).get(name)]
        annotations += [
            ast.unparse(node.annotation)
            for node in ast.walk(source.node)
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == f"self.{name}"
        ]
        for annotation in annotations:
            declared = UNKNOWN if annotation is None else annotation_type(annotation, source, cls)
            if declared != UNKNOWN:
                return declared
    return None


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def is_runtime(value: Value) -> bool:
    """Whether some of ``value`` exists only when the specialised code runs."""
    if isinstance(value, Dyn):
        return True
    if isinstance(value, Seq):
        return any(is_runtime(item) for item in value.items)
    if isinstance(value, Mapping):
        return any(is_runtime(item) for item in value.items.values())
    return isinstance(value, Poison)

"""The static types that specialised code is written in: TorchScript's, as plain data."""

from __future__ import annotations

import collections.abc
import inspect
import types as _types
import typing
from dataclasses import dataclass
from typing import Any

import torch

from gnnscript.analyze.aliases import unaliased

__all__ = [
    "BOOL",
    "DEVICE",
    "DTYPE",
    "FLOAT",
    "INT",
    "NONE",
    "NUMBER",
    "SPARSE",
    "SPARSE_COO",
    "SPARSE_CSC",
    "SPARSE_CSR",
    "STR",
    "TENSOR",
    "UNKNOWN",
    "Type",
    "alternatives",
    "dict_of",
    "filled",
    "from_annotation",
    "from_schema",
    "has_tuple_keys",
    "holds_number",
    "is_optional",
    "is_sparse",
    "is_subtype",
    "join",
    "key_type",
    "list_of",
    "of_value",
    "optional",
    "set_of",
    "strip_optional",
    "table_type",
    "tuple_of",
]


@dataclass(frozen=True)
class Type:
    """One static type.

    Args:
        name: ``Tensor``, ``int``, ``float``, ``bool``, ``str``, ``None``, ``number``, ``device``,
            ``dtype``, ``Optional``, ``Tuple``, ``List``, ``Dict``, ``Set``, ``Union``, ``Class`` or
            ``Unknown`` (left to TorchScript's own inference).
        args: Element types of a compound type.
        cls: The Python class of a ``Class`` type or of a named tuple; ``"sparse"`` of a tensor.
    """

    name: str
    args: tuple[Type, ...] = ()
    cls: Any = None

    def __str__(self) -> str:
        """The annotation as source text."""
        if self.cls is not None and not isinstance(self.cls, str):
            return str(self.cls.__name__)
        if self.name in _SPELLING:
            return _SPELLING[self.name]
        if self.name == "Tuple" and not self.args:
            return "Tuple[()]"
        if self.name == "Set":
            return f"Dict[{key_type(self)}, bool]"
        if has_tuple_keys(self):
            return f"Dict[str, {self.args[1]}]"
        if self.args:
            return f"{self.name}[{', '.join(str(arg) for arg in self.args)}]"
        return self.name

    @property
    def known(self) -> bool:
        """Whether the annotation can be written down."""
        return self.name != "Unknown" and all(arg.known for arg in self.args)


_SPELLING = {"number": "float", "device": "torch.device", "dtype": "torch.dtype"}

TENSOR = Type("Tensor")
INT = Type("int")
FLOAT = Type("float")
BOOL = Type("bool")
STR = Type("str")
NONE = Type("None")
NUMBER = Type("number")
DEVICE = Type("device")
DTYPE = Type("dtype")
UNKNOWN = Type("Unknown")
# A tensor in a sparse layout, made by the code itself; every other tensor is dense.
SPARSE = Type("Tensor", (), "sparse")
SPARSE_COO = Type("Tensor", (), "sparse_coo")
SPARSE_CSR = Type("Tensor", (), "sparse_csr")
SPARSE_CSC = Type("Tensor", (), "sparse_csc")


def holds_number(t: Type) -> bool:
    """Whether a part of a type is a number that may be an integer or a float.

    TorchScript infers such a type, and knows no annotation for it.
    """
    return t == NUMBER or any(map(holds_number, t.args))


def is_sparse(t: Type) -> bool:
    """Whether it is a tensor in a sparse layout; which one is known of most."""
    return t.name == "Tensor" and isinstance(t.cls, str)


def optional(inner: Type) -> Type:
    """``Optional[inner]``, flat."""
    if inner.name in ("Optional", "None", "Unknown"):
        return inner
    return Type("Optional", (inner,))


def tuple_of(*args: Type, cls: Any = None) -> Type:
    """``Tuple[args]``, or the named tuple ``cls``."""
    return Type("Tuple", tuple(args), cls)


def list_of(arg: Type) -> Type:
    """``List[arg]``."""
    return Type("List", (arg,))


def dict_of(key: Type, value: Type) -> Type:
    """``Dict[key, value]``."""
    return Type("Dict", (key, value))


def set_of(element: Type) -> Type:
    """``Set[element]``, which TorchScript holds as a dictionary that has the elements as keys."""
    return Type("Set", (element,))


def has_tuple_keys(t: Type) -> bool:
    """Whether it is a dictionary or set of tuples of integers, which are texts in TorchScript."""
    keys = t.args[0] if t.name in ("Dict", "Set") and t.args else UNKNOWN
    return keys.name == "Tuple" and set(keys.args) == {INT}


def key_type(t: Type) -> Type:
    """The type of the keys that stand for those of a dictionary or set."""
    return STR if has_tuple_keys(t) else t.args[0]


def is_optional(t: Type) -> bool:
    """Whether ``None`` is a possible value."""
    return t.name in ("Optional", "None") or (t.name == "Union" and NONE in t.args)


def strip_optional(t: Type) -> Type:
    """The type that remains once ``None`` is ruled out."""
    if t.name == "Optional":
        return t.args[0]
    if t.name == "Union":
        rest = tuple(arg for arg in t.args if arg != NONE)
        return rest[0] if len(rest) == 1 else Type("Union", rest)
    return t


def is_subtype(a: Type, b: Type) -> bool:
    """Whether a value of type ``a`` can be assigned to a variable of type ``b``."""
    if a == b or UNKNOWN in (a, b):
        return True
    if b.name == "Optional":
        return a == NONE or is_subtype(strip_optional(a), b.args[0])
    if b.name == "Union":
        return any(is_subtype(a, arg) for arg in b.args)
    if a.name == b.name == "Tuple" and a.cls is b.cls:
        return len(a.args) == len(b.args) and all(map(is_subtype, a.args, b.args))
    if a.name == b.name and a.name in ("List", "Dict", "Set"):
        # mutable, hence invariant: only what is still unknown may become known
        return all(UNKNOWN in (x, y) for x, y in zip(a.args, b.args, strict=True) if x != y)
    return False


def join(a: Type, b: Type) -> Type | None:
    """The smallest type that holds both, or ``None`` if TorchScript has none."""
    if a.name == b.name and a.name in ("List", "Set") and UNKNOWN in (a.args[0], b.args[0]):
        return b if a.args[0] == UNKNOWN else a  # it was empty up to here
    if is_subtype(a, b):
        return a if b == UNKNOWN else b
    if is_subtype(b, a):
        return a
    if a == NONE:
        return optional(b)
    if b == NONE:
        return optional(a)
    if "Optional" in (a.name, b.name):
        inner = join(strip_optional(a), strip_optional(b))
        return None if inner is None else optional(inner)
    if a.name == b.name == "Tuple" and len(a.args) == len(b.args) and a.cls is b.cls:
        args = [join(x, y) for x, y in zip(a.args, b.args, strict=True)]
        if all(arg is not None for arg in args):
            return tuple_of(*typing.cast("list[Type]", args), cls=a.cls)
    if a.name == b.name == "List":
        inner = join(a.args[0], b.args[0])
        if inner in (a.args[0], b.args[0]):
            return list_of(inner)
    if {a.name, b.name} == {"int", "number"} or {a.name, b.name} == {"float", "number"}:
        return NUMBER
    return None


_BY_CLASS: dict[Any, Type] = {
    torch.Tensor: TENSOR,
    torch.nn.Parameter: TENSOR,
    int: INT,
    float: FLOAT,
    bool: BOOL,
    str: STR,
    type(None): NONE,
    None: NONE,
    torch.dtype: DTYPE,
    torch.device: DEVICE,
    torch.Size: list_of(INT),
    Any: UNKNOWN,
    any: UNKNOWN,
    inspect.Parameter.empty: UNKNOWN,
    torch.tensor: TENSOR,
    list: list_of(UNKNOWN),
    dict: dict_of(UNKNOWN, UNKNOWN),
    tuple: UNKNOWN,
    typing.List: list_of(UNKNOWN),  # noqa: UP006
    typing.Dict: dict_of(UNKNOWN, UNKNOWN),  # noqa: UP006
    typing.Tuple: UNKNOWN,  # noqa: UP006
}


def from_annotation(annotation: Any) -> Type:
    """The static type of an evaluated annotation.

    Members of a ``Union`` that TorchScript cannot hold (``SparseTensor``, ``EdgeIndex``,
    subclasses of ``Tensor``) are left out; what is left unknown becomes ``UNKNOWN``.
    """
    annotation = unaliased(annotation)
    try:
        if annotation in _BY_CLASS:
            return _BY_CLASS[annotation]
    except TypeError:  # unhashable: not an annotation we know
        return UNKNOWN
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin in (typing.Union, _types.UnionType):
        members = [from_annotation(arg) for arg in args if _expressible(arg)]
        return _union(members)
    if origin is tuple:
        if args == ((),) or not args:
            return tuple_of()
        if len(args) == 2 and args[1] is Ellipsis:
            return list_of(from_annotation(args[0]))
        return tuple_of(*map(from_annotation, args))
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return list_of(from_annotation(args[0])) if args else list_of(UNKNOWN)
    if origin in (set, collections.abc.Set, collections.abc.MutableSet):
        return set_of(from_annotation(args[0]))
    if origin in (dict, collections.abc.Mapping):
        return dict_of(*map(from_annotation, args))
    if origin is typing.Annotated:
        return from_annotation(args[0])
    if "Final" in str(origin) or "ClassVar" in str(origin):
        return from_annotation(args[0]) if args else UNKNOWN
    if origin is typing.Literal:
        return _union([of_value(arg) for arg in args])
    if isinstance(annotation, typing.TypeVar):
        return from_annotation(annotation.__bound__) if annotation.__bound__ else UNKNOWN
    if isinstance(annotation, type(torch.FloatTensor)):
        return TENSOR  # torch.FloatTensor, torch.LongTensor, ...: Tensor to TorchScript
    if inspect.isclass(annotation):
        if issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
            hints = typing.get_type_hints(annotation)
            fields = [from_annotation(hints.get(f, torch.Tensor)) for f in annotation._fields]
            return tuple_of(*fields, cls=annotation)
        if issubclass(annotation, torch.Tensor):
            return TENSOR
        return Type("Class", (), annotation)
    return UNKNOWN


def _expressible(annotation: Any) -> bool:
    if not inspect.isclass(annotation) or annotation in _BY_CLASS:
        return True
    if isinstance(annotation, type(torch.FloatTensor)):
        return True
    return issubclass(annotation, tuple) and hasattr(annotation, "_fields")


def _union(members: list[Type]) -> Type:
    distinct = list(dict.fromkeys(members))
    nullable = NONE in distinct
    rest = [m for m in distinct if m != NONE]
    if not rest:
        return NONE if nullable else UNKNOWN
    if len(rest) == 1:
        return optional(rest[0]) if nullable else rest[0]
    return Type("Union", tuple(distinct))


def alternatives(t: Type) -> list[Type]:
    """The concrete types a ``Union`` stands for, in the order written; ``[t]`` for any other."""
    if t.name == "Optional" and t.args[0].name == "Union":
        return [optional(arg) for arg in alternatives(t.args[0])]
    if t.name != "Union":
        return [t]
    nullable = NONE in t.args
    return [optional(arg) if nullable else arg for arg in t.args if arg != NONE]


def of_value(value: Any) -> Type:
    """The static type of a Python value, ``UNKNOWN`` where TorchScript has none."""
    if isinstance(value, torch.Tensor):
        return TENSOR
    if isinstance(value, torch.Size):
        return list_of(INT)
    if isinstance(value, tuple):
        cls = type(value) if hasattr(value, "_fields") else None
        return tuple_of(*map(of_value, value), cls=cls)
    if isinstance(value, list):
        kinds = {of_value(item) for item in value}
        return list_of(kinds.pop() if len(kinds) == 1 else UNKNOWN)
    if isinstance(value, dict):
        keys = {of_value(key) for key in value}
        values = {of_value(item) for item in value.values()}
        if len(keys) == 1 and len(values) == 1:
            return dict_of(keys.pop(), values.pop())
        return dict_of(UNKNOWN, UNKNOWN)
    if type(value) in _BY_CLASS:
        return _BY_CLASS[type(value)]
    return UNKNOWN


def table_type(value: Any) -> Type | None:
    """The type of a list, tuple or dictionary to look things up in, ``None`` if there is none.

    Other than :func:`of_value` a tuple is a list, and entries may differ in being ``None``.
    """
    entries = list(value.values()) if isinstance(value, dict) else list(value)
    held: Type | None = None
    for entry in entries:
        held = of_value(entry) if held is None else join(held, of_value(entry))
        if held is None:
            return None
    if held is None or not held.known or held.name in ("Class", "number"):
        return None
    if not isinstance(value, dict):
        return list_of(held)
    keys = {of_value(key) for key in value}
    return dict_of(keys.pop(), held) if len(keys) == 1 and keys <= {INT, STR} else None


def filled(a: Type, b: Type) -> Type | None:
    """Like :func:`join` for lists and dictionaries, parts unknown in one taken from the other."""
    if UNKNOWN in (a, b):
        return b if a == UNKNOWN else a
    if a.name != b.name or a.name not in ("List", "Dict"):
        return join(a, b)
    args = [filled(x, y) for x, y in zip(a.args, b.args, strict=True)]
    return None if None in args else Type(a.name, tuple(arg for arg in args if arg is not None))


_BY_SCHEMA_NAME = {
    "Tensor": TENSOR,
    "int": INT,
    "float": FLOAT,
    "bool": BOOL,
    "str": STR,
    "NoneType": NONE,
    "Scalar": NUMBER,
    "number": NUMBER,
    "Device": DEVICE,
    "ScalarType": DTYPE,
    "SymInt": INT,
}


def from_schema(jit_type: Any) -> Type:
    """The static type of a ``torch._C.Type`` as operator schemas carry it."""
    kind = jit_type.kind()
    if kind == "OptionalType":
        return optional(from_schema(jit_type.getElementType()))
    if kind == "ListType":
        return list_of(from_schema(jit_type.getElementType()))
    if kind == "TupleType":
        return tuple_of(*map(from_schema, jit_type.elements()))
    if kind == "DictType":
        return dict_of(from_schema(jit_type.getKeyType()), from_schema(jit_type.getValueType()))
    return _BY_SCHEMA_NAME.get(str(jit_type), UNKNOWN)

"""What a served model takes and returns, read from its configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnscript.client._errors import InvalidInputError
from gnnscript.client._transport import DTYPES, Array, bfloat16_bits

__all__ = ["Signature"]


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]
    index: tuple[str | None, ...] = ()
    bfloat16: bool = False

    def __str__(self) -> str:
        dtype = "bfloat16" if self.bfloat16 else self.dtype
        return f"{self.name}: {dtype} [{', '.join(map(str, self.shape))}]"


class Signature:
    """The inputs and outputs of a model.

    Args:
        model: The name of the model.
        config: Its configuration, as the server tells it.
    """

    def __init__(self, model: str, config: Mapping[str, Any]) -> None:
        self.model = model
        parameters = {
            key: value.get("string_value", "")
            for key, value in config.get("parameters", {}).items()
        }
        own = json.loads(parameters.get("gnnscript", "null"))
        # Models of gnnscript take one graph a request, also where the server merges requests.
        self.batched = own is not None and int(config.get("max_batch_size", 0)) > 0
        shapes = {} if own is None else {spec["name"]: spec for spec in own["inputs"]}
        self.inputs = [_tensor(item, shapes.get(item["name"])) for item in config["input"]]
        self.outputs = [item["name"] for item in config["output"]]
        # The arguments of forward in their order, and those that are texts, which stay as they are.
        self.arguments: list[str] = [] if own is None else own.get("arguments", [])
        self.texts: dict[str, str] = {} if own is None else own.get("texts", {})
        self.limits: dict[str, int] = json.loads(parameters.get("limits", "{}"))

    def __str__(self) -> str:
        return f"{self.model}({', '.join(map(str, self.inputs))})"

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Array]:
        """The arrays to send.

        Args:
            args: Positional arguments; what tuples and dictionaries hold is taken in order.
            kwargs: Arguments by name.

        Raises:
            InvalidInputError: They do not fit the model.
        """
        given: dict[str, Any] = {}
        for name, value in (*self._named(args), *self._parts_of(kwargs)):
            if name in given:
                raise InvalidInputError(f"'{name}' is given twice; call {self}")
            given[name] = value
        names = [spec.name for spec in self.inputs]
        unknown = [name for name in given if name not in names]
        missing = [name for name in names if name not in given]
        if unknown or missing:
            which = [f"missing: {', '.join(missing)}"] if missing else []
            which += [f"unknown: {', '.join(unknown)}"] if unknown else []
            raise InvalidInputError(f"{'; '.join(which)}; call {self}")
        arrays = {spec.name: _array(spec, given[spec.name]) for spec in self.inputs}
        self._check(arrays)
        for spec in self.inputs:
            if spec.bfloat16:
                arrays[spec.name] = bfloat16_bits(arrays[spec.name])
        if self.batched:
            return {name: array[None] for name, array in arrays.items()}
        return arrays

    def _named(self, args: tuple[Any, ...]) -> list[tuple[str, Any]]:
        """Positional arguments by the names of the inputs: those of forward, or inputs in order."""
        if len(args) <= len(self.arguments):
            named = self._parts_of(dict(zip(self.arguments, args, strict=False)))
            if {name for name, _ in named} <= {spec.name for spec in self.inputs}:
                return named
        values = [value for argument in args for _, value in _parts("", argument)]
        if len(values) > len(self.inputs):
            raise InvalidInputError(
                f"expected at most {len(self.inputs)} inputs, got {len(values)}; call {self}"
            )
        return [(spec.name, value) for spec, value in zip(self.inputs, values, strict=False)]

    def _parts_of(self, arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """The inputs that arguments of forward hold."""
        parts: list[tuple[str, Any]] = []
        for name, argument in arguments.items():
            if isinstance(argument, str):
                self._check_text(name, argument)
                continue
            whole = any(spec.name == name for spec in self.inputs)
            # A list of numbers is an array, unless the model takes its parts one by one.
            value = tuple(argument) if isinstance(argument, list) and not whole else argument
            parts += _parts(name, value)
        return parts

    def _check_text(self, name: str, text: str) -> None:
        if self.texts.get(name) != text:
            known = name in self.texts
            wanted = f"expected '{name}' to be {self.texts[name]!r}" if known else "expected arrays"
            raise InvalidInputError(
                f"{wanted}, got {text!r}: texts stay as they were in the example that the model "
                f"was exported with; call {self}"
            )

    def _check(self, arrays: Mapping[str, Array]) -> None:
        sizes: dict[str, int] = {}
        owner: dict[str, str] = {}
        for spec in self.inputs:
            array = arrays[spec.name]
            wanted = f"expected '{spec.name}' of shape [{', '.join(map(str, spec.shape))}]"
            if array.ndim != len(spec.shape):
                raise InvalidInputError(f"{wanted}, got {list(array.shape)}")
            for size, found in zip(spec.shape, array.shape, strict=True):
                if isinstance(size, str):
                    if sizes.setdefault(size, found) != found:
                        raise InvalidInputError(
                            f"{wanted}, got {list(array.shape)}, and '{owner[size]}' has "
                            f"{size} = {sizes[size]}"
                        )
                    owner.setdefault(size, spec.name)
                elif size not in (found, -1):
                    raise InvalidInputError(f"{wanted}, got {list(array.shape)}")
        for symbol, limit in self.limits.items():
            if sizes.get(symbol, 0) > limit:
                raise InvalidInputError(
                    f"expected {symbol} of at most {limit}, got {sizes[symbol]} in "
                    f"'{owner[symbol]}'; send a smaller graph"
                )
        for spec in self.inputs:
            for row, bound in enumerate(spec.index):
                part = arrays[spec.name][row] if len(spec.index) > 1 else arrays[spec.name]
                if bound is None or part.size == 0:
                    continue
                low, high = int(part.min()), int(part.max())
                wrong = low if low < 0 else high
                if sizes[bound] == 0:
                    raise InvalidInputError(
                        f"expected no indices in '{spec.name}', as there are no nodes "
                        f"({bound} = 0), got {wrong}"
                    )
                if low < 0 or high >= sizes[bound]:
                    raise InvalidInputError(
                        f"expected indices from 0 to {bound} - 1 = {sizes[bound] - 1} in "
                        f"'{spec.name}', got {wrong}"
                    )

    def result(self, outputs: Mapping[str, Array]) -> Any:
        """What the model returned: an array, a tuple of arrays, or a dictionary of them."""
        arrays = {
            name: outputs[name][0] if self.batched else outputs[name] for name in self.outputs
        }
        if self.outputs == ["output"]:
            return arrays["output"]
        if all(re.fullmatch(r"output_\d+|OUTPUT__\d+", name) for name in self.outputs):
            return tuple(arrays.values())
        return arrays


def _tensor(item: Mapping[str, Any], own: Mapping[str, Any] | None) -> _Tensor:
    name = str(item["name"])
    kind = str(item["data_type"]).removeprefix("TYPE_")
    if kind not in DTYPES:
        raise InvalidInputError(f"'{name}' is of dtype {kind}, which numpy does not have")
    dtype = np.dtype(DTYPES[kind])
    shape = item["dims"] if own is None else own["shape"]
    sizes = tuple(int(size) if own is None else size for size in shape)
    index = () if own is None else tuple(own["index"])
    return _Tensor(name, dtype, sizes, index, kind == "BF16")


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, named as the server names it; None stands for an argument left out."""
    items: Any = None
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, tuple):
        items = zip(getattr(value, "_fields", range(len(value))), value, strict=True)
    elif isinstance(value, list) and value and all(hasattr(v, "__array__") for v in value):
        items = enumerate(value)
    if items is None:
        if value is not None:
            yield name, value
        return
    for key, item in items:
        text = "__".join(map(str, key)) if isinstance(key, tuple) else str(key)
        clean = re.sub(r"[^0-9a-zA-Z]", "_", text)
        yield from _parts(f"{name}_{clean}" if name else clean, item)


def _array(spec: _Tensor, value: Any) -> Array:
    if np.ma.is_masked(value):
        raise InvalidInputError(f"'{spec.name}' has masked values; fill them, or leave them out")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"'{spec.name}' is no array: {error}") from error
    if array.ndim == 0:
        array = array.reshape(1)  # numbers are tensors of one element there
    if array.size and array.dtype != spec.dtype:
        # float64 to float32 loses digits only; anything else that loses is a mistake, and so are
        # masks for indices or features.
        if array.dtype.kind == "b" or not np.can_cast(array.dtype, spec.dtype, "same_kind"):
            raise InvalidInputError(
                f"expected '{spec.name}' of dtype {spec.dtype}, got {array.dtype}"
            )
        integers = array.dtype.kind in "iu" and spec.dtype.kind in "iu"
        if integers and array.dtype.itemsize >= spec.dtype.itemsize:
            limits = np.iinfo(spec.dtype)
            if int(array.min()) < limits.min or int(array.max()) > limits.max:
                raise InvalidInputError(f"'{spec.name}' holds values that {spec.dtype} cannot hold")
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(array, dtype=spec.dtype)
    except FloatingPointError:
        raise InvalidInputError(
            f"'{spec.name}' holds values that {spec.dtype} cannot hold"
        ) from None

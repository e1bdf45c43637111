"""A model whose arguments and results are tensors alone, for runtimes that know nothing else."""

from __future__ import annotations

import copy
import keyword
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gnnscript.deploy.manifest import DeployError
from gnnscript.deploy.structure import (
    Call,
    arguments_of,
    bind,
    calls_of,
    check_names,
    flat_outputs,
    invoke,
    named_tensors,
    part_name,
)
from gnnscript.hetero import to_script

__all__ = ["all_tensors", "flat_call"]

_SEED = 20_231
# The numbers that a tensor of one element can stand for.
_NUMBERS = ("int", "float", "bool")


def all_tensors(
    scripted: torch.jit.ScriptModule, example_inputs: Call | Sequence[Call]
) -> torch.jit.ScriptModule:
    """Wraps a scripted model so that tensors alone go in and come out.

    An ``Optional`` argument is required where the example has a value for it, and else dropped.
    Tuples, lists and dictionaries are flattened, each part named by the argument and its position,
    field or key: ``x_0``, ``x_dict_paper``, ``edge_index_dict_author__writes__paper``. Numbers, and
    tensors without dimensions, become tensors of one element, ``[1]``. Results are flattened in the
    same way, to one tensor or a tuple of tensors; what is None in the example's result is dropped.
    Arguments that are tensors keep their names. A string has to stay what it is in the example.

    Args:
        scripted: What ``torch.jit.script`` returned.
        example_inputs: The arguments of a call, as a tuple or as a dict, or a list of such.

    Returns:
        A scripted model of the same parameters, whose attribute ``output_names`` names its results;
        ``scripted`` itself where nothing is to be done.

    Raises:
        DeployError: The arguments do not fit, the model takes or returns what no tensor can
            express, or two tensors would have the same name.
    """
    call = bind(scripted, calls_of(example_inputs)[0])
    writer = _Writer()
    arguments = [
        f"{argument.name}={writer.argument(argument.name, argument.type, call[argument.name])}"
        for argument in arguments_of(scripted)
        if argument.name in call and not _is_default(argument, call[argument.name])
    ]
    schema: Any = scripted.forward.schema  # type: ignore[attr-defined]
    result_type = schema.returns[0].type
    result = _example_result(scripted, call)
    plain = len(arguments) == len(arguments_of(scripted)) and all(
        argument.type.kind() == "TensorType" and call[argument.name].dim()
        for argument in arguments_of(scripted)
    )
    if plain and _is_plain_result(result_type, result):
        return scripted
    writer.line(f"_output = self.model({', '.join(arguments)})")
    writer.result("_output", result_type, result)
    writer.names = [name for name, _ in flat_outputs(result, numbers=True)]
    check_names(writer.names, "results")
    return writer.made(scripted)


def flat_call(scripted: torch.jit.ScriptModule, call: Call) -> dict[str, Tensor]:
    """The arguments of a call as the tensors that :func:`all_tensors` makes of them, by name.

    Args:
        scripted: The model before it was wrapped.
        call: The arguments of a call.
    """
    return {
        part: tensor
        for name, value in bind(scripted, call).items()
        for part, tensor in named_tensors(name, value, numbers=True)
    }


def _is_default(argument: Any, value: Any) -> bool:
    """Whether leaving the argument out says the same."""
    if value is None:
        return bool(argument.has_default_value()) and argument.default_value is None
    return isinstance(value, str) and argument.default_value == value


def _example_result(scripted: torch.jit.ScriptModule, call: dict[str, Any]) -> Any:
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(_SEED)
        with torch.no_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return invoke(copy.deepcopy(scripted), call)
    finally:
        torch.random.set_rng_state(state)


def _is_plain_result(type_: Any, result: Any) -> bool:
    if type_.kind() == "TensorType":
        return bool(result.dim())
    return type_.kind() == "TupleType" and all(
        element.kind() == "TensorType" and item.dim()
        for element, item in zip(type_.elements(), result, strict=True)
    )


def _with_types(cls: Any) -> Any:
    """A named tuple's class with types for annotations, of which TorchScript reads no texts."""
    hints = typing.get_type_hints(cls)
    fields = [
        (name, _with_types(hints[name]) if hasattr(hints[name], "_fields") else hints[name])
        for name in cls._fields
    ]
    same: Any = typing.NamedTuple(cls.__name__, fields)  # type: ignore[misc]
    same.__module__, same.__qualname__ = cls.__module__, cls.__qualname__
    return same


def _annotated(names: Sequence[str]) -> str:
    return ", ".join(f"{name}: Tensor" for name in names)


@dataclass
class _Writer:
    """The text of the wrapper's methods."""

    parameters: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    classes: types.ModuleType = field(default_factory=lambda: types.ModuleType("_classes"))
    names: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        """Adds a statement."""
        self.lines.append(f"    {text}")

    def made(self, scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
        """The wrapper."""
        for name in self.parameters:
            if not name.isidentifier() or keyword.iskeyword(name) or name == "self":
                raise DeployError(
                    f"'{name}' cannot name an input; rename the argument or key that it comes from"
                )
        check_names(self.parameters, "inputs")
        if not self.results:
            raise DeployError("the model returns no tensor; return what is to come out of it")
        results = ", ".join(self.results)
        returns = "Tensor" if len(self.results) == 1 else "Tuple[" + ", ".join(
            "Tensor" for _ in self.results
        ) + "]"  # fmt: skip
        given = [f"_input_{number}" for number in range(len(self.parameters))]
        lines = [
            f"def _call(self, {_annotated(given)}) -> {returns}:",
            *self.lines,
            f"    return {results}",
            "",
            # Without a word of its own that an argument named `int` or `torch` would hide.
            f"def forward(self, {_annotated(self.parameters)}) -> {returns}:",
            f"    return self._call({', '.join(self.parameters)})",
        ]
        # A class of its own each time: TorchScript would share the type, which gets a new method.
        cls = type("AllTensors", (torch.nn.Module,), {"__module__": __name__})
        module = cls()
        module.model = scripted
        module.training = scripted.training
        module.output_names = self.names
        wrapper: Any = torch.jit.script(module)
        _classes = self.classes  # a name that TorchScript looks for in this frame
        wrapper.define("\n".join([*lines, ""]))
        made: torch.jit.ScriptModule = wrapper
        return made

    # -- arguments --------------------------------------------------------------------------------

    def argument(self, name: str, type_: Any, value: Any) -> str:
        """An expression for an argument, of the inputs that it adds."""
        kind = type_.kind()
        if kind == "OptionalType":
            return "None" if value is None else self.argument(name, type_.getElementType(), value)
        if kind == "TensorType":
            return self._input(name) if value.dim() else f"{self._input(name)}.reshape([])"
        if str(type_) in _NUMBERS:
            return f"{type_}({self._input(name)}.item())"
        if kind == "StringType":
            return repr(str(value))
        if kind == "TupleType":
            fields = getattr(value, "_fields", None)
            if fields is None and not str(type_).startswith("Tuple["):
                raise DeployError(
                    f"expected '{name}' to be a {str(type_).rpartition('.')[2]}, which the model "
                    f"takes, got {type(value).__name__}; pass one among the example inputs"
                )
            parts = [
                self.argument(part_name(name, key), element, item)
                for key, element, item in zip(
                    fields or range(len(value)), type_.elements(), value, strict=True
                )
            ]
            made = f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
            return made if fields is None else self._class_of(value) + made
        if kind == "ListType" and value:
            element = type_.getElementType()
            parts = [self.argument(part_name(name, k), element, v) for k, v in enumerate(value)]
            return f"[{', '.join(parts)}]"
        if kind == "DictType" and value:
            element = type_.getValueType()
            parts = [
                f"{key!r}: {self.argument(part_name(name, key), element, item)}"
                for key, item in to_script(value).items()
            ]
            return f"{{{', '.join(parts)}}}"
        raise DeployError(
            f"'{name}' of type {type_} cannot be expressed in tensors (it is {value!r} in the "
            "example); give a value with the tensors that are to go in, or take tensors"
        )

    def _class_of(self, value: Any) -> str:
        """An expression for the class of a named tuple."""
        name = f"class_{len(vars(self.classes))}"
        setattr(self.classes, name, _with_types(type(value)))
        return f"_classes.{name}"

    def _input(self, name: str) -> str:
        """Adds an input, and returns what it is called in ``_call``."""
        self.parameters.append(name)
        return f"_input_{len(self.parameters) - 1}"

    # -- results ----------------------------------------------------------------------------------

    def result(self, name: str, type_: Any, value: Any) -> None:
        """Adds the tensors of a part of the result that stands in a variable."""
        kind = type_.kind()
        if kind == "OptionalType":
            if value is None:
                return
            self.line(f"assert {name} is not None, 'expected {name} to have a value'")
            self.result(name, type_.getElementType(), value)
        elif kind == "TensorType":
            self.results.append(f"{name}.reshape([1])" if value.dim() == 0 else name)
        elif str(type_) in _NUMBERS:
            self.results.append(f"torch.tensor([{name}])")
        elif kind == "TupleType":
            for position, (element, item) in enumerate(zip(type_.elements(), value, strict=True)):
                self._part(name, position, str(position), element, item)
        elif kind == "ListType":
            if not value:
                raise DeployError("a list that the model returns is empty in the example")
            self.line(
                f"assert len({name}) == {len(value)}, "
                f"'expected as many results as the example had, {len(value)}'"
            )
            for position, item in enumerate(value):
                self._part(name, position, str(position), type_.getElementType(), item)
        elif kind == "DictType":
            for key, item in value.items():
                self._part(name, key, repr(key), type_.getValueType(), item)
        else:
            raise DeployError(
                f"the model returns a {type_}, which tensors cannot express; return tensors"
            )

    def _part(self, name: str, key: object, index: str, type_: Any, value: Any) -> None:
        part = part_name(name, key)
        self.line(f"{part} = {name}[{index}]")
        self.result(part, type_, value)

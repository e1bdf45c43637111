"""What ``torch.export`` is given: a specialised model of flat tensors, and which sizes vary."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gnnscript._config import kernels as choose
from gnnscript._config import options
from gnnscript._errors import UnsupportedError
from gnnscript.deploy.manifest import Argument, DeployError, TensorSpec
from gnnscript.deploy.package import Kernels, scripted_for
from gnnscript.deploy.signature import Signature, derive
from gnnscript.deploy.structure import (
    Call,
    bind,
    calls_of,
    flat_outputs,
    named_tensors,
    numbers_in,
    refilled,
)
from gnnscript.deploy.tensors import all_tensors
from gnnscript.ops.varying import LeavesSizesOpen
from gnnscript.script import explained, lower_for, name_lines, with_least

__all__ = ["Exported", "brief", "export", "quiet"]

_SPECIALIZED = re.compile(
    r"L\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\] as dynamic but your code specialized it to be a "
    r"constant \((\d+)\)"
)
_OF_ONE = re.compile(
    r"export 0/1 specialized due to hint of \d for dimension inputs\['tensors'\]\[(\d+)\]\.shape"
    r"\[(\d+)\]"
)
_TALKATIVE = ("torch.onnx", "torch.onnx._internal.exporter", "torch.fx.experimental")


@dataclass(frozen=True)
class Exported:
    """A model on its way to another runtime.

    Args:
        program: What ``torch.export`` made; takes and returns tensors alone.
        scripted: The scripted model that does so, too.
        signature: The shapes, and calls by name.
        example: The arguments of the original in its own form, by name.
        module: The specialised model that was exported.
    """

    program: torch.export.ExportedProgram
    scripted: torch.jit.ScriptModule
    signature: Signature
    example: dict[str, Any]
    module: nn.Module

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """The inputs as arguments of ``forward``."""
        return tuple(Argument(spec.name, "Tensor", True) for spec in self.signature.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes out."""
        return self.signature.outputs


def export(
    model: nn.Module, example_inputs: Call | Sequence[Call], kernels: Kernels | None
) -> Exported:
    """Specialises a model for its example, and exports it with all sizes that vary left open.

    Arguments that are no tensors, such as numbers, keep the value that they have in the example.

    Args:
        model: An eager model in evaluation mode.
        example_inputs: As for :func:`gnnscript.save`.
        kernels: The ops to use, as for :func:`gnnscript.save`.

    Raises:
        DeployError: The model is scripted, or cannot be exported; the message says why.
        UnsupportedError: The model cannot be specialised.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise DeployError(
            "expected an eager model, got a scripted one, which torch.export does not take; pass "
            "the model that was scripted"
        )
    from torch.export._trace import _export  # takes long to import

    given = calls_of(example_inputs)
    scripted = scripted_for(model, kernels, given)
    calls = [bind(scripted, call) for call in given]
    wrapped = all_tensors(scripted, calls)
    constant = [name for value in calls[0].items() for name in numbers_in(*value)]
    signature = _without(
        derive(copy.deepcopy(wrapped), [_flat(scripted, call) for call in calls]), constant
    )
    first = signature.calls[0]
    tensors = tuple(first[spec.name] for spec in signature.inputs)
    # Not `Dim.AUTO`: a size that the code turns out to fix must be an error.
    shapes = tuple(
        {
            dim: torch.export.Dim.DYNAMIC
            for dim, size in enumerate(spec.shape)
            if isinstance(size, str)
        }
        for spec in signature.inputs
    )

    def attempt(least: dict[tuple[str, int], int]) -> tuple[torch.export.ExportedProgram, _Flat]:
        with choose(kernels or options().kernels):
            lowered = lower_for(model, (), calls[0], everything=True, exportable=True, least=least)
        flat = _Flat(lowered.module, {**lowered.fixed, **lowered.values}, signature)
        with quiet(), LeavesSizesOpen():
            exported = _export(
                flat,
                tensors,
                dynamic_shapes=(shapes,),
                strict=False,
                pre_dispatch=not lowered.differentiates,  # a trace above autograd has no gradients
            )
        return name_lines(exported, least), flat

    try:
        program, flat = with_least(attempt)
    except UnsupportedError:
        raise
    except Exception as error:
        reason = _fixed(error, signature) or _placed(error, model) or brief(error)
        raise DeployError(
            f"'{type(model).__name__}' cannot be exported by torch.export: {reason}; deploy "
            "it as TorchScript with gnnscript.save"
        ) from error
    found, wanted = len(program.graph_signature.user_outputs), len(signature.outputs)
    if found != wanted:
        raise DeployError(
            f"'{type(model).__name__}' returns numbers that hang on values, and torch.export keeps "
            f"{found} of {wanted} results; return them as tensors, or deploy it as TorchScript "
            "with gnnscript.save"
        )
    return Exported(program, wrapped, signature, calls[0], flat)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch from writing about its own parts, and graphs where the error says enough."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def brief(error: BaseException) -> str:
    """The first sentence of an error of torch's, on one line; that of its cause, if it has one."""
    error = error.__cause__ or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _fixed(error: BaseException, signature: Signature) -> str:
    """Which size the code turned out to fix, if that is what torch complains about."""
    single = _OF_ONE.search(str(error))
    if single is not None:
        spec = signature.inputs[int(single.group(1))]
        size = spec.shape[int(single.group(2))]
        return (
            f"{size} of '{spec.name}' is 1 in the first example, and torch.export takes that for "
            "its size in every call; give an example in which it is at least 2"
        )
    found = _SPECIALIZED.search(str(error))
    if found is None:
        return ""
    tensor, dim, size = map(int, found.groups())
    spec = signature.inputs[tensor]
    shape = ", ".join(map(str, spec.shape))
    return (
        f"{spec.shape[dim]} of '{spec.name}', [{shape}], is open in TorchScript, and for "
        f"torch.export the code fixes it to {size}, as a loop over it does"
    )


def _placed(error: Exception, model: nn.Module) -> str:
    """What torch complains about, with the line of the user's code where it is known."""
    found = explained(error, model, "torch.export")
    if not isinstance(found, UnsupportedError) or found.location is None:
        return ""
    place = found.location
    cause = found.cause.partition(": ")[2]
    return f"{place.file}:{place.line} ({place.code}): {cause}"


def _flat(scripted: torch.jit.ScriptModule, call: dict[str, Any]) -> dict[str, Tensor]:
    return {
        part: tensor
        for name, value in bind(scripted, call).items()
        for part, tensor in named_tensors(name, value, numbers=True)
    }


def _without(signature: Signature, names: list[str]) -> Signature:
    """The signature without inputs that are numbers, which are compiled in."""
    return Signature(
        tuple(spec for spec in signature.inputs if spec.name not in names),
        signature.outputs,
        signature.symbols,
        tuple({k: v for k, v in call.items() if k not in names} for call in signature.calls),
    )


class _Flat(nn.Module):
    """Takes the tensors of the signature by position, and returns a tuple of tensors."""

    def __init__(self, model: nn.Module, example: dict[str, Any], signature: Signature) -> None:
        super().__init__()
        self.model = model
        self.example = example
        self.names = [spec.name for spec in signature.inputs]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Calls the model in its own form."""
        given = dict(zip(self.names, tensors, strict=True))
        call = {name: refilled(name, value, given) for name, value in self.example.items()}
        parameters = inspect.signature(self.model.forward).parameters
        outputs = self.model(**{name: value for name, value in call.items() if name in parameters})
        return tuple(tensor.detach() for _, tensor in flat_outputs(outputs, numbers=True))

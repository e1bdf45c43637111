"""Models as ONNX files, for runtimes that know nothing of torch."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnscript.deploy.comparing import compare
from gnnscript.deploy.exporting import Exported, brief, export, quiet
from gnnscript.deploy.manifest import DeployError, Manifest, TensorSpec
from gnnscript.deploy.package import evaluating, target, versions
from gnnscript.deploy.small_sizes import least_sizes
from gnnscript.deploy.structure import Call

__all__ = ["onnx"]

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_METADATA = "gnnscript"


def onnx(
    model: nn.Module,
    example_inputs: Call | Sequence[Call],
    path: str | os.PathLike[str],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Manifest:
    """Writes a model as an ONNX file, and compares what ONNX Runtime computes with it.

    The file uses ONNX's own operators alone, takes and returns tensors alone, and leaves the
    numbers of nodes and edges open, under the names that they have in the manifest. The comparison
    runs on the examples and on graphs of other sizes made from them; where graphs of one or no
    node or edge give something else, the manifest says so (``least``). The manifest lies in the
    file's metadata under ``gnnscript``. Needs the extra ``gnnscript[onnx]``.

    Args:
        model: An eager model, on the CPU.
        example_inputs: The arguments of a call, or of several, as for :func:`gnnscript.save`.
            Numbers among them are compiled in.
        path: The file to write, ``*.onnx``.
        rtol: Relative tolerance of the comparison with the eager model.
        atol: Absolute tolerance of it.

    Returns:
        The manifest.

    Raises:
        UnsupportedError: The model cannot be specialised.
        DeployError: ONNX cannot express the model, or ONNX Runtime computes something else.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DeployError(f"ONNX needs {', '.join(missing)}: pip install 'gnnscript[onnx]'")
    path = target(path)
    with evaluating(model), torch.no_grad():
        exported = export(model, example_inputs, "portable")
        proto = _converted(exported, type(model).__name__)
        manifest = _manifest(model, exported, proto)
        runtime = _Runtime(proto, exported.signature.inputs, type(model).__name__)
        comparison = exported.example, exported.signature
        check = compare(model, runtime, *comparison, rtol=rtol, atol=atol)
        least = least_sizes(model, runtime.each, *comparison, rtol=rtol, atol=atol)
    manifest = replace(manifest, check=check, least=least)
    entry = proto.metadata_props.add()
    entry.key, entry.value = _METADATA, manifest.to_json()
    with tempfile.TemporaryDirectory(prefix=".gnnscript-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        temporary.write_bytes(proto.SerializeToString())
        temporary.replace(path)
    return manifest


def _converted(exported: Exported, name: str) -> Any:
    signature = exported.signature
    both = {spec.name for spec in signature.inputs} & {spec.name for spec in signature.outputs}
    if both:
        raise DeployError(
            f"ONNX has one name for one tensor, and '{min(both)}' is both an input and a result of "
            f"'{name}'; rename the argument or the key"
        )
    try:
        with quiet():
            program: Any = torch.onnx.export(
                exported.program,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamo=True,
                verbose=False,
            )
        proto = program.model_proto
    except Exception as error:
        raise DeployError(
            f"ONNX cannot express '{name}': {brief(error)}; deploy it as TorchScript with "
            "gnnscript.save, or compile it with gnnscript.deploy.aoti"
        ) from error
    for value, spec in zip(proto.graph.input, signature.inputs, strict=True):
        _name_sizes(value, spec)
    for value, spec in zip(proto.graph.output, signature.outputs, strict=True):
        _name_sizes(value, spec)
    return proto


def _name_sizes(value: Any, spec: TensorSpec) -> None:
    """Gives the open sizes of a tensor the names that they have in the manifest."""
    for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
        if isinstance(size, str):
            dim.dim_param = f"{spec.name}_size" if size == "?" else size.replace(" ", "")


class _Runtime:
    """An ONNX model run by ONNX Runtime on the CPU."""

    def __init__(self, proto: Any, inputs: Sequence[TensorSpec], name: str) -> None:
        import onnxruntime

        self._inputs = inputs
        self._name = name
        runtime: Any = onnxruntime
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        try:
            self._session: Any = runtime.InferenceSession(
                proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise self._failure("load", error) from error

    def __call__(self, **tensors: Tensor) -> tuple[Tensor, ...]:
        names = {value.name for value in self._session.get_inputs()}  # unused ones are dropped
        given = {name: t.numpy() for name, t in tensors.items() if name in names}
        try:
            found = self._session.run(None, given)
        except Exception as error:
            raise self._failure("run", error) from error
        return tuple(torch.from_numpy(array) for array in found)

    def each(self, calls: Sequence[dict[str, Tensor]]) -> list[tuple[Tensor, ...] | None]:
        """The results of several calls, None where one fails."""

        def attempt(call: dict[str, Tensor]) -> tuple[Tensor, ...] | None:
            try:
                return self(**call)
            except DeployError:
                return None

        return [attempt(call) for call in calls]

    def _failure(self, what: str, error: Exception) -> DeployError:
        return DeployError(
            f"ONNX Runtime does not {what} '{self._name}': {brief(error)}; deploy it as "
            "TorchScript with gnnscript.save, or compile it with gnnscript.deploy.aoti"
        )


def _manifest(model: nn.Module, exported: Exported, proto: Any) -> Manifest:
    operators = {f"{node.domain or 'onnx'}::{node.op_type}" for node in proto.graph.node}
    return Manifest(
        model=type(model).__name__,
        kernels="portable",
        versions=versions(),
        arguments=exported.arguments,
        inputs=exported.signature.inputs,
        outputs=exported.signature.outputs,
        symbols=exported.signature.symbols,
        ops=tuple(sorted(operators)),
    )

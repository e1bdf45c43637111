"""Model repositories for Triton Inference Server, complete and explained."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gnnscript.deploy import triton_model
from gnnscript.deploy.manifest import DeployError, Manifest, TensorSpec
from gnnscript.deploy.merging import NotMergeableError, merge_plan, remembers
from gnnscript.deploy.package import Kernels, evaluating, load, save, scripted_for
from gnnscript.deploy.signature import derive
from gnnscript.deploy.structure import Call, arguments_of, bind, calls_of
from gnnscript.deploy.tensors import flat_call
from gnnscript.deploy.triton_model import TRITON_TYPES
from gnnscript.deploy.versions import Earlier, add_version

__all__ = ["Backend", "triton"]

Backend = Literal["python", "libtorch"]

_WARM_UP_RUNS = 3  # TorchScript profiles one run, optimises in the next
_NUMPY_FREE = {torch.bool: torch.uint8, torch.bfloat16: torch.int16}


def triton(
    model: nn.Module,
    example_inputs: Call | Sequence[Call],
    repository: str | os.PathLike[str],
    name: str,
    *,
    backend: Backend = "python",
    kernels: Kernels | None = None,
    merge: bool | None = None,
    max_batch_size: int = 32,
    max_queue_delay: float = 0.0,
    instances: int = 1,
    threads: int = 0,
    limits: Mapping[str, int] | None = None,
    finite: bool = True,
    version: int | None = None,
    overwrite: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Path:
    """Writes a model into a model repository of Triton Inference Server.

    Inputs and outputs have the names, dtypes and shapes of the manifest (``gnnscript inspect``);
    inputs are what :func:`gnnscript.deploy.all_tensors` makes of the arguments of ``forward``.

    Args:
        model: An eager or a scripted model.
        example_inputs: As for :func:`gnnscript.save`. The examples also warm up the server, so
            that the first request is not slower than later ones.
        repository: The folder of the repository; it is made where it does not exist.
        name: The name that clients call the model by.
        backend: ``"python"`` runs the saved model by torch in the Python of the server, checks
            requests, and merges them. ``"libtorch"`` needs no Python on the server; it takes each
            request as it is, so that wrong indices are an internal error of the server.
        kernels: As for :func:`gnnscript.save`.
        merge: Whether requests that wait at the same time run as one graph (Python backend). Then
            tensors are sent with a first dimension of 1, which :class:`gnnscript.client.Client`
            adds. None decides by comparing merged graphs with each on its own; True asks for it.
        max_batch_size: How many requests are merged at most.
        max_queue_delay: Seconds that a request may wait for others to be merged with; with 0 only
            those are merged that wait anyway, while the model is busy.
        instances: Number of processes (threads, for libtorch) that run the model; on a machine with
            GPUs it is this number on each.
        threads: Number of threads each instance uses on the CPU; 0 leaves it to torch.
        limits: The largest sizes that are accepted, such as ``{"N": 100_000, "E": 2_000_000}``
            (Python backend).
        finite: Whether requests with NaN or infinity are refused (Python backend).
        version: The number of this version, which is put beside the others of a model that is
            there. It has to take and return the same tensors; settings above are for all versions,
            and those of the last call count. A server takes the version with the highest number,
            or those that :func:`gnnscript.deploy.serve_versions` has named.
        overwrite: Whether the model of this name, or this version of it, may be replaced.
        rtol: Relative tolerance of the comparisons, that with the eager model included.
        atol: Absolute tolerance of the comparisons.

    Returns:
        The folder of the model in the repository.

    Raises:
        ValueError: A name, number or combination of settings is none that a server takes.
        UnsupportedError: The model cannot be scripted.
        DeployError: The examples do not fit, results differ or depend on earlier calls, the model
            cannot be merged though ``merge=True`` or an earlier version asks for it, there is a
            model or version of this name, or the version does not fit those before.
    """
    if backend not in ("python", "libtorch"):
        raise ValueError(f"expected backend to be 'python' or 'libtorch', got {backend!r}")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            "expected a name of letters, digits, '_', '-' and '.' for the model, which starts with "
            f"none of the last two, got {name!r}"
        )
    if backend == "libtorch" and (merge or limits):
        raise ValueError(
            "the libtorch backend takes requests as they are; merge and limits are for "
            "backend='python'"
        )
    for what, value, least in (
        ("version", 1 if version is None else version, 1),
        ("instances", instances, 1),
        ("max_batch_size", max_batch_size, 1),
        ("threads", threads, 0),
        ("max_queue_delay", max_queue_delay, 0),
        *((f"the limit of {symbol}", limit, 1) for symbol, limit in (limits or {}).items()),
    ):
        if value < least:
            raise ValueError(f"expected {what} to be at least {least}, got {value}")
    repository = Path(repository)
    repository.mkdir(parents=True, exist_ok=True)
    target = repository / name
    place = target if version is None else target / str(version)
    if place.exists() and not overwrite:
        raise DeployError(
            f"'{place}' exists; give another {'name' if version is None else 'version'}, or pass "
            "overwrite=True (--overwrite) to replace it"
        )
    earlier = Earlier(target) if version is not None and target.exists() else None
    version = version or 1
    calls = calls_of(example_inputs)
    with tempfile.TemporaryDirectory(prefix=".gnnscript-", dir=repository) as temporary:
        folder = Path(temporary) / name
        file = folder / str(version) / "model.pt"
        file.parent.mkdir(parents=True)
        manifest = save(
            model,
            file,
            kernels=kernels,
            example_inputs=example_inputs,
            all_tensors=True,
            rtol=rtol,
            atol=atol,
        )
        _check_servable(manifest, backend)
        if earlier is not None:
            earlier.check(manifest, backend)
            merge = earlier.merged if merge is None else merge
            if merge != earlier.merged:
                raise DeployError(
                    f"the versions of '{name}' before {'run' if merge else 'do not run'} requests "
                    "on their own, and clients would have to send others; give another name"
                )
        with evaluating(model):
            scripted = scripted_for(model, kernels, calls)
            flat = [flat_call(scripted, call) for call in calls]
            arguments = _arguments(scripted, calls[0])
        saved = load(file)
        grown = derive(saved, [dict(call) for call in flat]).calls
        bound = [bind(saved, call) for call in grown]
        if remembers(manifest, saved, bound, rtol=rtol, atol=atol):
            raise DeployError(
                f"'{manifest.model}' remembers earlier calls: what it returns for a graph depends "
                "on those that it has seen before, which are other clients' on a server; have it "
                "keep nothing in evaluation mode, such as a cache or a running mean"
            )
        plan, reason = None, "it was not asked for"
        if backend == "python" and merge is not False:
            try:
                plan = merge_plan(manifest, saved, bound, rtol=rtol, atol=atol)
            except NotMergeableError as error:
                if merge:
                    raise DeployError(f"requests cannot be merged: {error}") from error
                reason = str(error)
        settings = _Settings(
            name, arguments, backend, plan, reason, max_batch_size, max_queue_delay, instances,
            threads, dict(limits or {}), finite, "" if earlier is None else earlier.policy,
            "" if earlier is None else f"{version}_",
        )  # fmt: skip
        unknown = sorted(set(settings.limits) - set(manifest.symbols))
        if unknown:
            raise DeployError(
                f"limits are for the sizes {', '.join(manifest.symbols)}, and got "
                f"{', '.join(unknown)}"
            )
        _write_warm_up(folder / "warmup", settings.prefix, flat)
        text = _config(manifest, settings, flat)
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(_readme(manifest, settings), encoding="utf-8")
        if backend == "python":
            shutil.copyfile(triton_model.__file__, file.with_name("model.py"))
        if earlier is not None:
            add_version(folder, target, version)
        else:
            if target.exists():
                target.rename(Path(temporary) / "replaced")
            folder.rename(target)
    _write_templates(repository, manifest)
    return target


@dataclass(frozen=True)
class _Settings:
    name: str
    arguments: dict[str, str | None]
    backend: Backend
    plan: dict[str, Any] | None
    reason: str
    max_batch_size: int
    max_queue_delay: float
    instances: int
    threads: int
    limits: dict[str, int]
    finite: bool
    policy: str
    prefix: str


def _arguments(scripted: torch.jit.ScriptModule, call: Call) -> dict[str, str | None]:
    """The names of the arguments of ``forward`` in order, with what those are that are texts."""
    given = bind(scripted, call)
    values = {a.name: given.get(a.name, a.default_value) for a in arguments_of(scripted)}
    return {name: value if isinstance(value, str) else None for name, value in values.items()}


def _check_servable(manifest: Manifest, backend: Backend) -> None:
    for spec in (*manifest.inputs, *manifest.outputs):
        if not spec.shape:
            raise DeployError(
                f"'{spec.name}' has no dimensions, which Triton cannot express; let it have the "
                "shape [1]"
            )
        if spec.dtype not in TRITON_TYPES:
            raise DeployError(f"'{spec.name}' is of dtype {spec.dtype}, which Triton does not have")
        if backend == "libtorch" and spec.dtype == "bfloat16":
            raise DeployError(
                f"'{spec.name}' is of dtype bfloat16, which the libtorch backend does not take; "
                "convert it to another in forward, or export with backend='python'"
            )
    if backend == "libtorch":
        _check_order([spec.name for spec in manifest.outputs])


def _check_order(names: list[str]) -> None:
    """Refuses names from which the libtorch backend reads an order that is not theirs."""
    read = [name.partition("__")[1:] for name in names]
    numbers = [int(rest or 0) for mark, rest in read if mark and re.fullmatch("[0-9]*", rest)]
    if len(numbers) == len(names) and numbers != list(range(len(names))):
        raise DeployError(
            f"the libtorch backend takes the numbers at the end of {', '.join(names)} for the "
            "positions of these results; name them otherwise, with one '_', or export with "
            "backend='python'"
        )


# -- config.pbtxt ---------------------------------------------------------------------------------


def _config(manifest: Manifest, settings: _Settings, flat: list[dict[str, Tensor]]) -> str:
    merged = settings.plan is not None
    lines = [
        f"# {manifest.model}, by gnnscript {manifest.versions['gnnscript']}; see README.md.",
        f"name: {_quoted(settings.name)}",
        *filter(None, [settings.policy]),
        f'backend: "{"python" if settings.backend == "python" else "pytorch"}"',
    ]
    if settings.backend == "libtorch":
        lines.append('platform: "pytorch_libtorch"')
    if merged:
        lines += [
            "# One graph a request, with a first dimension of 1, which is not listed below.",
            f"max_batch_size: {settings.max_batch_size}",
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {round(settings.max_queue_delay * 1e6)}",
            "}",
        ]
    else:
        lines.append("max_batch_size: 0")
    for spec in manifest.inputs:
        lines += _tensor("input", spec, ragged=merged)
    for spec in manifest.outputs:
        lines += _tensor("output", spec)
    lines += [
        "# On each GPU, or where there is none on the CPU.",
        f"instance_group [ {{ kind: KIND_AUTO count: {settings.instances} }} ]",
    ]
    for key, value in _parameters(manifest, settings).items():
        lines.append(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        )
    for number in range(len(flat)):
        lines += _warm_up(number, flat[number], settings.prefix, merged=merged)
    return "\n".join(lines) + "\n"


def _tensor(kind: str, spec: TensorSpec, *, ragged: bool = False) -> list[str]:
    # Triton knows no size of 0, and what is always empty has one.
    dims = ", ".join("-1" if isinstance(size, str) else str(size or -1) for size in spec.shape)
    below = [str(row) for row in spec.index if row is not None]
    lines = [
        f"{kind} {{",
        f"  name: {_quoted(spec.name)}",
        f"  data_type: {TRITON_TYPES[spec.dtype]}",
        f"  dims: [ {dims} ]  # [{', '.join(map(str, spec.shape))}]"
        + (f", values below {' and '.join(dict.fromkeys(below))}" if below else ""),
    ]
    if ragged:
        lines.append("  allow_ragged_batch: true")
    return [*lines, "}"]


def _parameters(manifest: Manifest, settings: _Settings) -> dict[str, str]:
    # What clients need to know, and how models of gnnscript are told from others.
    signature = {
        "inputs": [_public(spec) for spec in manifest.inputs],
        "outputs": [_public(spec) for spec in manifest.outputs],
        "arguments": list(settings.arguments),
        "texts": {name: text for name, text in settings.arguments.items() if text is not None},
    }
    parameters = {"gnnscript": json.dumps(signature)}
    if settings.backend == "libtorch":
        if settings.threads:
            parameters["INTRA_OP_THREAD_COUNT"] = str(settings.threads)
        # A model that asks for gradients inside, such as forces, cannot run in inference mode.
        grad = any(op.endswith("::grad") for op in manifest.ops)
        parameters["INFERENCE_MODE"] = "false" if grad else "true"
        return parameters
    parameters["finite"] = "true" if settings.finite else "false"
    parameters["threads"] = str(settings.threads)
    if settings.limits:
        parameters["limits"] = json.dumps(settings.limits)
    if settings.plan is not None:
        parameters["merge"] = json.dumps(settings.plan)
    return parameters


def _public(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "index": list(spec.index),
    }


def _warm_up(number: int, graph: dict[str, Tensor], prefix: str, *, merged: bool) -> list[str]:
    lines = [
        "model_warmup {",
        f'  name: "example {number}"',
        f"  batch_size: {1 if merged else 0}",
        f"  count: {_WARM_UP_RUNS}",
    ]
    for name, tensor in graph.items():
        dims = ", ".join(map(str, tensor.shape))
        dtype = TRITON_TYPES[str(tensor.dtype).removeprefix("torch.")]
        file = f"{prefix}{name}_{number}"
        lines += [
            f"  inputs {{ key: {_quoted(name)} value {{",
            f'    data_type: {dtype} dims: [ {dims} ] input_data_file: "{file}"',
            "  } }",
        ]
    return [*lines, "}"]


def _quoted(text: str) -> str:
    # The strings of the text format of protocol buffers are escaped like those of JSON.
    return json.dumps(text)


def _write_warm_up(folder: Path, prefix: str, flat: list[dict[str, Tensor]]) -> None:
    """The examples as files of raw values."""
    folder.mkdir()
    for number, graph in enumerate(flat):
        for name, tensor in graph.items():
            values = tensor.detach().cpu().contiguous()
            values = values.view(_NUMPY_FREE.get(values.dtype, values.dtype))
            (folder / f"{prefix}{name}_{number}").write_bytes(values.numpy().tobytes())


# -- what explains the repository -----------------------------------------------------------------

_README = """\
# {name}

{manifest}

{batching}

## Serve it

    gnnscript serve REPOSITORY          # REPOSITORY is the folder above this one

or start `run.sh` there, where `tritonserver` is on the path; the `Dockerfile` beside it makes an
image.

## Call it

From Python, without torch (`pip install 'tritonclient[all]' numpy`):

    from gnnscript.client import Client

    model = Client("http://localhost:8000", {name!r})
    {outputs} = model({inputs})

From other languages by the open inference protocol (KServe v2), over HTTP or gRPC: {protocol}
"""


def _readme(manifest: Manifest, settings: _Settings) -> str:
    if settings.plan is not None:
        batching = (
            f"Up to {settings.max_batch_size} requests that wait at the same time run as one graph."
        )
        protocol = (
            "one graph a request, each tensor with a first dimension of 1 in front of the shape "
            "above."
        )
    else:
        batching = f"Each request runs on its own: {settings.reason}."
        protocol = "tensors have the shapes above."
    return _README.format(
        name=settings.name,
        manifest="\n".join(f"    {line}" for line in str(manifest).splitlines()),
        batching=batching,
        protocol=protocol,
        inputs=", ".join(spec.name for spec in manifest.inputs),
        outputs=", ".join(spec.name for spec in manifest.outputs),
    )


def _write_templates(repository: Path, manifest: Manifest) -> None:
    """What all models of the repository share."""
    folder = resources.files("gnnscript.deploy") / "templates"
    torch_version = manifest.versions["torch"].split("+")[0]
    for name in ("run.sh", "Dockerfile"):
        text = (folder / name).read_text(encoding="utf-8").replace("@TORCH@", torch_version)
        (repository / name).write_text(text, encoding="utf-8")
    (repository / "run.sh").chmod(0o755)

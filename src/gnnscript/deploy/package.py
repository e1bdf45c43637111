"""Saving a model with all that is to be known of it, and loading it again."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import inspect
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from gnnscript._config import kernels as choose
from gnnscript._config import options
from gnnscript._errors import UnsupportedError
from gnnscript.deploy.comparing import compare
from gnnscript.deploy.libraries import is_native, libraries_for, ops_of, provide
from gnnscript.deploy.manifest import (
    JSON_FILE,
    LINES_FILE,
    Check,
    DeployError,
    Manifest,
    read_manifest,
)
from gnnscript.deploy.signature import Signature, derive
from gnnscript.deploy.structure import (
    Call,
    bind,
    calls_of,
    described,
    fits,
)
from gnnscript.deploy.tensors import all_tensors as wrap
from gnnscript.deploy.tensors import flat_call
from gnnscript.intercept import installed

__all__ = [
    "Kernels",
    "evaluating",
    "load",
    "place",
    "save",
    "scripted_for",
    "versions",
]

Kernels = Literal["native", "portable"]


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    kernels: Kernels | None = None,
    example_inputs: Call | Sequence[Call] | None = None,
    all_tensors: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Manifest:
    """Saves a model for use outside of this process, with a manifest of what it needs and takes.

    The file is what ``torch.jit.save`` writes, in evaluation mode, and loads wherever such files
    load. In it lies the manifest, as JSON, under ``extra/gnnscript.json``: ``gnnscript inspect``,
    ``gnnscript.inspect`` and any program that reads zip archives show it. The model passed in stays
    as it is. Where the model uses native ops, their libraries are put beside the file.

    With example inputs, the sizes of all tensors are found out, by running the model on these and
    on graphs made from them by adding nodes and edges; and the file, read back, is compared
    with the model on all of them.

    Args:
        model: An eager model, which is scripted here (``gnnscript.auto`` need not be imported), or
            one that is scripted.
        path: The file to write, by custom ``*.pt``.
        kernels: ``"native"``: ops of gnnscript's library, which has to be loaded where the
            model is; ``"portable"``: ops that every libtorch has. None leaves the choice to
            ``gnnscript.kernels``, or takes what the scripted model has.
        example_inputs: The arguments of a call, as a tuple or as a dict of keyword arguments, or a
            list of several. A small graph does. Two graphs of different sizes say more: sizes that
            are equal in all examples count as the same.
        all_tensors: Whether to wrap the model so that tensors alone go in and come out, which C++
            programs and inference servers ask for; see :func:`gnnscript.deploy.all_tensors`.
        rtol: Relative tolerance of the comparison.
        atol: Absolute tolerance of the comparison.

    Returns:
        The manifest.

    Raises:
        UnsupportedError: The model cannot be scripted.
        DeployError: The example inputs do not fit, the saved model differs from the original, or
            there is no folder to write it to.
        ValueError: ``all_tensors`` without example inputs.
    """
    path = target(path)
    if all_tensors and example_inputs is None:
        raise ValueError(
            "all_tensors needs example_inputs, which show the tensors in each argument"
        )
    calls = [] if example_inputs is None else calls_of(example_inputs)
    with evaluating(model):
        scripted = scripted_for(model, kernels, calls)
        final = wrap(scripted, calls) if all_tensors else scripted
        signature, check = None, None
        if calls:
            bound = [bind(scripted, call) for call in calls]
            flat = [flat_call(scripted, call) for call in calls] if final is not scripted else bound
            signature = derive(copy.deepcopy(final), flat)
            check = compare(
                model, _reloaded(model, final), bound[0], signature, rtol=rtol, atol=atol
            )
        manifest, files = _manifest(model, scripted, final, signature, check)
        _write(final, path, manifest)
    for file in files:
        place(file, path.parent)
    return manifest


def load(
    path: str | os.PathLike[str], map_location: str | torch.device | None = None
) -> torch.jit.ScriptModule:
    """Loads a model that :func:`save` wrote, and the libraries that it needs.

    Args:
        path: The file. Libraries that are not loaded yet are looked for beside it.
        map_location: The device to put it on; by default the one it was saved from.

    Returns:
        The scripted model.

    Raises:
        DeployError: There is no such file, it is damaged or has no manifest, or a library is
            missing or another; the message says which one to load.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if path.suffix == ".pt2":
        raise DeployError(
            f"'{path}' is a compiled model; load it with gnnscript.deploy.load_compiled"
        )
    provide(manifest, path.resolve().parent)
    try:
        model: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            path, map_location=map_location
        )
    except RuntimeError as error:
        raise DeployError(
            f"'{path}' does not load with torch {torch.__version__}, it was made with "
            f"{manifest.versions.get('torch')} ({_first_line(error)}); copy or save it again"
        ) from error
    return model


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode, and each of its modules back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def scripted_for(
    model: nn.Module, kernels: Kernels | None, calls: Sequence[Call] = ()
) -> torch.jit.ScriptModule:
    """The scripted model; one that is scripted already as it is.

    Args:
        model: An eager or a scripted model.
        kernels: As for :func:`save`.
        calls: Example inputs. They say what arguments are that have no annotation, or several
            types to choose from, where the model would not take them otherwise.

    Raises:
        DeployError: Its ops are not those that are asked for.
        UnsupportedError: It cannot be scripted.
    """
    if kernels not in (None, "native", "portable"):
        raise ValueError(f"expected kernels to be 'native', 'portable' or None, got {kernels!r}")
    given = isinstance(model, torch.jit.ScriptModule)
    if isinstance(model, torch.jit.ScriptModule):
        scripted = model
    else:
        with installed(), choose(kernels or options().kernels):
            scripted = _scripted(model, calls)
    found = "native" if is_native(ops_of(scripted)) else "portable"
    if kernels is not None and kernels != found:
        raise DeployError(
            f"expected a model of {kernels} ops, and '{_name(model)}' has {found} ones "
            f"alone; {'pass the eager model' if given else 'leave kernels out'}"
        )
    return scripted


def _scripted(model: nn.Module, calls: Sequence[Call]) -> torch.jit.ScriptModule:
    refused: UnsupportedError | None = None
    try:
        scripted = torch.jit.script(model)
        if not calls or fits(scripted, calls[0]):
            return scripted
    except UnsupportedError as error:
        if not calls:
            raise
        refused = error
    bound = inspect.signature(model.forward).bind(
        *(calls[0] if isinstance(calls[0], tuple) else ()),
        **(calls[0] if isinstance(calls[0], dict) else {}),
    )
    bound.apply_defaults()
    try:
        return torch.jit.script(model, example_inputs=[bound.args])
    except UnsupportedError:
        if refused is None:
            raise
        raise refused from None  # the first error speaks of the model as it is written


def versions() -> dict[str, str]:
    """The versions that a model is made with."""
    import gnnscript

    found = {"gnnscript": gnnscript.__version__, "torch": torch.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch_geometric"] = importlib.metadata.version("torch_geometric")
    return found


def _manifest(
    model: nn.Module,
    scripted: torch.jit.ScriptModule,
    final: torch.jit.ScriptModule,
    signature: Signature | None,
    check: Check | None,
) -> tuple[Manifest, list[Path]]:
    ops = ops_of(final)
    libraries = libraries_for(ops)
    manifest = Manifest(
        model=_name(model),
        kernels="native" if is_native(ops_of(scripted)) else "portable",
        versions=versions(),
        arguments=described(final),
        inputs=() if signature is None else signature.inputs,
        outputs=() if signature is None else signature.outputs,
        symbols={} if signature is None else signature.symbols,
        ops=ops,
        libraries=tuple(libraries.values()),
        check=check,
    )
    return manifest, list(libraries)


def _write(scripted: torch.jit.ScriptModule, path: Path, manifest: Manifest) -> None:
    """Writes the file in one step, so that no half of one is ever found under its name."""
    extra = {JSON_FILE: manifest.to_json(), LINES_FILE: manifest.to_lines()}
    archive = io.BytesIO()  # torch, where it writes to a disk that is full, ends the process
    torch.jit.save(scripted, archive, _extra_files=extra)
    with tempfile.TemporaryDirectory(prefix=".gnnscript-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        temporary.write_bytes(archive.getbuffer())
        temporary.replace(path)


def target(path: str | os.PathLike[str], suffix: str = "") -> Path:
    """A path that a file can be written to.

    Raises:
        DeployError: There is no folder to write it to, or it is one itself.
        ValueError: It does not end in the suffix.
    """
    path = Path(path)
    if not path.name.endswith(suffix):
        raise ValueError(f"expected a path that ends in {suffix}, got '{path}'")
    if not path.parent.is_dir():
        raise DeployError(f"there is no folder '{path.parent}' to write '{path.name}' to; make it")
    if path.is_dir():
        raise DeployError(f"'{path}' is a folder; name a file to write")
    return path


def place(library: Path, folder: Path) -> None:
    """Puts a library into a folder."""
    target = folder / library.name
    if target.exists() and target.samefile(library):
        return
    with tempfile.TemporaryDirectory(prefix=".gnnscript-", dir=folder) as temporary:
        copied = shutil.copyfile(library, Path(temporary) / library.name)
        copied.replace(target)  # a process that has the old one loaded keeps it


def _reloaded(model: nn.Module, scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        torch.jit.save(scripted, file)
        try:
            loaded: torch.jit.ScriptModule = torch.jit.load(file)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise DeployError(
                f"torch cannot read what it writes of '{_name(model)}' ({_first_line(error)}); "
                "rename arguments and variables that have the name of a module, such as 'torch'"
            ) from error
        return loaded


def _name(model: nn.Module) -> str:
    if isinstance(model, torch.jit.ScriptModule):
        return str(model.original_name)
    return type(model).__name__


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")

"""Models compiled ahead of time by AOTInductor: a ``.pt2`` file, for C++ and Python."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnscript.deploy.comparing import compare
from gnnscript.deploy.exporting import Exported, brief, export, quiet
from gnnscript.deploy.libraries import is_native, libraries_for, provide
from gnnscript.deploy.manifest import (
    JSON_FILE,
    LINES_FILE,
    DeployError,
    Manifest,
    read_manifest,
)
from gnnscript.deploy.package import Kernels, evaluating, place, target, versions
from gnnscript.deploy.small_sizes import least_sizes
from gnnscript.deploy.structure import Call
from gnnscript.deploy.validate import validate

__all__ = ["CompiledModel", "aoti", "load_compiled"]


def aoti(
    model: nn.Module,
    example_inputs: Call | Sequence[Call],
    path: str | os.PathLike[str],
    *,
    kernels: Kernels | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Manifest:
    """Compiles a model ahead of time to machine code, by torch's AOTInductor.

    The file is loaded by ``gnnscript::Model`` of ``gnnscript/model.h``, by
    ``torch::inductor::AOTIModelPackageLoader``, or in Python by :func:`load_compiled`. It takes
    and returns tensors alone, as after :func:`gnnscript.deploy.all_tensors`; the numbers of nodes
    and edges stay open; where it is not right for graphs of one or no node or edge, as torch's
    compiler may take it that there are more, the manifest says so, and calls of such are refused.
    It is made for the kind of processor it was compiled on, and for this
    version of torch. Compiling takes a C++ compiler and about half a minute.

    Args:
        model: An eager model, on the CPU.
        example_inputs: The arguments of a call, or of several, as for :func:`gnnscript.save`.
            Numbers among them are compiled in.
        path: The file to write, ``*.pt2``.
        kernels: The ops to use, as for :func:`gnnscript.save`; the library of native ops is put
            beside the file.
        rtol: Relative tolerance of the comparison with the eager model.
        atol: Absolute tolerance of it.

    Returns:
        The manifest, which lies in the file as well.

    Raises:
        UnsupportedError: The model cannot be specialised.
        DeployError: It cannot be exported or compiled, or what was compiled differs from it.
    """
    path = target(path, ".pt2")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise DeployError("AOTInductor needs a C++ compiler: install g++, or name one by CXX")
    with evaluating(model), torch.no_grad():
        exported = export(model, example_inputs, kernels)
        # Not beside the file: torch, where it writes to a disk that is full, ends the process.
        with tempfile.TemporaryDirectory(prefix="gnnscript-") as folder:
            temporary = Path(folder) / path.name
            try:
                with quiet():
                    torch._inductor.aoti_compile_and_package(
                        exported.program, package_path=str(temporary)
                    )
            except Exception as error:
                raise DeployError(
                    f"AOTInductor does not compile '{type(model).__name__}': {brief(error)}"
                ) from error
            compiled = CompiledModel(temporary, [spec.name for spec in exported.signature.inputs])
            check = compare(
                model, compiled, exported.example, exported.signature, rtol=rtol, atol=atol
            )
            manifest, files = _manifest(model, exported, check)
            least = least_sizes(
                model,
                functools.partial(_apart, temporary, manifest, files),
                exported.example,
                exported.signature,
                rtol=rtol,
                atol=atol,
            )
            manifest = replace(manifest, least=least)
            with zipfile.ZipFile(temporary, "a") as archive:
                root = archive.namelist()[0].split("/", maxsplit=1)[0]
                archive.writestr(f"{root}/extra/{JSON_FILE}", manifest.to_json())
                archive.writestr(f"{root}/extra/{LINES_FILE}", manifest.to_lines())
            place(temporary, path.parent)
    for file in files:
        place(file, path.parent)
    return manifest


# Runs a compiled model in a process of its own: for sizes that it was not compiled for, it may end.
_RUNS = """
import sys, torch
package, calls, results, *libraries = sys.argv[1:]
for library in libraries:
    torch.ops.load_library(library)
run = torch._inductor.aoti_load_package(package)
for number, call in enumerate(torch.load(calls)):
    try:
        found = run(*call)
    except Exception:
        continue
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    torch.save(found, f"{results}/{number}")
"""


def _apart(
    package: Path, manifest: Manifest, libraries: Sequence[Path], calls: Sequence[dict[str, Tensor]]
) -> list[list[Tensor] | None]:
    used = {library.file for library in manifest.libraries if library.ops}
    with tempfile.TemporaryDirectory(prefix="gnnscript-") as folder:
        given = Path(folder) / "calls"
        torch.save([[call[spec.name] for spec in manifest.inputs] for call in calls], given)
        subprocess.run(
            [sys.executable, "-c", _RUNS, str(package), str(given), folder]
            + [str(library) for library in libraries if library.name in used],
            capture_output=True,
            check=False,
        )
        files = [Path(folder) / str(number) for number in range(len(calls))]
        return [torch.load(file) if file.is_file() else None for file in files]


class CompiledModel:
    """A compiled model as a function of tensors, by name or position.

    Args:
        path: The ``.pt2`` file.
        names: The names of its inputs, in their order.
        manifest: Its manifest, by which inputs are checked; None takes them as they are.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        names: Sequence[str],
        manifest: Manifest | None = None,
    ) -> None:
        self._run: Any = torch._inductor.aoti_load_package(str(path))
        self._names = list(names)
        self._manifest = manifest

    def __call__(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """Runs it; returns a tensor, or a tuple of several.

        Raises:
            DeployError: An input is missing or unknown, or not what the manifest says.
        """
        given = dict(zip(self._names, args, strict=False)) | kwargs
        if set(given) != set(self._names) or len(args) + len(kwargs) != len(self._names):
            raise DeployError(f"expected the inputs {', '.join(self._names)}, got {list(given)}")
        if self._manifest is not None:
            validate(self._manifest.inputs, given, self._manifest.least)
        found = self._run(*(given[name] for name in self._names))
        outputs = (found,) if isinstance(found, torch.Tensor) else tuple(found)
        return outputs[0] if len(outputs) == 1 else outputs


def load_compiled(path: str | os.PathLike[str]) -> CompiledModel:
    """Loads what :func:`aoti` wrote, and the libraries that it needs.

    Raises:
        DeployError: As for :func:`gnnscript.load`.
    """
    manifest = read_manifest(Path(path))
    provide(manifest, Path(path).resolve().parent)
    return CompiledModel(path, [spec.name for spec in manifest.inputs], manifest)


def _manifest(model: nn.Module, exported: Exported, check: Any) -> tuple[Manifest, list[Path]]:
    ops = sorted(
        {
            str(node.target._schema.name)
            for node in exported.program.graph.nodes
            if isinstance(node.target, torch._ops.OpOverload)
        }
    )
    libraries = libraries_for(ops)
    manifest = Manifest(
        model=type(model).__name__,
        kernels="native" if is_native(ops) else "portable",
        versions=versions(),
        arguments=exported.arguments,
        inputs=exported.signature.inputs,
        outputs=exported.signature.outputs,
        symbols=exported.signature.symbols,
        ops=tuple(ops),
        libraries=tuple(libraries.values()),
        check=check,
    )
    return manifest, list(libraries)

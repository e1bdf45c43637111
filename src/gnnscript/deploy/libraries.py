"""The op libraries that a model needs: which they are, and whether they are here."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from gnnscript._errors import GnnscriptError
from gnnscript.deploy.manifest import DeployError, Library, Manifest
from gnnscript.ops import library as own

__all__ = ["libraries_for", "ops_of", "provide", "sha256_of"]

_NAMESPACE = "gnnscript::"
_CUDA = "_cuda"
# What every libtorch has.
_BUILTIN = frozenset({"aten", "prim", "prims", "quantized", "_quantized", "c10d", "inductor"})


def ops_of(scripted: torch.jit.ScriptModule) -> tuple[str, ...]:
    """The names of all ops in a scripted model, those that any of its methods calls."""
    names: set[str] = set()
    for module in scripted.modules():
        methods: Any = getattr(module, "_c", None)
        for name in methods._method_names() if methods is not None else ():
            _collect(methods._get_method(name).inlined_graph, names)
    return tuple(sorted(names))


def _collect(block: Any, names: set[str]) -> None:
    for node in block.nodes():
        # What is under `prim::` is the language's own: constants, tuples, loops, tests.
        if not node.kind().startswith("prim::"):
            names.add(node.kind())
        for inner in node.blocks():
            _collect(inner, names)
        for attribute in node.attributeNames():
            if node.kindOf(attribute) == "g":
                _collect(node.g(attribute), names)


def is_native(ops: Iterable[str]) -> bool:
    """Whether any of the ops is of gnnscript's own libraries."""
    return any(op.startswith(_NAMESPACE) for op in ops)


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def loaded() -> list[Path]:
    """The libraries of gnnscript that this process has loaded."""
    paths = (Path(path) for path in torch.ops.loaded_libraries)
    return sorted(path for path in paths if path.name.startswith("libgnnscript"))


def schema_of(op: str) -> str | None:
    """The schema of an op that is registered here."""
    schemas: list[Any] = torch._C._jit_get_schemas_for_operator(op)
    return str(schemas[0]) if schemas else None


def libraries_for(ops: Iterable[str]) -> dict[Path, Library]:
    """The libraries that have the ops of gnnscript's among these, as they go into a manifest.

    The library of CUDA kernels declares no ops; its entry has none.
    """
    schemas = tuple(
        schema for op in ops if op.startswith(_NAMESPACE) and (schema := schema_of(op)) is not None
    )
    if not schemas:
        return {}
    found: dict[Path, Library] = {}
    for path in loaded():
        if not path.stem.endswith(_CUDA):
            found[path] = Library(path.name, sha256_of(path), schemas)
            cuda = path.with_stem(path.stem + _CUDA)
            if cuda.is_file():  # also where this torch has no CUDA: the model goes elsewhere
                found[cuda] = Library(cuda.name, sha256_of(cuda), ())
    return found


def provide(manifest: Manifest, folder: Path) -> None:
    """Makes sure that all ops of a model are registered, loading libraries where they are not.

    What decides is the schemas of the ops: the checksum says which file to look for.

    Args:
        manifest: What the model says of itself.
        folder: Where its libraries lie.

    Raises:
        DeployError: An op is missing or has another schema; says which library to load.
    """
    for library in manifest.libraries:
        if not library.ops:  # that of CUDA kernels
            if torch.cuda.is_available() and not _is_loaded(library):
                _load(library, folder)
            continue
        if not any(schema_of(_name(schema)) for schema in library.ops):
            with contextlib.suppress(GnnscriptError):  # ours first: it has gradients as well
                own.load()
        if not any(schema_of(_name(schema)) for schema in library.ops):
            _load(library, folder)
        for schema in library.ops:
            found = schema_of(_name(schema))
            if found != schema:
                has = "no such op" if found is None else f"'{found}'"
                raise DeployError(
                    f"the model calls '{schema}', and the library loaded here has {has}; load "
                    f"the {library.file} with sha256 {library.sha256}, in a process that has "
                    "not loaded another"
                )
    for op in manifest.ops:
        namespace = op.split("::")[0]
        if namespace not in _BUILTIN and schema_of(op) is None:
            raise DeployError(
                f"the model calls '{op}', which is not registered here; load the library that "
                f"has the ops '{namespace}::' first (in Python import its package)"
            )


def _name(schema: str) -> str:
    return re.split(r"[.(]", schema, maxsplit=1)[0]


def _is_loaded(library: Library) -> bool:
    return any(path.name == library.file for path in loaded())


def _load(library: Library, folder: Path) -> None:
    path = folder / library.file
    if not path.is_file():
        raise DeployError(
            f"the model needs {library.file}, and there is no '{path}'; put the file with sha256 "
            f"{library.sha256} there"
        )
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise DeployError(
            f"'{path}' does not load ({error}); put the {library.file} with sha256 "
            f"{library.sha256} there, and use the torch that it was built for or a later one"
        ) from error

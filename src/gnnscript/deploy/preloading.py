"""What the libtorch backend of a server needs loaded before it."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

from gnnscript.deploy.installation import Installation, ServerError, linked

__all__ = ["preloading"]


def preloading(
    repository: Path, installation: Installation, environment: dict[str, str], folder: Path
) -> dict[str, str]:
    """The environment of a server in which models of native ops load in the libtorch backend.

    That knows torch's ops alone, so the library of the others is loaded before it, and finds torch
    where the backend does. The ``run.sh`` of a repository does the same.

    Args:
        repository: The model repository.
        installation: The server.
        environment: Its environment otherwise.
        folder: A folder that may be made, of links: a path that is preloaded has no spaces.

    Raises:
        ServerError: Models in the repository need libraries that differ.
    """
    libraries = _libraries(repository)
    backend = installation.backend("pytorch")
    if not libraries or backend is None:
        return environment
    folder.mkdir()
    for library in libraries:
        (folder / library.name).symlink_to(library)
    torch = linked(backend.resolve(), environment).get("libtorch_cpu.so")
    folders = [] if torch is None else [str(torch.parent)]
    folders += filter(None, [environment.get("LD_LIBRARY_PATH")])
    loaded = [*map(str, sorted(folder.iterdir())), *filter(None, [environment.get("LD_PRELOAD")])]
    return {
        **environment,
        "LD_LIBRARY_PATH": os.pathsep.join(folders),
        "LD_PRELOAD": " ".join(loaded),
    }


def _libraries(repository: Path) -> list[Path]:
    """The libraries of native ops beside models of the libtorch backend, each once."""
    found: dict[str, Path] = {}
    for library in sorted(repository.absolute().glob("*/*/libgnnscript*.so")):
        if (library.parent / "model.py").exists():  # it loads its own
            continue
        first = found.setdefault(library.name, library)
        if not filecmp.cmp(first, library, shallow=False):
            raise ServerError(
                f"'{first}' and '{library}' differ, and a server can load one of them; export "
                "these models again, with one gnnscript"
            )
    return list(found.values())

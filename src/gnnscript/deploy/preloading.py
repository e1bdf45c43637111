"""What the libtorch backend of a server needs loaded before it."""

from __future__ import annotations

import filecmp
import os
import subprocess
from pathlib import Path

from gnnscript.deploy.installation import Installation, ServerError, linked

__all__ = ["preloading"]


def preloading(
    repository: Path, installation: Installation, environment: dict[str, str], folder: Path
) -> list[str]:
    """What stands in front of a server's command, for models of native ops in its libtorch backend.

    That knows torch's ops alone, so the library of the others is loaded before it, and finds torch
    where the backend does. The dynamic linker does so for the server alone: by ``LD_PRELOAD``, the
    processes of Python models would get both as well, and may have another torch. The ``run.sh`` of
    a repository does the same.

    Args:
        repository: The model repository.
        installation: The server.
        environment: Its environment.
        folder: A folder that may be made, of links: a path that is preloaded has no spaces.

    Raises:
        ServerError: Models in the repository need libraries that differ, or the server is not an
            executable that the dynamic linker starts.
    """
    libraries = _libraries(repository)
    backend = installation.backend("pytorch")
    if not libraries or backend is None:
        return []
    loader = _loader(installation.executable, environment)
    folder.mkdir()
    for library in libraries:
        (folder / library.name).symlink_to(library)
    torch = linked(backend.resolve(), environment).get("libtorch_cpu.so")
    folders = [] if torch is None else [str(torch.parent)]
    folders += filter(None, [environment.get("LD_LIBRARY_PATH")])
    loaded = " ".join(map(str, sorted(folder.iterdir())))
    return [str(loader), "--preload", loaded, "--library-path", os.pathsep.join(folders)]


def _loader(executable: Path, environment: dict[str, str]) -> Path:
    """The dynamic linker of an executable."""
    listed = subprocess.run(
        ["ldd", str(executable)], env=environment, capture_output=True, text=True, check=False
    ).stdout
    for line in listed.splitlines():
        path = line.split("(")[0].strip()
        if path.startswith("/") and Path(path).name.startswith("ld"):
            return Path(path)
    raise ServerError(
        f"'{executable}' is no executable of its own, so that the library of native ops cannot be "
        "loaded into it; put the tritonserver that it starts on the path"
    )


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

"""Triton Inference Server on this machine: found or installed, and the environment it runs in.

The server is the ``tritonserver`` on the path, or the one in the wheel ``nvidia-pytriton``. Of the
wheel only the binaries are used, so it is unpacked into a folder of its own, without the packages
that it asks for: nothing in the Python environment changes.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from gnnscript._errors import GnnscriptError

__all__ = [
    "WHEEL",
    "Installation",
    "ServerError",
    "check_libraries",
    "environment_for",
    "find_server",
    "install_server",
    "linked",
]

WHEEL = "nvidia-pytriton==0.7.0"
"""The wheel whose server is used where none is on the path: Triton 2.51."""

# Where Triton looks for backends unless it is told otherwise.
_BACKENDS = Path("/opt/tritonserver/backends")


class ServerError(GnnscriptError):
    """There is no server, it does not start, or a model in its repository does not load."""


@dataclass(frozen=True)
class Installation:
    """Where a Triton Inference Server is.

    Args:
        executable: The file ``tritonserver``.
        backends: The folder of its backends, or None for its own default.
        libraries: Folders that its shared libraries are in.
        further: A folder of further backends, such as ``pytorch``, each in a folder of its own;
            they stand in for those of the same name.
    """

    executable: Path
    backends: Path | None = None
    libraries: tuple[Path, ...] = ()
    further: Path | None = None

    def backend(self, name: str) -> Path | None:
        """The library of a backend, such as ``pytorch``; None where the server does not have it."""
        for folder in (self.further, self.backends or _BACKENDS):
            if folder is not None and (found := folder / name / f"libtriton_{name}.so").is_file():
                return found
        return None

    def gathered(self, folder: Path) -> Path | None:
        """The folder in which the server finds all of its backends; None for its own default.

        Args:
            folder: A folder that may be made, of links, where backends come from two.
        """
        if self.further is None:
            return self.backends
        folder.mkdir()
        for source in (self.further, self.backends or _BACKENDS):
            for backend in source.iterdir() if source.is_dir() else ():
                if backend.is_dir() and not (folder / backend.name).exists():
                    (folder / backend.name).symlink_to(backend.absolute())
        return folder


_SHARE = Path(sys.prefix, "share", "gnnscript")


def _home() -> Path:
    named = os.environ.get("GNNSCRIPT_TRITON")
    return Path(named) if named else _SHARE / "triton"


def _further(named: str | Path | None) -> Path | None:
    """The folder of further backends that was named, or else that of ``make libtorch-backend``."""
    named = named or os.environ.get("GNNSCRIPT_TRITON_BACKENDS")
    folder = Path(named).absolute() if named else _SHARE / "backends"
    if any(folder.glob("*/libtriton_*.so")):
        return folder
    if named:
        raise ServerError(
            f"there are no backends in '{folder}'; expected such as pytorch/libtriton_pytorch.so"
        )
    return None


def install_server(folder: str | Path | None = None) -> Installation:
    """Unpacks the server of the wheel `WHEEL` into a folder, with pip.

    Its Python backend is put together for the version of Python that runs: models run in that
    Python, with the packages of this environment.

    Args:
        folder: Where to; by default the environment variable ``GNNSCRIPT_TRITON``, or else
            ``share/gnnscript/triton`` in this Python environment. What is there is replaced.

    Returns:
        Where the server is. :func:`find_server` finds it in the default folder.

    Raises:
        ServerError: pip cannot install the wheel (it exists for Linux, glibc 2.35 and later), or
            it has no backend for this version of Python.
    """
    home = Path(folder) if folder is not None else _home()
    home.parent.mkdir(parents=True, exist_ok=True)
    # All or nothing: an installation that was interrupted must not be found later.
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".triton-") as temporary:
        wheel = Path(temporary) / "wheel"
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        completed = subprocess.run(
            [*command, "--no-deps", "--only-binary=:all:", "--target", str(wheel), WHEEL],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if completed.returncode:
            raise ServerError(
                f"pip could not install {WHEEL}, which has the server for Linux with glibc 2.35 or "
                "later; elsewhere put a tritonserver on the path:\n"
                f"{completed.stderr[-2000:].strip()}"
            )
        ready = Path(temporary) / "ready"
        _assemble(wheel, ready)
        if home.exists():
            shutil.rmtree(home)
        ready.rename(home)
    found = _installed(home)
    assert found is not None
    return found


def _assemble(wheel: Path, ready: Path) -> None:
    """Arranges what the wheel holds as the server wants it."""
    server = wheel / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerError(
            f"{WHEEL} has no Python backend for Python {version}; use one of "
            f"{', '.join(sorted(folder.name for folder in stub.parents[1].iterdir()))}"
        )
    ready.mkdir()
    (wheel / "nvidia_pytriton.libs").rename(ready / "lib")
    (server / "bin").rename(ready / "bin")
    (server / "backends").rename(ready / "backends")
    shutil.copy(stub, ready / "backends" / "python")
    for file in (ready / "bin" / "tritonserver", ready / "backends" / "python" / stub.name):
        file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    (ready / "python").write_text(version + "\n", encoding="utf-8")


def _installed(home: Path) -> Installation | None:
    executable = home / "bin" / "tritonserver"
    if not executable.is_file():
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    made_for = (home / "python").read_text(encoding="utf-8").strip()
    if made_for != version:
        raise ServerError(
            f"the server in '{home}' was installed for Python {made_for}, and this is {version}; "
            "run: gnnscript serve --install"
        )
    return Installation(executable, home / "backends", (home / "lib",))


def find_server(backends: str | Path | None = None) -> Installation:
    """The server on the path, or else the one that :func:`install_server` has installed.

    Args:
        backends: A folder of further backends, such as ``pytorch``, which the wheel does not have,
            each in a folder of its own; by default the environment variable
            ``GNNSCRIPT_TRITON_BACKENDS``, or ``share/gnnscript/backends`` in this Python
            environment, where ``make libtorch-backend`` puts one.

    Raises:
        ServerError: There is neither, or no such folder.
    """
    further = _further(backends)
    on_path = shutil.which("tritonserver")
    if on_path is not None and "GNNSCRIPT_TRITON" not in os.environ:
        return Installation(Path(on_path), further=further)
    installed = _installed(_home())
    if installed is None:
        raise ServerError(
            f"there is no tritonserver on the path, nor in '{_home()}'; install one by: "
            "gnnscript serve --install"
        )
    return replace(installed, further=further)


def environment_for(installation: Installation) -> dict[str, str]:
    """The environment in which the server finds its libraries, and its models this Python."""
    environment = dict(os.environ)
    libraries = [str(folder) for folder in installation.libraries]
    if installation.libraries:
        libraries.append(str(sysconfig.get_config_var("LIBDIR")))
        # The stub embeds Python, which looks for its packages beside the first python3 on the path.
        if sys.prefix != sys.base_prefix:
            folders = [str(Path(sys.prefix) / "bin"), environment.get("PATH", os.defpath)]
            environment["PATH"] = os.pathsep.join(folders)
            environment.pop("PYTHONHOME", None)
        else:
            environment["PYTHONHOME"] = sys.base_prefix
    # Large tensors come and go with each request: in large pages that costs a third less time.
    environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    libraries += [p for p in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return environment


def linked(file: Path, environment: dict[str, str]) -> dict[str, Path | None]:
    """The shared libraries that a file is linked with: by name, where each is found, if it is."""
    listed = subprocess.run(
        ["ldd", str(file)], env=environment, capture_output=True, text=True, check=False
    ).stdout
    rows = [line.split() for line in listed.splitlines() if "=>" in line]
    return {row[0]: Path(row[2]) if row[2].startswith("/") else None for row in rows}


def check_libraries(installation: Installation, environment: dict[str, str]) -> None:
    """Raises ServerError where the Python backend would not find what it is linked with."""
    if installation.backends is None:
        return
    stub = installation.backends / "python" / "triton_python_backend_stub"
    missing = [name for name, file in linked(stub, environment).items() if file is None]
    if missing:
        raise ServerError(
            f"the server's Python backend needs {', '.join(missing)}, which is not found; "
            "use a Python with a shared library (Debian and Ubuntu: install "
            f"libpython3.{sys.version_info.minor}), or add its folder to LD_LIBRARY_PATH"
        )

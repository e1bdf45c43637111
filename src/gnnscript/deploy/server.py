"""Triton Inference Server as a process: found or installed, started, watched and stopped.

The server is the ``tritonserver`` on the path, or the one in the wheel ``nvidia-pytriton``. Of the
wheel only the binaries are used, so it is unpacked into a folder of its own, without the packages
that it asks for: nothing in the Python environment changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from typing_extensions import Self

from gnnscript._errors import GnnscriptError
from gnnscript.deploy.revival import OPTIONS, Reviver, mirror

__all__ = ["WHEEL", "Installation", "Server", "ServerError", "find_server", "install_server"]

WHEEL = "nvidia-pytriton==0.7.0"
"""The wheel whose server is used where none is on the path: Triton 2.51."""

LOOPBACK = "127.0.0.1"


class ServerError(GnnscriptError):
    """There is no server, it does not start, or a model in its repository does not load."""


@dataclass(frozen=True)
class Installation:
    """Where a Triton Inference Server is.

    Args:
        executable: The file ``tritonserver``.
        backends: The folder of its backends, or None for its own default.
        libraries: Folders that its shared libraries are in.
    """

    executable: Path
    backends: Path | None = None
    libraries: tuple[Path, ...] = ()


def _home() -> Path:
    named = os.environ.get("GNNSCRIPT_TRITON")
    return Path(named) if named else Path(sys.prefix) / "share" / "gnnscript" / "triton"


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


def find_server() -> Installation:
    """The server on the path, or else the one that :func:`install_server` has installed.

    Raises:
        ServerError: There is neither.
    """
    on_path = shutil.which("tritonserver")
    if on_path is not None and "GNNSCRIPT_TRITON" not in os.environ:
        return Installation(Path(on_path))
    installed = _installed(_home())
    if installed is None:
        raise ServerError(
            f"there is no tritonserver on the path, nor in '{_home()}'; install one by: "
            "gnnscript serve --install"
        )
    return installed


def _environment(installation: Installation) -> dict[str, str]:
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


def _check_libraries(installation: Installation, environment: dict[str, str]) -> None:
    if installation.backends is None:
        return
    stub = installation.backends / "python" / "triton_python_backend_stub"
    listed = subprocess.run(
        ["ldd", str(stub)], env=environment, capture_output=True, text=True, check=False
    ).stdout
    missing = [line.split()[0] for line in listed.splitlines() if "not found" in line]
    if missing:
        raise ServerError(
            f"the server's Python backend needs {', '.join(missing)}, which is not found; "
            "use a Python with a shared library (Debian and Ubuntu: install "
            f"libpython3.{sys.version_info.minor}), or add its folder to LD_LIBRARY_PATH"
        )


def _check_port(address: str, port: int) -> None:
    """Raises ServerError where something listens on a port: it would be taken for the server."""
    try:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as probe:
            # Connections that a server before has left to time out are not in the way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        raise ServerError(
            f"cannot listen on port {port} of '{address}' ({error.strerror}); stop what does, or "
            "choose another port"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A Triton Inference Server that serves a model repository.

    It is started by :meth:`start` or at the beginning of a ``with`` block, and stopped at its end.

    Args:
        repository: The model repository.
        address: The address it listens on; the default is reached from this machine alone.
        http_port: Port for HTTP; None takes a free one.
        grpc_port: Port for gRPC; None takes a free one.
        metrics_port: Port of the metrics in the form of Prometheus; None takes a free one.
        installation: Where the server is; by default :func:`find_server` looks for it.
        options: More options of ``tritonserver``, each as ``--name=value``.
        revive: Whether a model whose process has died, for want of memory, say, is loaded again
            (Python backend, Linux). Then the server serves a mirror of the repository, made of
            links, and takes up files that change while it runs.
        log: A file that the server writes its log to, or None for a temporary one, whose end is
            quoted where the server does not start. ``"-"`` leaves it on the standard error.

    Attributes:
        http_url: Such as ``http://127.0.0.1:8000``.
        grpc_url: Such as ``grpc://127.0.0.1:8001``.
        metrics_url: Such as ``http://127.0.0.1:8002/metrics``.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        address: str = LOOPBACK,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        installation: Installation | None = None,
        options: tuple[str, ...] = (),
        revive: bool = True,
        log: str | Path | None = None,
    ) -> None:
        self.repository = Path(repository)
        if not self.repository.is_dir():
            raise ServerError(f"there is no model repository '{self.repository}'")
        self._installation = installation if installation is not None else find_server()
        self._environment = _environment(self._installation)
        _check_libraries(self._installation, self._environment)
        self._address = address
        self._options = options
        # A server that is told otherwise about its repository is left to whoever tells it.
        self._revive = revive and not any("model-control-mode" in option for option in options)
        self._reviver: Reviver | None = None
        self._ports = tuple(port or _free_port() for port in (http_port, grpc_port, metrics_port))
        # Wildcard addresses are for listening; this process talks to its own machine.
        host = LOOPBACK if address in ("0.0.0.0", "") else address
        self.http_url = f"http://{host}:{self._ports[0]}"
        self.grpc_url = f"grpc://{host}:{self._ports[1]}"
        self.metrics_url = f"http://{host}:{self._ports[2]}/metrics"
        self._log = log
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process of the server, or None where it does not run."""
        return None if self._process is None else self._process.pid

    def start(self, timeout: float = 120.0) -> Self:
        """Starts the server and waits until all of its models are ready.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            ServerError: A port is in use, a model does not load, or the server ends or is not
                ready in time.
        """
        if self._process is not None:
            raise ServerError("the server runs already")
        http, grpc, metrics = self._ports
        for port in self._ports:
            _check_port(self._address, port)
        repository = self.repository
        if self._revive:
            repository = mirror(repository, self._own_folder() / "models")
        # Its own prefix tells the shared memory that a killed server leaves behind.
        self._shared = f"gnnscript-{os.getpid()}-{http}-"
        command = [
            str(self._installation.executable),
            f"--model-repository={repository}",
            f"--http-address={self._address}",
            f"--http-port={http}",
            f"--grpc-address={self._address}",
            f"--grpc-port={grpc}",
            f"--metrics-address={self._address}",
            f"--metrics-port={metrics}",
            "--exit-on-error=false",  # so that the reason can be asked for
            f"--backend-config=python,shm-region-prefix-name={self._shared}",
            *(OPTIONS if self._revive else ()),
            *self._options,
        ]
        if self._installation.backends is not None:
            command.append(f"--backend-directory={self._installation.backends}")
        with contextlib.ExitStack() as stack:
            stream: IO[bytes] | None = None
            if self._log != "-":
                stream = stack.enter_context(self._log_file().open("wb"))
            # A group of its own: what is typed in a terminal reaches the caller, who stops it.
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=None if stream is None else subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(self._process, timeout)
        except BaseException:
            self.stop()
            raise
        if self._revive:
            self._reviver = Reviver(self._process.pid, repository)
        return self

    def _log_file(self) -> Path:
        if self._log is not None:
            return Path(self._log)
        return self._own_folder() / "log"

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="gnnscript-server-")
        return Path(self._folder.name)

    def log(self) -> str:
        """What the server has written so far; empty where it writes to the standard error."""
        if self._log == "-" or (self._log is None and self._folder is None):
            return ""
        return self._log_file().read_text(encoding="utf-8", errors="replace")

    def _wait(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        failed: dict[str, str] = {}
        while not self.ready():
            if process.poll() is not None:
                raise ServerError(
                    f"the server ended with exit code {process.returncode}:\n{self.log()[-3000:]}"
                )
            # A model that failed may be tried again at this moment, and have no reason now.
            failed |= self.failures()
            late = time.monotonic() > deadline
            settled = all(
                m["name"] in failed or m.get("state", "READY") == "READY" for m in self._index()
            )
            if failed and (settled or late):
                raise self._not_loaded({**failed, **self._passed_over()})
            if late:
                raise ServerError(
                    f"the server was not ready after {timeout:g} s, and many models may take "
                    f"longer, which `timeout` grants:\n{self.log()[-3000:]}"
                )
            time.sleep(0.05)
        if passed_over := self._passed_over():
            raise self._not_loaded(passed_over)

    def _not_loaded(self, reasons: dict[str, str]) -> ServerError:
        lines = [f"{name}: {reason}" for name, reason in reasons.items()]
        if self._installation.backends is not None and any("'pytorch'" in line for line in lines):
            lines.append(
                "the server that gnnscript installs has the Python backend alone: export with "
                "backend='python', or start run.sh where a full Triton is"
            )
        text = "\n".join(lines)
        return ServerError(f"models in '{self.repository}' do not load:\n{text}")

    def _passed_over(self) -> dict[str, str]:
        """The models whose configuration the server cannot read: it is ready without them."""
        if any("model-control-mode" in option for option in self._options):
            return {}
        reasons = {}
        # Of a mirror that is gone when this is read, the original is named.
        log = self.log().replace(str(self._own_folder() / "models"), str(self.repository))
        for model in self._index():
            name = model["name"]
            if "state" in model or not (self.repository / name / "config.pbtxt").exists():
                continue
            found = re.search(rf"Poll failed for model directory '{re.escape(name)}': (.*)\"", log)
            if found is None:
                reasons[name] = "its configuration cannot be read; see the server's log"
                continue
            # What is wrong in the text stands in the line before.
            before = log[: found.start()].splitlines()[-2:-1]
            details = [line.partition("ModelConfig: ")[2] for line in before]
            reasons[name] = ": ".join([found[1], *filter(None, details)])
        return reasons

    def ready(self) -> bool:
        """Whether the server and all of its models are ready."""
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def failures(self) -> dict[str, str]:
        """The models that did not load, with the server's reason for each."""
        return {
            model["name"]: model["reason"]
            for model in self._index()
            if model.get("state") == "UNAVAILABLE" and model.get("reason")
        }

    def _index(self) -> list[dict[str, str]]:
        request = urllib.request.Request(
            f"{self.http_url}/v2/repository/index", data=b"{}", method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                models: list[dict[str, str]] = json.load(answer)
        except (OSError, ValueError):
            return []
        return models

    def stop(self, timeout: float = 40.0) -> None:
        """Stops the server: requests in progress are answered first. May be called twice.

        Args:
            timeout: Seconds after which it is killed.
        """
        if self._reviver is not None:
            self._reviver.stop()
            self._reviver = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            # Where it died, the processes of its models do not notice: they are in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None
            for left in Path("/dev/shm").glob(f"{self._shared}*"):
                left.unlink(missing_ok=True)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def kill(self) -> None:
        """Ends the server at once, as a failure does: requests in progress are lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.stop()

    def wait(self) -> int:
        """Waits until the server ends by itself, and returns its exit code."""
        if self._process is None:
            raise ServerError("the server does not run")
        return self._process.wait()

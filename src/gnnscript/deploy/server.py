"""Triton Inference Server as a process: started, watched and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO

from typing_extensions import Self

from gnnscript.deploy.installation import (
    Installation,
    ServerError,
    check_libraries,
    environment_for,
    find_server,
)
from gnnscript.deploy.preloading import preloading
from gnnscript.deploy.revival import OPTIONS, Mirror, Reviver

__all__ = ["LOOPBACK", "Server"]

LOOPBACK = "127.0.0.1"


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
            links, and takes up what is exported while it runs: models, versions and files.
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
        self._environment = environment_for(self._installation)
        check_libraries(self._installation, self._environment)
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
        for port in self._ports:
            _check_port(self._address, port)
        try:
            mirror = None
            if self._revive:
                mirror = Mirror(self.repository, self._own_folder() / "mirror")
            self._process = self._launched(self.repository if mirror is None else mirror.models)
            self._wait(self._process, timeout)
        except BaseException:
            self.stop()
            raise
        if mirror is not None:
            self._reviver = Reviver(self._process.pid, mirror)
        return self

    def _launched(self, repository: Path) -> subprocess.Popen[bytes]:
        http, grpc, metrics = self._ports
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
        folder = self._own_folder()
        backends = self._installation.gathered(folder / "backends")
        if backends is not None:
            command.append(f"--backend-directory={backends}")
        before = preloading(
            self.repository, self._installation, self._environment, folder / "preloaded"
        )
        with contextlib.ExitStack() as stack:
            stream: IO[bytes] | None = None
            if self._log != "-":
                stream = stack.enter_context(self._log_file().open("wb"))
            # A group of its own: what is typed in a terminal reaches the caller, who stops it.
            return subprocess.Popen(
                [*before, *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=None if stream is None else subprocess.STDOUT,
                start_new_session=True,
            )

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
        if any("unable to find backend library for backend 'pytorch'" in line for line in lines):
            lines.append(
                "the server that gnnscript installs has the Python backend alone: export with "
                "backend='python', name a folder with the libtorch backend (gnnscript serve "
                "--backends), or start run.sh where a full Triton is"
            )
        if any("gnnscript::" in line for line in lines):
            lines.append(
                "native ops are loaded from the library beside the model when the server starts: "
                "export the model again if it is missing, and start the server again"
            )
        text = "\n".join(lines)
        return ServerError(f"models in '{self.repository}' do not load:\n{text}")

    def _passed_over(self) -> dict[str, str]:
        """The models whose configuration the server cannot read: it is ready without them."""
        if any("model-control-mode" in option for option in self._options):
            return {}
        reasons = {}
        # Of a mirror that is gone when this is read, the original is named.
        mirror = self._own_folder() / "mirror" / "models"
        log = self.log().replace(str(mirror), str(self.repository))
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

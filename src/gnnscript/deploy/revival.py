"""Brings back models whose process in the Python backend has died.

Triton does not start such a process again: it answers ``is not healthy`` from then on, and still
calls the model ready. What it does is to load a model again whose files have changed, in a new
process, and to hand over when that is ready. So the server is given a mirror of the repository,
folders of links, and the loss of a process is answered by a new file in the folder of its model.
No door is opened for that, as the repository API would be one, and nothing is written to the
repository.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

__all__ = ["OPTIONS", "Reviver", "mirror"]

OPTIONS = ("--model-control-mode=poll", "--repository-poll-secs=1")
"""What the server is started with, to see that files have changed."""

_INTERVAL = 0.25
_MARK = ".gnnscript-revived"
_log = logging.getLogger(__name__)


def mirror(repository: Path, folder: Path) -> Path:
    """Makes a folder in which the server finds all models of a repository.

    Args:
        repository: The model repository.
        folder: Where to; a new folder.

    Returns:
        That folder: real folders for models and their versions, links for all that they hold.
    """
    folder.mkdir()
    for model in repository.resolve().iterdir():
        if not model.is_dir() or model.name.startswith("."):
            continue
        (folder / model.name).mkdir()
        for entry in model.iterdir():
            target = folder / model.name / entry.name
            if not (entry.is_dir() and entry.name.isdecimal()):
                target.symlink_to(entry)
                continue
            target.mkdir()
            # The backend's Python caches what it compiles, which would count as a change, and
            # cannot where a file stands in the way.
            (target / "__pycache__").touch()
            for file in entry.iterdir():
                if file.name != "__pycache__":
                    (target / file.name).symlink_to(file)
    return folder


class Reviver:
    """Watches the processes of a server's models.

    Args:
        server: The process of the server.
        folder: The mirror that it serves.
    """

    def __init__(self, server: int, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._versions: dict[int, Path] = {}  # of each process the folder of its model's version
        self._lost: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gnnscript-reviver", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            for process in self._children():
                self._look_at(process)

    def _look_at(self, process: int) -> None:
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
            if state.split()[0] != "Z":
                if process not in self._versions:
                    self._note(process)
                return
        except OSError:
            return
        # Those that Triton ends it also waits for; one that has died by itself remains a zombie.
        version = self._versions.get(process)
        if version is None or process in self._lost:
            return
        self._lost.add(process)
        _log.warning(
            "the process %d of the model '%s' has died; the model is loaded again",
            process,
            version.parent.name,
        )
        with contextlib.suppress(OSError):  # the server is being stopped
            (version / _MARK).write_text(str(process), encoding="utf-8")

    def _note(self, process: int) -> None:
        command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        for part in command[1:2]:
            file = Path(part.decode(errors="replace"))
            if self._folder in file.parents:
                self._versions[process] = file.parent

    def _children(self) -> list[int]:
        found: list[int] = []
        for file in Path(f"/proc/{self._server}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, file.read_text(encoding="utf-8").split())
        return found

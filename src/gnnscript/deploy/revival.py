"""Brings back models whose process in the Python backend has died.

Triton does not start such a process again: it answers ``is not healthy`` from then on, and still
calls the model ready. What it does is to load a model again whose files have changed, in a new
process, and to hand over when that is ready. So the server is given a mirror of the repository,
folders of links, and the loss of a process is answered by a new file in the folder of its model.
The mirror follows the repository, so that new models and versions are taken up.
No door is opened for that, as the repository API would be one, and nothing is written to the
repository.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["OPTIONS", "Mirror", "Reviver"]

OPTIONS = ("--model-control-mode=poll", "--repository-poll-secs=1")
"""What the server is started with, to see that files have changed."""

_INTERVAL = 0.25
_MOMENT = 0.05
_MARK = ".gnnscript-revived"
_CACHE = "__pycache__"
_log = logging.getLogger(__name__)


class Mirror:
    """A folder in which the server finds all models of a repository, and what becomes of them.

    It holds real folders for models and their versions, and links for all that these hold.

    Args:
        repository: The model repository.
        folder: A new folder, in which two are made: ``models``, and one to put things together in.

    Attributes:
        models: What the server is given.
    """

    def __init__(self, repository: Path, folder: Path) -> None:
        self._repository = repository.resolve()
        self._workshop = folder / "workshop"
        self._workshop.mkdir(parents=True)
        self.models = folder / "models"
        self.models.mkdir()
        self.update()

    def update(self) -> None:
        """Follows the repository: new models, versions and files come, others go."""
        if missing := self._follow():
            time.sleep(_MOMENT)  # what is replaced is away for one
            for path in missing & self._follow():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _follow(self) -> set[Path]:
        """Adds what the repository has; returns what it no longer has."""
        models = [f for f in self._repository.iterdir() if f.is_dir() and f.name[0] != "."]
        missing = self._gone(self.models, models)
        for model in models:
            self._add(model, self.models / model.name, self._fill_model)
            missing |= self._fill_model(model, self.models / model.name)
        return missing

    def _add(self, source: Path, target: Path, fill: Callable[[Path, Path], object]) -> None:
        """Makes a folder, in one step: the server may be looking."""
        if not target.exists():
            made = Path(tempfile.mkdtemp(dir=self._workshop))
            fill(source, made)
            made.chmod(0o755)
            made.rename(target)

    def _fill_model(self, source: Path, target: Path) -> set[Path]:
        """Adds what a model has; returns what it no longer has."""
        entries = list(source.iterdir())
        missing = self._gone(target, entries)
        for entry in entries:
            if entry.is_dir() and entry.name.isdecimal():
                self._add(entry, target / entry.name, self._fill_version)
                missing |= self._fill_version(entry, target / entry.name)
            elif not (target / entry.name).is_symlink():
                (target / entry.name).symlink_to(entry)
        return missing

    def _fill_version(self, source: Path, target: Path) -> set[Path]:
        # The backend's Python caches what it compiles, which would count as a change, and cannot
        # where a file stands in the way.
        if not (target / _CACHE).exists():
            (target / _CACHE).touch()
        entries = [file for file in source.iterdir() if file.name != _CACHE]
        for file in entries:
            if not (target / file.name).is_symlink():
                (target / file.name).symlink_to(file)
        return {p for p in self._gone(target, entries) if p.name not in (_CACHE, _MARK)}

    @staticmethod
    def _gone(target: Path, entries: list[Path]) -> set[Path]:
        names = {entry.name for entry in entries}
        return {path for path in target.iterdir() if path.name not in names}


class Reviver:
    """Watches the processes of a server's models, and the repository.

    Args:
        server: The process of the server.
        mirror: The mirror that it serves.
    """

    def __init__(self, server: int, mirror: Mirror) -> None:
        self._server = server
        self._mirror = mirror
        self._folder = mirror.models
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
            with contextlib.suppress(OSError):  # a disk may be away for a time
                self._mirror.update()

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

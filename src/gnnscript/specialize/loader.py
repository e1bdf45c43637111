"""Turns generated source into modules that live in memory and show their source."""

from __future__ import annotations

import collections
import importlib.machinery
import importlib.util
import itertools
import sys
import threading
import types
from pathlib import Path
from typing import Any

__all__ = ["load", "load_file", "unload"]

_lock = threading.Lock()
_numbers = itertools.count(1)
_unloaded: collections.deque[str] = collections.deque()


class _SourceLoader:
    """Gives ``inspect``, ``linecache`` and debuggers the text of a generated module."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        """The text of the module (PEP 302)."""
        return self.text

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002
        """The file name that its code objects carry."""
        return f"{self.name.replace('.', '/')}.py"

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002
        """Generated modules have no submodules."""
        return False


def load(name: str, text: str, captured: dict[str, Any] | None = None) -> types.ModuleType:
    """Executes source text as a new module.

    Args:
        name: The module's name; a number is added that makes it unique.
        text: Its source.
        captured: Objects that the text uses by name and that cannot be imported.

    Returns:
        The module, registered in ``sys.modules`` so that ``inspect.getsource``, tracebacks and
        debuggers find its text. Its file name is not of the form ``<...>``: for those, loaders
        are not asked, and TorchScript files whose class names contain ``<`` do not load.
    """
    with _lock:
        while _unloaded:
            sys.modules.pop(_unloaded.popleft(), None)
        unique = f"{name}_{next(_numbers)}"
    loader = _SourceLoader(unique, text)
    file = loader.get_filename(unique)
    module = types.ModuleType(unique)
    spec = importlib.machinery.ModuleSpec(unique, loader, origin=file)  # type: ignore[arg-type]
    module.__file__ = file
    module.__loader__ = loader  # type: ignore[assignment]
    module.__spec__ = spec
    vars(module).update(captured or {})
    code = compile(text, file, "exec", dont_inherit=True)
    sys.modules[unique] = module
    try:
        exec(code, vars(module))
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def load_file(path: Path) -> types.ModuleType:
    """Executes a Python file as a module of its own, registered so that its source is found.

    The module is named like the file, with a number where another module has this name already.
    """
    name = path.stem
    with _lock:
        while name in sys.modules:
            name = f"{path.stem}_{next(_numbers)}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def unload(name: str) -> None:
    """Forgets a module made by :func:`load`, at the next one.

    Called when a class is collected, which may be while somebody iterates over ``sys.modules``.
    """
    _unloaded.append(name)

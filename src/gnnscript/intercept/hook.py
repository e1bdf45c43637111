"""Attaches gnnscript to PyG's ``MessagePassing`` and to ``torch.jit.script``, and detaches it.

The compiler is imported where it is first needed: a program that imports ``gnnscript.auto`` and
never makes a conv does not wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import wrapt

from gnnscript import _pyg
from gnnscript._pyg import MARK
from gnnscript.intercept.dispatch import led, restore, taken_over
from gnnscript.intercept.pyg_lib import supply

__all__ = ["install", "installed", "mark", "uninstall"]


@dataclass
class _State:
    """Everything the interceptor has changed; the only mutable state of this package."""

    active: bool = False
    undo: list[Callable[[], None]] = field(default_factory=list)
    finders: list[Any] = field(default_factory=list)
    awaited: set[str] = field(default_factory=set)
    unwrap: Callable[[], None] | None = None
    decorated: weakref.WeakSet[type] = field(default_factory=weakref.WeakSet)


_lock = threading.RLock()
_state = _State()


def install() -> None:
    """Makes ``torch.jit.script`` specialise every model with PyG modules; idempotent.

    PyG may have been imported before, or is imported later: then the hook waits for it.
    """
    with _lock:
        if _state.active:
            return
        _state.active = True
        _wrap_script()
        _state.undo.append(_wrap(torch, "compile", _compile))
        finders = list(sys.meta_path)
        for name, attach in _ATTACH.items():
            if name in sys.modules:
                attach(sys.modules[name])
            elif name not in _state.awaited:
                _state.awaited.add(name)
                wrapt.register_post_import_hook(functools.partial(_on_import, attach), name)
        _state.finders += [finder for finder in sys.meta_path if finder not in finders]
        # wrapt brings its finder once, so after uninstall() it has to be put back.
        added = [finder for finder in _state.finders if finder not in finders]
        sys.meta_path[:0] = [finder for finder in added if finder not in sys.meta_path]
        if added:
            _state.undo.append(lambda: _remove_finders(added))


def uninstall() -> None:
    """Undoes :func:`install`; idempotent. Classes marked by ``scriptable`` stay scriptable."""
    with _lock:
        _state.active = False
        while _state.undo:
            _state.undo.pop()()
        if not _state.decorated and _state.unwrap is not None:
            _state.unwrap()
            _state.unwrap = None


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Installs for a while; leaves it at that where it is installed anyway."""
    before = _state.active
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def mark(cls: type) -> None:
    """Attaches gnnscript to one class, whether or not it is installed globally."""
    with _lock:
        setattr(cls, MARK, True)
        _state.decorated.add(cls)
        _wrap_script()


def _remove_finders(added: list[Any]) -> None:
    for finder in added:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def _on_import(attach: Callable[[Any], None], module: Any) -> None:
    with _lock:
        if _state.active:
            attach(module)


def _attach(module: Any) -> None:
    """Marks ``MessagePassing``, and so all classes below it, and renders templates in memory."""
    base = module.MessagePassing
    setattr(base, MARK, True)
    _state.undo.append(lambda: delattr(base, MARK))
    _render_in_memory()
    _read_new_unions()
    taken_over(base)
    _state.undo.append(lambda: restore(base))


def _supply_ops(_module: Any) -> None:
    """Supplies eager PyG with what it would take from ``pyg_lib``."""
    _state.undo.append(supply())


def _wrap_export(module: Any) -> None:
    """Wraps what ``torch.export.export`` calls, once torch imports it."""
    _state.undo.append(_wrap(module, "_export", _export))


_ATTACH: dict[str, Callable[[Any], None]] = {
    _pyg.MESSAGE_PASSING_MODULE: _attach,
    _pyg.CONV_PACKAGE: _supply_ops,  # after its modules, which import pyg_lib where it is there
    "torch.export._trace": _wrap_export,
}


def _render_in_memory() -> None:
    """Replaces what renders PyG's templates, wherever PyG has imported it."""
    original = _pyg.template().module_from_template

    def replace(old: Any, new: Any) -> None:
        for name in _pyg.TEMPLATE_USERS:
            module: Any = sys.modules.get(name)
            if module is not None and module.module_from_template is old:
                module.module_from_template = new

    replace(original, _module_from_template)
    _state.undo.append(lambda: replace(_module_from_template, original))


def _read_new_unions() -> None:
    """Lets PyG's inspector read ``X | Y`` in the hooks of a class."""
    inspector = _pyg.inspector()
    original = inspector.type_repr

    def type_repr(obj: Any, *args: Any, **kwargs: Any) -> Any:
        from gnnscript.analyze.annotations import spelled_for_pyg

        return original(spelled_for_pyg(obj), *args, **kwargs)

    inspector.type_repr = type_repr

    def restore() -> None:
        inspector.type_repr = original

    _state.undo.append(restore)


def _module_from_template(
    module_name: str,
    template_path: str,
    tmp_dirname: str,  # noqa: ARG001
    **kwargs: Any,
) -> Any:
    """What PyG's function of this name does, without its temporary file and its name clashes."""
    import jinja2

    from gnnscript.specialize import load

    directory, _, name = template_path.replace("\\", "/").rpartition("/")
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(directory))
    module = load(module_name, environment.get_template(name).render(**kwargs))
    for method in ("propagate", "edge_updater"):
        if hasattr(module, method):
            setattr(module, method, led(getattr(module, method)))
    return module


def _wrap_script() -> None:
    """Wraps what ``torch.jit.script`` calls, so that references to it taken earlier work too."""
    if _state.unwrap is not None:
        return
    _state.unwrap = _wrap(torch.jit._script, "_script_impl", _script)


def _wrap(owner: Any, name: str, wrapper: Any) -> Callable[[], None]:
    """Wraps a function of a module; returns what undoes it."""
    original = getattr(owner, name)
    setattr(owner, name, wrapt.FunctionWrapper(original, wrapper))
    return lambda: setattr(owner, name, original)


def _script(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    """Stands in for torch's ``_script_impl``."""
    from gnnscript.script import needs_lowering, script, script_refused

    obj = args[0] if args else kwargs["obj"]
    rest = {k: v for k, v in kwargs.items() if k != "obj"}
    if not isinstance(obj, torch.nn.Module):
        if kwargs.get("_rcb") is None:
            kwargs = {**kwargs, "_frames_up": kwargs.get("_frames_up", 0) + 1}
        return wrapped(*args, **kwargs)
    if isinstance(obj, torch.jit.ScriptModule):
        return wrapped(*args, **kwargs)
    if needs_lowering(obj, auto=_state.active):
        return script(wrapped, obj, *args[1:], **rest)
    try:
        return wrapped(*args, **kwargs)
    except Exception as error:
        if not _state.active:
            raise
        return script_refused(error, wrapped, obj, *args[1:], **rest)


def _compile(*call: Any) -> Any:
    """Stands in for ``torch.compile``."""
    from gnnscript.dynamo import compile_

    return compile_(*call)


def _export(*call: Any) -> Any:
    """Stands in for torch's ``_export``."""
    from gnnscript.dynamo import export

    return export(*call)

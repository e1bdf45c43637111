"""The specialised module: explicit code of its own, parameters shared with the eager module."""

from __future__ import annotations

import inspect
import threading
import weakref
from typing import Any

import torch

from gnnscript.analyze.types import Type
from gnnscript.specialize import ClassText, SpecializedModel, load, unload
from gnnscript.specialize.helpers import stored_name

__all__ = ["Lowered", "build", "discard", "lowered_class", "origins_of"]


class Lowered(torch.nn.Module):
    """Base class of all specialised modules.

    A lowered class is made once for a conv class object and a text, and never changed:
    TorchScript caches what it compiles by class.
    """

    def __prepare_scriptable__(self) -> Lowered:
        """Already in the form that TorchScript compiles."""
        return self


_lock = threading.RLock()
_classes: weakref.WeakKeyDictionary[type, dict[Any, type[Lowered]]] = weakref.WeakKeyDictionary()
_origins: dict[str, dict[int, tuple[str, int]]] = {}


def lowered_class(cls: type, text: ClassText, ignored: tuple[str, ...] = ()) -> type[Lowered]:
    """The class object of a text; equal texts of one class share it, and so its compiled code."""
    captured = tuple((name, id(value)) for name, value in sorted(text.captured.items()))
    key = (text.text, captured, ignored)
    with _lock:
        made = _classes.setdefault(cls, {})
        if key not in made:
            module = load(f"gnnscript_lowered.{text.name}", text.text, text.captured)
            lowered: type[Lowered] = getattr(module, text.name)
            for name in ignored:  # methods that stay in Python: @torch.jit.ignore, unused
                setattr(lowered, name, inspect.getattr_static(cls, name))
            assert module.__file__ is not None
            _origins[module.__file__] = text.origins
            weakref.finalize(cls, _forget, module.__name__, module.__file__)
            made[key] = lowered
        return made[key]


def discard(root: torch.nn.Module) -> None:
    """Forgets the classes of a model that did not compile: TorchScript keeps half-made methods."""
    used = {type(module) for module in root.modules()}
    with _lock:
        for made in _classes.values():
            for key in [key for key, cls in made.items() if cls in used]:
                del made[key]


def _forget(name: str, file: str) -> None:
    unload(name)
    _origins.pop(file, None)


def origins_of(file: str) -> dict[int, tuple[str, int]]:
    """For the lines of a generated file: where in the user's files they come from."""
    return _origins.get(file, {})


def build(root: torch.nn.Module, specialized: SpecializedModel) -> torch.nn.Module:
    """Makes the tree of lowered modules; the eager model is read, never written.

    Parameters, buffers and the modules left to TorchScript are the same objects in both.
    Names, and with them the keys of ``state_dict``, are the same.
    """
    return _Builder(specialized).module(root, ())


class _Builder:
    def __init__(self, specialized: SpecializedModel) -> None:
        self.specialized = specialized
        self.made: dict[int, torch.nn.Module] = {}
        self.used = {id(module) for module in specialized.used.values()}

    def module(self, module: torch.nn.Module, path: tuple[str, ...]) -> torch.nn.Module:
        if id(module) not in self.made:
            self.made[id(module)] = self._make(module, path)
        return self.made[id(module)]

    def _make(self, module: torch.nn.Module, path: tuple[str, ...]) -> torch.nn.Module:
        text = self.specialized.texts.get(id(module))
        if text is None and self._is_kept(module):
            return module
        if isinstance(module, torch.nn.ParameterList):
            return module  # TorchScript knows it by its class
        if isinstance(module, torch.nn.ParameterDict):
            return _plain(module)
        if text is None or not self._has_code(module):
            container = self._container(module, path)
            if container is not None:
                return container
        owner = self.specialized.owners.get(id(module))
        attributes = {} if owner is None else owner.attributes
        ignored = tuple(sorted(name[:-2] for name in attributes if name.endswith("()")))
        cls = Lowered if text is None else lowered_class(type(module), text, ignored)
        lowered = cls.__new__(cls)
        torch.nn.Module.__init__(lowered)
        lowered.training = module.training
        self._share(module, lowered, path)
        for name, t in attributes.items():
            if not name.endswith("()"):
                setattr(lowered, stored_name(name), _own(getattr(module, name, None), t))
        return lowered

    def _is_kept(self, module: torch.nn.Module) -> bool:
        """Modules that TorchScript compiles itself stay the same object."""
        return id(module) in self.used and not any(
            id(child) in self.specialized.texts for child in module.modules()
        )

    def _has_code(self, module: torch.nn.Module) -> bool:
        owner = self.specialized.owners.get(id(module))
        return owner is not None and bool(owner.methods or owner.attributes)

    def _container(self, module: torch.nn.Module, path: tuple[str, ...]) -> torch.nn.Module | None:
        """A container that holds the lowered children.

        A ``Sequential`` becomes a list: specialised code calls its members one by one, and some
        of them may not be called at all.
        """
        if not isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential, torch.nn.ModuleDict)):
            return None
        named = isinstance(module, torch.nn.ModuleDict)
        container = torch.nn.ModuleDict() if named else torch.nn.ModuleList()
        container.training = module.training
        self._share(module, container, path)
        return container

    def _share(
        self, module: torch.nn.Module, lowered: torch.nn.Module, path: tuple[str, ...]
    ) -> None:
        present = {k: p for k, p in module._parameters.items() if p is not None}
        lowered._parameters.update(present)
        lowered._buffers.update({k: b for k, b in module._buffers.items() if b is not None})
        lowered._forward_hooks.update(module._forward_hooks)
        lowered._forward_pre_hooks.update(module._forward_pre_hooks)
        lowered._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
        for name, child in module._modules.items():
            if child is None:
                continue
            if id(child) in self.used or self._needed(child) or _has_state(child):
                lowered._modules[name] = self.module(child, (*path, name))
            elif isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)):
                lowered._modules[name] = torch.nn.Identity()  # keeps the positions of the others

    def _needed(self, module: torch.nn.Module) -> bool:
        return any(id(m) in self.used or self._has_code(m) for m in module.modules())


def _own(value: Any, t: Type) -> Any:
    """What an attribute starts from: lists and dictionaries, which may change, are its own."""
    if t.name == "List" and isinstance(value, (list, tuple)):
        return [_own(item, t.args[0]) for item in value]
    if t.name == "Dict" and isinstance(value, dict):
        return {key: _own(item, t.args[1]) for key, item in value.items()}
    return value


def _plain(module: torch.nn.ParameterDict) -> torch.nn.ParameterDict:
    """Torch's own dictionary of the same parameters; TorchScript does not read a subclass."""
    if type(module) is torch.nn.ParameterDict:
        return module
    plain = torch.nn.ParameterDict()
    plain._keys = dict(module._keys)
    plain._parameters.update(module._parameters)
    return plain


def _has_state(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())

"""Meeting ``torch.jit.script``: which modules are specialised, and how errors are reported."""

from __future__ import annotations

import inspect
import re
import sys
import threading
import types
from typing import Any

import torch

from gnnscript import _pyg
from gnnscript._errors import Location, UnsupportedError
from gnnscript.analyze.types import Type, of_value
from gnnscript.script.lowered import build, discard, origins_of
from gnnscript.specialize import SpecializedModel, specialize

__all__ = ["MARK", "lower", "needs_lowering", "script", "source"]

# The class attribute by which the interceptor marks what it handles.
MARK = "__gnnscript__"

_lock = threading.RLock()


def is_handled(module: torch.nn.Module) -> bool:
    """Whether the interceptor has attached itself to the class of a message passing module."""
    return _pyg.is_message_passing(module) and bool(getattr(type(module), MARK, False))


def needs_lowering(root: torch.nn.Module) -> bool:
    """Whether there is anything in a model for gnnscript to do."""
    return any(is_handled(module) for module in root.modules()) or (
        _auto() and any(_uses_pyg(type(module)) for module in root.modules())
    )


def _auto() -> bool:
    if _pyg.MESSAGE_PASSING_MODULE not in sys.modules:
        return False
    return bool(vars(_pyg.message_passing()).get(MARK, False))


def _uses_pyg(cls: type) -> bool:
    """Whether a module class is PyG's, or its methods name something of PyG's."""
    for parent in cls.__mro__:
        root = parent.__module__.split(".")[0]
        if root == "torch_geometric":
            return True
        if root in ("torch", "builtins"):
            continue
        for function in vars(parent).values():
            if not isinstance(function, types.FunctionType) or function.__name__ == "__init__":
                continue
            namespace = function.__globals__
            for name in function.__code__.co_names:
                value = namespace.get(name)
                module = getattr(value, "__module__", None) or getattr(value, "__name__", None)
                pyg = isinstance(module, str) and module.split(".")[0] == "torch_geometric"
                if pyg and not (inspect.isclass(value) and issubclass(value, torch.nn.Module)):
                    return True
    return False


class _Policy:
    """Says of each module of a model whether it is specialised or left to TorchScript."""

    def __init__(self, root: torch.nn.Module) -> None:
        self._decided: dict[int, bool] = {}
        self._auto = _auto()
        for module in root.modules():
            if is_handled(module):
                for child in module.modules():
                    self._decided.setdefault(id(child), self._is_python(child))
        self._keep = root

    @staticmethod
    def _is_python(module: torch.nn.Module) -> bool:
        if _pyg.is_message_passing(module):
            return is_handled(module)
        return not isinstance(module, torch.jit.ScriptModule) and _uses_pyg(type(module))

    def __call__(self, module: torch.nn.Module) -> bool:
        if id(module) not in self._decided:
            self._decided[id(module)] = self._decide(module)
        return self._decided[id(module)] or self._contains(module)

    def _decide(self, module: torch.nn.Module) -> bool:
        if isinstance(module, torch.jit.ScriptModule):
            return False
        if _pyg.is_message_passing(module):
            return is_handled(module)
        return self._auto and _uses_pyg(type(module))

    def _contains(self, module: torch.nn.Module) -> bool:
        if isinstance(module, torch.jit.ScriptModule):
            return False
        if _pyg.is_message_passing(module) and not is_handled(module):
            return False
        return any(self(child) for child in module.children())


def lower(root: torch.nn.Module, given: dict[str, Type] | None = None) -> torch.nn.Module:
    """The specialised model: a tree of its own that shares parameters with the eager one."""
    return build(root, _specialized(root, given))


def _specialized(root: torch.nn.Module, given: dict[str, Type] | None = None) -> SpecializedModel:
    with _lock:
        policy = _Policy(root)
        for name, module in root.named_modules():
            if policy(module):
                _refuse_lazy(name, module)
        return specialize(root, policy, given)


def _refuse_lazy(name: str, module: torch.nn.Module) -> None:
    present: list[Any] = [*module._parameters.values(), *module._buffers.values()]
    if any(torch.nn.parameter.is_lazy(tensor) for tensor in present):
        raise UnsupportedError(
            f"'{name or type(module).__name__}' has lazy parameters whose shape is not known yet",
            "run the model once in Python before scripting it",
        )


def script(compile_: Any, root: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Scripts a model with torch's own ``compile_``, after specialising it.

    Raises:
        UnsupportedError: The model cannot be scripted; says where, why and what to do.
    """
    given = _from_examples(root, kwargs.pop("example_inputs", None))
    with _lock:  # TorchScript compiles a class once, for all threads
        lowered = lower(root, given)
        try:
            return compile_(lowered, *args, **kwargs)
        except Exception as error:
            discard(lowered)
            explained = _explained(error, root)
            if explained is error:
                raise
            raise explained from error


def _from_examples(root: torch.nn.Module, examples: Any) -> dict[str, Type]:
    """Types of the arguments of ``forward`` from ``example_inputs`` of ``torch.jit.script``."""
    if isinstance(examples, dict):
        examples = examples.get(root)
    if not examples:
        return {}
    signature = inspect.signature(type(root).forward)
    bound = signature.bind(root, *examples[0])
    return {name: of_value(value) for name, value in list(bound.arguments.items())[1:]}


_FRAME = re.compile(r'File "(gnnscript_lowered/[^"]+)", line (\d+)')


def _explained(error: Exception, root: torch.nn.Module) -> Exception:
    """A TorchScript error as one that names the user's line, where it is in specialised code."""
    text = str(error)
    frames = _FRAME.findall(text)
    for file, number in frames:
        line = int(number)
        origins = origins_of(file)
        nearest = max((n for n in origins if n <= line), default=None)
        if nearest is None:
            continue
        origin_file, origin_line = origins[nearest]
        code = _line(origin_file, origin_line)
        remedy = (
            "annotate arguments that are not tensors, give each variable one type, and use "
            "operations that TorchScript knows; gnnscript.source(module) shows the code"
        )
        assumed = _assumed_tensors(root)
        if assumed:
            remedy += f"; taken as tensors, having no annotation: {', '.join(assumed)}"
        cause = " ".join(text.strip().split("\n")[0].split()) or type(error).__name__
        return UnsupportedError(
            f"TorchScript does not accept this: {cause.rstrip(':')}",
            remedy,
            Location(origin_file, origin_line, code),
        )
    for name, module in root.named_modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            compiled = getattr(hook, "__code__", None)
            return UnsupportedError(
                f"a forward hook of '{name or type(module).__name__}' does not compile: "
                f"{' '.join(text.split())[:300]}",
                "remove it before scripting (handle.remove()), or annotate it as TorchScript asks",
                Location(compiled.co_filename, compiled.co_firstlineno) if compiled else None,
            )
    return error


def _assumed_tensors(root: torch.nn.Module) -> list[str]:
    """Arguments of the model that are tensors only because nothing says otherwise."""
    parameters = list(inspect.signature(type(root).forward).parameters.values())[1:]
    return [f"'{p.name}'" for p in parameters if p.annotation is p.empty and p.default is p.empty]


def _line(file: str, number: int) -> str:
    import linecache

    return linecache.getline(file, number).strip()


def source(module: torch.nn.Module) -> str:
    """The explicit code that a module is specialised to.

    Args:
        module: A PyG module, or a model that contains some. It does not have to be scripted.

    Returns:
        The text of each class, the module's own first; classes with equal text once.

    Raises:
        TypeError: It is not a module.
        UnsupportedError: The module cannot be specialised.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"'source' expects a module (an instance), got {module!r}; pass the model or one of "
            "its convs"
        )
    specialized = _specialized(module)
    texts = []
    for child in module.modules():
        text = specialized.texts.get(id(child))
        if text is not None and (not text.empty or child is module):
            texts.append(text.text)
    return "\n\n".join(dict.fromkeys(texts))

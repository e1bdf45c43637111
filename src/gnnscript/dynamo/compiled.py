"""``torch.compile`` of a model with PyG modules."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gnnscript._errors import UnsupportedError
from gnnscript.ops.entries import assembled
from gnnscript.script import Lowered, learn_least, lower_for, needs_lowering, with_lines

__all__ = ["compile_"]


def compile_(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    """Stands in for ``torch.compile``: what it returns runs the specialised model."""
    made = wrapped(*args, **kwargs)
    model = args[0] if args else kwargs.get("model")
    if (
        isinstance(model, nn.Module)
        and not isinstance(model, torch.jit.ScriptModule)
        and isinstance(made, nn.Module)
        and made is not model  # as it is with disable=True
        and needs_lowering(model, auto=True)
    ):
        options = {name: value for name, value in kwargs.items() if name != "model"}
        made.forward = _Compiled(
            model,
            made.forward,
            lambda module: wrapped(module, **options),
            whole=bool(options.get("fullgraph")),
        )
    return made


# What torch leaves to Python unless it is told otherwise.
_CAPTURED = (
    "capture_scalar_outputs",
    "capture_dynamic_output_shape_ops",
    "allow_rnn",
    "trace_autograd_ops",  # torch 2.10 has none, and takes no gradients in one graph
)


@dataclass
class _Form:
    """What is compiled for calls that are alike.

    Args:
        run: The compiled model; None where torch's own is to be used.
        pairs: Each eager module with its specialised one and the attributes that forward writes.
        alive: What the key names by ``id``, so that no other object gets it.
    """

    run: Callable[..., Any] | None
    pairs: list[tuple[nn.Module, Lowered, tuple[str, ...]]]
    alive: Any


class _Compiled:
    """The ``forward`` of a compiled model.

    Calls that are alike (the same arguments given, the same options) share one specialised model.
    It is made again when the configuration of the eager model has changed, as torch's guards would
    have it compiled again. Modes, and attributes that forward writes, are kept equal in both.

    Args:
        model: The eager model.
        plain: What torch made of it. It is used for models that cannot be specialised, and while
            there are hooks on modules: they expect to be called with the eager ones. Functions
            registered on messages are specialised like these.
        compile_one: Compiles a specialised model with the same options.
        whole: Whether it is to be one graph. Then what torch leaves to Python is captured, and
            sizes that values decide are asserted to be none that torch would branch on.
    """

    def __init__(
        self,
        model: nn.Module,
        plain: Callable[..., Any],
        compile_one: Callable[[nn.Module], Callable[..., Any]],
        *,
        whole: bool,
    ) -> None:
        self._model = model
        self._plain = plain
        self._compile = compile_one
        self._whole = whole
        self._recurrent = any(isinstance(module, nn.LSTM) for module in model.modules())
        self._forms: dict[Hashable, _Form] = {}
        self._written: set[tuple[int, str]] = set()
        self._least: dict[tuple[str, int], int] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or any(_hooked(m) for m in self._model.modules()):
            return self._plain(*args, **kwargs)
        while True:
            form = self._form(args, kwargs)
            if form.run is None:
                return self._plain(*args, **kwargs)
            try:
                return self._run(form, args, kwargs)
            except Exception as error:
                if not self._whole or not learn_least(self._least, error):
                    message = with_lines(str(error), self._least)
                    if message == str(error):
                        raise
                    raise RuntimeError(message) from error
                self._forms.clear()

    def _form(self, args: Any, kwargs: Any) -> _Form:
        call = _alike((args, kwargs))
        form = self._forms.get((call, _ids(self._configuration())))
        if form is None:
            form = self._make(args, kwargs)
            self._forms[call, _ids(form.alive)] = form
        return form

    def _run(self, form: _Form, args: Any, kwargs: Any) -> Any:
        assert form.run is not None
        for eager, lowered, written in form.pairs:
            lowered.training = eager.training
            for name in written:
                setattr(lowered, name, getattr(eager, name, None))
        try:
            if not self._whole:
                return assembled(form.run(*args, **kwargs))
            trained = self._recurrent and torch.is_grad_enabled()
            with _capturing(), _without_onednn(trained):
                return assembled(form.run(*args, **kwargs))
        finally:
            for eager, lowered, written in form.pairs:
                for name in written:
                    setattr(eager, name, getattr(lowered, name))

    def _make(self, args: Any, kwargs: Any) -> _Form:
        try:
            module = lower_for(self._model, args, kwargs, exportable=True, least=self._least).module
        except UnsupportedError:
            return _Form(None, [], self._configuration())
        pairs = []
        for path, lowered in module.named_modules():
            if isinstance(lowered, Lowered):
                eager = self._model.get_submodule(path)
                # The same dictionaries, so that tensors that are replaced are so in both.
                vars(lowered).update(_parameters=eager._parameters, _buffers=eager._buffers)
                written = tuple(vars(type(lowered)).get("__annotations__", ()))
                pairs.append((eager, lowered, written))
                self._written |= {(id(eager), name) for name in written}
        return _Form(self._compile(module), pairs, self._configuration())

    def _configuration(self) -> list[Any]:
        """The values of all attributes that the specialised code may depend on."""
        values: list[Any] = []
        for module in self._model.modules():
            values += module._modules.values()
            values += vars(module).get(_MESSAGE_HOOKS, {}).values()
            values += [
                value
                for name, value in vars(module).items()
                if name != "training" and (id(module), name) not in self._written
            ]
        return values


def _capturing() -> AbstractContextManager[None]:
    config: Any = torch._dynamo.config
    found: AbstractContextManager[None] = config.patch(
        {name: True for name in _CAPTURED if hasattr(config, name)}
    )
    return found


@contextmanager
def _without_onednn(needed: bool) -> Iterator[None]:
    """Keeps LSTMs from the kernel whose gradients need what a trace has no place for."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(before and not needed)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _ids(values: list[Any]) -> tuple[int, ...]:
    return tuple(map(id, values))


# Of the hooks, those that are specialised with the message; torch itself would leave them out.
_MESSAGE_HOOKS = "_message_forward_hooks"


def _hooked(module: nn.Module) -> bool:
    own = vars(module).items()
    return any(name.endswith("_hooks") and name != _MESSAGE_HOOKS and value for name, value in own)


def _alike(value: Any) -> Hashable:
    """What is the same for arguments that one specialised model takes."""
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_alike, value))
    if isinstance(value, dict):
        return tuple((key, _alike(item)) for key, item in value.items())
    if value is None or isinstance(value, (bool, str)):
        return value
    return type(value).__qualname__

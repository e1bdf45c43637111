"""What is called on messages: functions, which are specialised, and what no script can run."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Arguments
from gnnscript.specialize.values import Const, ModuleRef

if TYPE_CHECKING:
    from gnnscript.specialize.folding.base import Folded
    from gnnscript.specialize.folding.statements import Frame

__all__ = ["call_message_hooks", "refuse_hooks"]

_HOOK_DICTIONARIES = ("propagate", "message", "aggregate", "edge_update")


def refuse_hooks(module: Any) -> None:
    """A scripted model cannot run Python hooks: say so instead of leaving them out."""
    for name in _HOOK_DICTIONARIES:
        for suffix in ("_forward_pre_hooks", "_forward_hooks"):
            hooks = getattr(module, f"_{name}{suffix}", None) or {}
            if name == "message" and suffix == "_forward_hooks":
                hooks = {k: h for k, h in hooks.items() if not inspect.isfunction(h)}
            if hooks:
                raise UnsupportedError(
                    f"a hook is registered on '{name}' of '{type(module).__name__}', which a "
                    "scripted model cannot run",
                    "remove it before scripting (handle.remove())",
                )
    if getattr(module, "_explain", None):
        raise UnsupportedError(
            f"'{type(module).__name__}' is in explain mode, which a scripted model cannot run",
            "set 'explain = None' before scripting",
        )


def call_message_hooks(
    frame: Frame, ref: ModuleRef, given: dict[str, Folded], message: Folded
) -> Folded:
    """Calls what is registered by ``register_message_forward_hook``, each with the last result."""
    for hook in ref.module._message_forward_hooks.values():  # type: ignore[operator]
        value, node = message
        held = frame.hold("out", frame.needed(value, node))
        values, nodes = {k: v for k, (v, _) in given.items()}, [n for _, n in given.values()]
        inputs, display = frame.mapping(values, nodes)
        whole = frame.sequence("tuple", [inputs], [display], keep=True)
        arguments = Arguments([(ref, None), whole, (value, held)], {})
        found = frame.call(frame.wrap(hook), arguments, None)
        unchanged = isinstance(found[0], Const) and found[0].value is None
        message = (value, held) if unchanged else found
    return message

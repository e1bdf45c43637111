"""What watches message passing from Python, and so cannot be scripted."""

from __future__ import annotations

from typing import Any

from gnnscript._errors import UnsupportedError

__all__ = ["refuse_hooks"]

_HOOK_DICTIONARIES = ("propagate", "message", "aggregate", "edge_update")


def refuse_hooks(module: Any) -> None:
    """A scripted model cannot run Python hooks: say so instead of leaving them out."""
    for name in _HOOK_DICTIONARIES:
        for suffix in ("_forward_pre_hooks", "_forward_hooks"):
            if getattr(module, f"_{name}{suffix}", None):
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

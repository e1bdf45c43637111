"""Reads a class: annotations, hooks and calls, by ``ast`` and ``typing`` alone."""

from gnnscript.analyze.spec import ConvSpec, Hook, HookParameter, analyze

__all__ = ["ConvSpec", "Hook", "HookParameter", "analyze"]

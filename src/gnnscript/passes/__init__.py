"""Rewrites written-out ``propagate`` methods: fusion, hoisting, one sort of the edges."""

from gnnscript.passes.pipeline import optimize

__all__ = ["optimize"]

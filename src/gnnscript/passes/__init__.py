"""Rewrites specialised methods: fusion, hoisting, one sort of the edges; and what export needs."""

from gnnscript.passes.exportable import make_exportable
from gnnscript.passes.pipeline import optimize

__all__ = ["make_exportable", "optimize"]

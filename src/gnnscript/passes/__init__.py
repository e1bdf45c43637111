"""Rewrites specialised methods: fusion, hoisting, one sort of the edges; and what export needs."""

from gnnscript.passes.complex_numbers import warn_of_gradients
from gnnscript.passes.exportable import ANYWHERE, make_exportable, rebind_marked
from gnnscript.passes.in_place import add_in_place
from gnnscript.passes.pipeline import optimize, use_torch_scatter
from gnnscript.passes.sharing import share_plans
from gnnscript.passes.shortcuts import omit_shortcuts

__all__ = [
    "ANYWHERE",
    "add_in_place",
    "make_exportable",
    "omit_shortcuts",
    "optimize",
    "rebind_marked",
    "share_plans",
    "use_torch_scatter",
    "warn_of_gradients",
]

"""Partial evaluation: folds a function's statements and expressions with what is known of them."""

from gnnscript.specialize.folding.base import Arguments, Binding, Folded
from gnnscript.specialize.folding.statements import Frame

__all__ = ["Arguments", "Binding", "Folded", "Frame"]

"""Scriptable, deployable PyTorch Geometric message passing.

Importing this package patches nothing and does not import PyTorch Geometric;
``import gnnscript.auto`` does, and so does the first use of :func:`scriptable`.
"""

from __future__ import annotations

from gnnscript._errors import GnnscriptError, UnsupportedError
from gnnscript.intercept import install, scriptable, uninstall
from gnnscript.script import source

__version__ = "0.1.0"

__all__ = [
    "GnnscriptError",
    "UnsupportedError",
    "__version__",
    "install",
    "scriptable",
    "source",
    "uninstall",
]

"""Scriptable, deployable PyTorch Geometric message passing.

Importing this package patches nothing and does not import PyTorch Geometric;
``import gnnscript.auto`` does, and so does the first use of :func:`scriptable`.
"""

from __future__ import annotations

from gnnscript._config import checks, kernels
from gnnscript._errors import GnnscriptError, UnsupportedError
from gnnscript.deploy.manifest import DeployError
from gnnscript.deploy.manifest import read_manifest as inspect
from gnnscript.deploy.package import load, save
from gnnscript.intercept import install, scriptable, uninstall
from gnnscript.script import source

__version__ = "0.1.0"

__all__ = [
    "DeployError",
    "GnnscriptError",
    "UnsupportedError",
    "__version__",
    "checks",
    "inspect",
    "install",
    "kernels",
    "load",
    "save",
    "scriptable",
    "source",
    "uninstall",
]

"""Scriptable, deployable PyTorch Geometric message passing.

Importing this package patches nothing and does not import PyTorch Geometric;
``import gnnscript.auto`` does, and so does the first use of :func:`scriptable`. It does not import
torch either: :mod:`gnnscript.client` runs where there is none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gnnscript import hetero
from gnnscript._config import checks, kernels
from gnnscript._errors import GnnscriptError, UnsupportedError

if TYPE_CHECKING:
    from gnnscript.checking import check
    from gnnscript.deploy.manifest import DeployError, Manifest
    from gnnscript.deploy.manifest import read_manifest as inspect
    from gnnscript.deploy.package import load, save
    from gnnscript.intercept import install, scriptable, uninstall
    from gnnscript.script import source
    from gnnscript.script.inputs import tensor_inputs

__version__ = "0.1.0"

__all__ = [
    "DeployError",
    "GnnscriptError",
    "Manifest",
    "UnsupportedError",
    "__version__",
    "check",
    "checks",
    "hetero",
    "inspect",
    "install",
    "kernels",
    "load",
    "save",
    "scriptable",
    "source",
    "tensor_inputs",
    "uninstall",
]

# Where each name is found when it is first asked for, as module and name there.
_LAZY = {
    "DeployError": ("deploy.manifest", "DeployError"),
    "Manifest": ("deploy.manifest", "Manifest"),
    "check": ("checking", "check"),
    "inspect": ("deploy.manifest", "read_manifest"),
    "install": ("intercept", "install"),
    "load": ("deploy.package", "load"),
    "save": ("deploy.package", "save"),
    "scriptable": ("intercept", "scriptable"),
    "source": ("script", "source"),
    "tensor_inputs": ("script.inputs", "tensor_inputs"),
    "uninstall": ("intercept", "uninstall"),
}

# Submodules that need no import of their own; ``gnnscript.auto`` patches, and does.
_SUBMODULES = frozenset({"client", "deploy", "fx", "ops", "testing"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})

"""What leaves Python: saved models with a manifest, in the forms that other runtimes load."""

from gnnscript.deploy.manifest import (
    Argument,
    Check,
    DeployError,
    Library,
    Manifest,
    TensorSpec,
    read_manifest,
)
from gnnscript.deploy.package import load, save
from gnnscript.deploy.signature import Signature, derive
from gnnscript.deploy.tensors import all_tensors, flat_call

__all__ = [
    "Argument",
    "Check",
    "DeployError",
    "Library",
    "Manifest",
    "Signature",
    "TensorSpec",
    "all_tensors",
    "derive",
    "flat_call",
    "load",
    "read_manifest",
    "save",
]

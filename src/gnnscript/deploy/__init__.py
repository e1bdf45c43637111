"""What leaves Python: saved models with a manifest, in the forms that other runtimes load."""

from gnnscript.deploy.inductor import CompiledModel, aoti, load_compiled
from gnnscript.deploy.installation import Installation, ServerError, find_server, install_server
from gnnscript.deploy.manifest import (
    Argument,
    Check,
    DeployError,
    Library,
    Manifest,
    TensorSpec,
    read_manifest,
)
from gnnscript.deploy.onnx_model import onnx
from gnnscript.deploy.package import load, save
from gnnscript.deploy.replicas import kubernetes
from gnnscript.deploy.repository import triton
from gnnscript.deploy.server import Server
from gnnscript.deploy.signature import Signature, derive
from gnnscript.deploy.tensors import all_tensors, flat_call
from gnnscript.deploy.validate import validate
from gnnscript.deploy.versions import serve_versions

__all__ = [
    "Argument",
    "Check",
    "CompiledModel",
    "DeployError",
    "Installation",
    "Library",
    "Manifest",
    "Server",
    "ServerError",
    "Signature",
    "TensorSpec",
    "all_tensors",
    "aoti",
    "derive",
    "find_server",
    "flat_call",
    "install_server",
    "kubernetes",
    "load",
    "load_compiled",
    "onnx",
    "read_manifest",
    "save",
    "serve_versions",
    "triton",
    "validate",
]

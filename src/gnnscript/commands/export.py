"""Write a model for another runtime: C++, ONNX, Triton; and a manifest for Kubernetes.

gnnscript export train.py:model --inputs train.py:examples --pt model.pt --onnx model.onnx
gnnscript export train.py:model --inputs train.py:examples --triton models --name edgenet
gnnscript export --kubernetes deployment.yaml --image registry/models:1
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from gnnscript._errors import GnnscriptError
from gnnscript.commands._target import add_inputs, add_target, find, inputs_of, module_of
from gnnscript.deploy.inductor import aoti
from gnnscript.deploy.onnx_model import onnx
from gnnscript.deploy.package import load, save, target
from gnnscript.deploy.replicas import kubernetes
from gnnscript.deploy.repository import triton


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``gnnscript export``."""
    add_target(parser, nargs="?")
    add_inputs(parser)
    parser.add_argument("--kernels", choices=["native", "portable"], help="of the ops")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--pt",
        metavar="FILE",
        help="write TorchScript that takes and returns tensors alone, for C++ and Python",
    )
    files.add_argument("--aoti", metavar="FILE", help="compile to a .pt2 of AOTInductor")
    files.add_argument("--onnx", metavar="FILE", help="write ONNX; its ops are portable ones")
    server = parser.add_argument_group("model repository")
    server.add_argument("--triton", metavar="REPOSITORY", help="write the model into it")
    server.add_argument("--name", help="what clients call the model; by default its class")
    server.add_argument("--backend", choices=["python", "libtorch"], default="python")
    server.add_argument(
        "--merge",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="run requests that wait at the same time as one graph; by default where results "
        "stay the same",
    )
    server.add_argument("--instances", type=int, default=1, metavar="N")
    server.add_argument("--threads", type=int, default=0, metavar="N", help="of each instance")
    server.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="SIZE=N",
        help="the largest size that is accepted, such as --limit N=100000 --limit E=2000000",
    )
    server.add_argument(
        "--version", type=int, metavar="N", help="put it beside the other versions of that name"
    )
    server.add_argument(
        "--overwrite", action="store_true", help="replace a model, or version, of that name"
    )
    cluster = parser.add_argument_group("Kubernetes")
    cluster.add_argument("--kubernetes", metavar="FILE", help="write a manifest for replicas")
    cluster.add_argument("--image", help="the image made of the model repository's Dockerfile")
    cluster.add_argument("--replicas", type=int, default=2, metavar="N")
    cluster.add_argument("--gpus", type=int, default=0, metavar="N", help="of each replica")


def run(arguments: argparse.Namespace) -> int:
    """Writes what is asked for."""
    wanted = [arguments.pt, arguments.aoti, arguments.onnx, arguments.triton]
    if not any([*wanted, arguments.kubernetes]):
        raise GnnscriptError(
            "expected --pt, --aoti, --onnx, --triton or --kubernetes and where to write, got none"
        )
    try:
        if any(wanted):
            model, name = _model(arguments)
            inputs = inputs_of(arguments.inputs)
            _files(arguments, model, inputs)
            if arguments.triton is not None:
                _triton(arguments, model, inputs, arguments.name or name)
        if arguments.kubernetes is not None:
            if arguments.image is None:
                raise GnnscriptError("--kubernetes needs --image, which the replicas run")
            path = target(arguments.kubernetes)
            text = kubernetes(arguments.image, replicas=arguments.replicas, gpus=arguments.gpus)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {arguments.kubernetes}")
    except ValueError as error:
        raise GnnscriptError(str(error)) from error
    return 0


def _model(arguments: argparse.Namespace) -> tuple[torch.nn.Module, str]:
    """The model that the target stands for, and its name."""
    if arguments.target is None or arguments.inputs is None:
        raise GnnscriptError("a model is exported by its target and --inputs, its example inputs")
    if arguments.target.endswith(".pt"):
        return load(arguments.target), Path(arguments.target).stem
    model = module_of(find(arguments.target), arguments.target)
    return model, type(model).__name__


def _files(arguments: argparse.Namespace, model: torch.nn.Module, inputs: Any) -> None:
    kernels = arguments.kernels
    if arguments.onnx is not None and kernels == "native":
        raise GnnscriptError("ONNX has no native ops; leave out --kernels or export it on its own")
    if arguments.pt is not None:
        save(model, arguments.pt, kernels=kernels, example_inputs=inputs, all_tensors=True)
        print(f"wrote {arguments.pt}")
    if arguments.aoti is not None:
        aoti(model, inputs, arguments.aoti, kernels=kernels)
        print(f"wrote {arguments.aoti}")
    if arguments.onnx is not None:
        onnx(model, inputs, arguments.onnx)
        print(f"wrote {arguments.onnx}")


def _triton(arguments: argparse.Namespace, model: torch.nn.Module, inputs: Any, name: str) -> None:
    limits = {}
    for limit in arguments.limit:
        symbol, _, value = limit.partition("=")
        if not value.isdecimal():
            raise GnnscriptError(f"expected --limit SIZE=N, such as N=100000, got {limit!r}")
        limits[symbol] = int(value)
    folder = triton(
        model,
        inputs,
        arguments.triton,
        name,
        backend=arguments.backend,
        kernels=arguments.kernels,
        merge=arguments.merge,
        instances=arguments.instances,
        threads=arguments.threads,
        limits=limits,
        version=arguments.version,
        overwrite=arguments.overwrite,
    )
    print(f"wrote {folder}; serve it by: gnnscript serve {arguments.triton}")

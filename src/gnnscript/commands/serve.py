"""Serve a model repository by Triton Inference Server.

Runs the tritonserver on the path, or the one that --install puts into this Python environment,
until it is interrupted. The repository is written by gnnscript export --triton, or by
gnnscript.deploy.triton.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from gnnscript._errors import GnnscriptError
from gnnscript.deploy.installation import WHEEL, ServerError, find_server, install_server
from gnnscript.deploy.server import LOOPBACK, Server

_SOON = 5.0
"""Seconds within which a server that ends would end again."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``gnnscript serve``."""
    parser.add_argument("repository", nargs="?", help="the model repository")
    parser.add_argument(
        "--install",
        action="store_true",
        help=f"install the server of the wheel {WHEEL} first, without the packages it asks for",
    )
    parser.add_argument(
        "--backends",
        metavar="FOLDER",
        help="a folder of further backends of Triton, such as pytorch (default: "
        "$GNNSCRIPT_TRITON_BACKENDS)",
    )
    parser.add_argument(
        "--address",
        default=LOOPBACK,
        help="address to listen on (default: %(default)s, which is reached from this machine "
        "alone); the server asks nobody who they are",
    )
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="N", help="(default: %(default)s)"
        )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long the models may take until they are ready (default: %(default)g)",
    )
    parser.add_argument(
        "--revive",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="load a model again whose process has died, and start the server again where that has "
        "(default: yes)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="--NAME=VALUE",
        help="an option of tritonserver, such as --option=--log-verbose=1",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is interrupted."""
    if arguments.install:
        print(f"installed {install_server().executable}")
        if arguments.repository is None:
            return 0
    if arguments.repository is None:
        raise GnnscriptError("expected a model repository to serve, got none")
    server = Server(
        arguments.repository,
        address=arguments.address,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        installation=find_server(arguments.backends),
        options=tuple(arguments.option),
        revive=arguments.revive,
        log="-",
    )
    # Service managers and containers end a process by SIGTERM, terminals by SIGINT.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            with server:
                begun = time.monotonic()
                print(
                    f"ready: {server.http_url}, {server.grpc_url}, {server.metrics_url}",
                    file=sys.stderr,
                    flush=True,
                )
                code = server.wait()
            ended = f"the server ended with exit code {code}"
            if not arguments.revive or time.monotonic() - begun < _SOON:
                raise ServerError(ended)
            print(f"{ended}; starting it again", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)

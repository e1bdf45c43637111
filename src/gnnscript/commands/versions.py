"""List the versions of a model in a repository, and say which are served.

gnnscript versions models clusters
gnnscript versions models clusters --serve 1       # takes back what came after
gnnscript versions models clusters --serve latest
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gnnscript._errors import GnnscriptError
from gnnscript.deploy.manifest import read_manifest
from gnnscript.deploy.versions import serve_versions, served_versions, versions_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``gnnscript versions``."""
    parser.add_argument("repository", help="the model repository")
    parser.add_argument("model", help="the name of the model")
    parser.add_argument(
        "--serve",
        metavar="latest|all|N,N",
        help="the versions that a server loads, one that runs included",
    )


def run(arguments: argparse.Namespace) -> int:
    """Changes what is asked for, and prints the versions."""
    folder = Path(arguments.repository, arguments.model)
    if not (folder / "config.pbtxt").is_file():
        raise GnnscriptError(f"there is no model '{arguments.model}' in '{arguments.repository}'")
    wanted = arguments.serve
    if wanted is not None:
        numbers = wanted.split(",")
        named = all(number.isdecimal() for number in numbers)
        try:
            serve_versions(
                arguments.repository,
                arguments.model,
                [int(number) for number in numbers] if named else wanted,
            )
        except ValueError as error:
            raise GnnscriptError(str(error)) from error
    served = served_versions(folder)
    for version in versions_of(folder):
        described = str(read_manifest(folder / str(version) / "model.pt")).splitlines()[0]
        print(f"{version}{', served' if version in served else ''}: {described}")
    return 0

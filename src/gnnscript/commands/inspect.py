"""Print what a saved model says of itself: what it takes, returns and needs.

The file is one that gnnscript.save or gnnscript.deploy.aoti wrote.
"""

from __future__ import annotations

import argparse

from gnnscript.deploy.manifest import read_manifest

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``gnnscript inspect``."""
    parser.add_argument("file", help="the saved model, such as model.pt")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the manifest."""
    manifest = read_manifest(arguments.file)
    print(manifest.to_json() if arguments.json else f"{manifest}\n", end="")
    return 0

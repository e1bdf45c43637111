"""What the behaviour tests share: one bare process per module, and programs run from files."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from conformance.forms import Plain
from conformance.graphs import GRAPHS
from gnnscript.testing import BareProcess, assert_scripts_like_eager

Check = Callable[..., None]
RunFile = Callable[..., str]


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process


@pytest.fixture
def check(bare: BareProcess) -> Check:
    """Compares a module with its script on two graphs, by default on ``(x, edge_index)``."""

    def run(module: nn.Module, *inputs: Any, **options: Any) -> None:
        inputs = inputs or tuple((graph.x, graph.edge_index) for graph in GRAPHS)
        assert_scripts_like_eager(module, *inputs, reload=bare, **options)

    return run


@pytest.fixture
def check_conv(check: Check) -> Check:
    """Compares a conv called as ``conv(x, edge_index)``, as the root and inside of a model."""

    def run(conv: nn.Module, **options: Any) -> None:
        check(conv, **options)
        check(Plain(conv), **options)

    return run


# As the tests' own process has them (pyproject.toml), which says why each is let through.
WARNINGS = [
    option
    for action in (
        "error",
        "ignore:`torch.jit",
        "ignore:Failing to pass a value to the 'type_params'",
        "ignore:Guards may run slower on Python 3.13.0",
        "ignore:`torch_geometric.distributed` has been deprecated",
    )
    for option in ("-W", action)
]


@pytest.fixture
def run_file(tmp_path: Path) -> RunFile:
    """Runs a program from a file of its own, as a user would, and returns what it prints."""

    def run(code: str, *, name: str = "program.py", env: dict[str, str] | None = None) -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        completed = subprocess.run(
            [sys.executable, *WARNINGS, str(path)],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    return run

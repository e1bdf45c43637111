"""The command line: how targets are found, and what the commands print."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import gnnscript
from gnnscript.cli import main

CONV = textwrap.dedent("""
    from torch_geometric.nn import MessagePassing

    import sibling

    class Difference(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

        def message(self, x_i, x_j):
            return sibling.SCALE * (x_j - x_i)

    class Sized(Difference):
        def __init__(self, size):
            super().__init__()

    def make():
        return Sized(3)

    instance = make()
    number = 3

    def nothing():
        return None
""")


@pytest.fixture
def conv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's file that imports its neighbour; what loading it leaves behind is undone."""
    path = tmp_path / "user_conv.py"
    path.write_text(CONV, encoding="utf-8")
    (tmp_path / "sibling.py").write_text("SCALE = 2\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield str(path)
    gnnscript.uninstall()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in (
            str(path),
            str(tmp_path / "sibling.py"),
        ):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["Difference", "make", "instance"])
def test_source_prints_the_specialised_code(conv_file: str, name: str, capsys) -> None:
    assert main(["source", f"{conv_file}:{name}"]) == 0
    printed = capsys.readouterr().out
    assert "x_j = gather(x, edge_index_j, -2)" in printed
    assert "sibling.SCALE" not in printed
    assert "* (x_j - x_i)" in printed


def test_an_importable_module_is_a_target_too(conv_file: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(Path(conv_file).parent)
    assert main(["source", "user_conv:Difference"]) == 0
    assert "class Difference(Lowered):" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{file}", "after a colon"),
        ("{file}:Missing", "has no 'Missing'"),
        ("missing.py:Conv", "found none at 'missing.py'"),
        ("missing_package.module:Conv", "there is no module 'missing_package'"),
        ("{file}:Sized", "takes arguments (size)"),
        ("{file}:number", "to be a module or to make one, got 3"),
        ("{file}:nothing", "to make a module, got None"),
    ],
)
def test_a_wrong_target_is_explained(conv_file: str, target: str, message: str, capsys) -> None:
    assert main(["source", target.format(file=conv_file)]) == 2
    assert message in capsys.readouterr().err


def test_python_m_gnnscript_lists_the_commands(run_python) -> None:
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module('gnnscript')"
    completed = run_python(code, env={"COLUMNS": "120"})
    assert "Print the explicit tensor code that a module is specialised to" in completed.stdout

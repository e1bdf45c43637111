"""The design's invariants: those of import-linter, and those that it cannot express."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src"
PACKAGE = SOURCES / "gnnscript"
MAX_LINES = 500

# Per dotted name: the only file that may use it. Any file may ask whether a module is loaded.
OWNERS = {
    "sys.meta_path": "intercept/hook.py",
    "sys.path_hooks": "intercept/hook.py",
    "wrapt.register_post_import_hook": "intercept/hook.py",
    "wrapt.when_imported": "intercept/hook.py",
    "wrapt.importer": "intercept/hook.py",
    "importlib.abc.MetaPathFinder": "intercept/hook.py",
    "importlib.abc.PathEntryFinder": "intercept/hook.py",
    "sys.modules": "specialize/loader.py",
    "exec": "specialize/loader.py",
    "builtins.exec": "specialize/loader.py",
}


def dotted_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name and attribute chain in ``tree``, import aliases resolved, with its line."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
                if alias.asname:
                    aliases[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name, node.lineno
                aliases[alias.asname or alias.name] = name
    asked = set(questions(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and node not in asked:
            chain: list[str] = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                chain.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name):
                chain.append(aliases.get(inner.id, inner.id))
                yield ".".join(reversed(chain)), node.lineno


def questions(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what ``tree`` only looks into: ``x`` of ``a in x``, ``x.get(a)``, and ``x[a]`` read."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[expression]):
                yield expression
            case ast.Call(func=ast.Attribute(value=expression, attr="get") as method):
                yield from (expression, method)
            case ast.Subscript(value=expression, ctx=ast.Load()):
                yield expression


def trespasses(path: str, code: str) -> list[str]:
    """The uses in ``code`` of what belongs to another file than ``path``, one line each."""
    return [
        f"{path}:{line}: {name} belongs to {OWNERS[name]}"
        for name, line in dotted_names(ast.parse(code))
        if OWNERS.get(name, path) != path
    ]


def python_files(*folders: Path) -> list[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


def test_hooks_and_generated_modules_have_one_owner() -> None:
    found = [
        line
        for file in python_files(PACKAGE)
        for line in trespasses(
            file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8")
        )
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.modules['a'] = b",
        "import sys as system\nsystem.modules.pop('a')",
        "import sys\ndel sys.modules['a']",
        "import sys\nfor name in list(sys.modules): ...",
        "import sys\nknown = sys.modules",
        "from sys import modules as known\nknown.clear()",
        "exec('a = 1')",
        "import builtins\nbuiltins.exec('a = 1')",
        "import sys\nsys.meta_path.insert(0, finder)",
        "from wrapt import when_imported as when\n@when('a')\ndef f(m): ...",
        "import wrapt\nwrapt.register_post_import_hook(f, 'a')",
        "import wrapt.importer",
        "import importlib.abc\nclass F(importlib.abc.MetaPathFinder): ...",
    ],
)
def test_trespasses_are_seen(code: str) -> None:
    assert trespasses("script/prepare.py", code)


def test_owners_may_use_what_is_theirs() -> None:
    assert trespasses("specialize/loader.py", "import sys\nsys.modules['a'] = b\nexec('')") == []
    assert trespasses("intercept/hook.py", "import sys\nsys.meta_path.append(f)") == []
    assert (
        trespasses("script/prepare.py", "import sys\nsys.modules.get('a'), 'a' in sys.modules")
        == []
    )
    assert trespasses("script/prepare.py", "import sys\nsys.path, self.modules(), a.exec()") == []


def test_files_are_short() -> None:
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "docs", "benchmarks"))]
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in python_files(*folders)
    }
    assert {file: lines for file, lines in lengths.items() if lines > MAX_LINES} == {}


# -- import-linter --------------------------------------------------------------------------------


# The finder of an editable installation would find the installed sources before those on the path.
LINT_IMPORTS = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint_imports(sources: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            LINT_IMPORTS,
            "--no-cache",
            "--config",
            str(ROOT / "pyproject.toml"),
        ],
        env={**os.environ, "PYTHONPATH": str(sources), "NO_COLOR": "1", "COLUMNS": "200"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_import_contracts_are_kept(tmp_path: Path) -> None:
    result = lint_imports(SOURCES, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_import_contracts_see_what_they_forbid(tmp_path: Path) -> None:
    sources = tmp_path / "src"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    package = sources / "gnnscript"
    violations = {
        "analyze": "from gnnscript.script import source\nimport re\n",
        "specialize": "from gnnscript.ops import anything\n",
        "ops": "import gnnscript._pyg\n",
        "intercept": "from torch_geometric.nn import MessagePassing\n",
        "client": "import torch\n",
    }
    for subpackage, code in violations.items():
        (package / subpackage / "violation.py").write_text(code, encoding="utf-8")
    with (package / "deploy" / "triton_model.py").open("a", encoding="utf-8") as copied:
        copied.write("import gnnscript._errors\n")
    result = lint_imports(sources, tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 6 broken" in result.stdout
    for line in (
        "gnnscript.analyze is not allowed to import gnnscript.script",
        "gnnscript.specialize is not allowed to import gnnscript.ops",
        "gnnscript.ops is not allowed to import gnnscript._pyg",
        "gnnscript is not allowed to import torch_geometric",
        "gnnscript.analyze is not allowed to import re",
        "gnnscript.client is not allowed to import torch",
        "gnnscript.deploy.triton_model is not allowed to import gnnscript._errors",
    ):
        assert line in result.stdout


# -- importing ------------------------------------------------------------------------------------

IMPORT_AND_COMPARE = """
import json, sys
import torch

def state():
    return [
        [id(finder) for finder in sys.meta_path],
        id(torch.jit.script),
        id(torch.jit._script._script_impl),
        sorted((name, id(value)) for name, value in vars(torch.nn.Module).items()),
    ]

before = state()
import gnnscript
print(json.dumps({
    "unchanged": state() == before,
    "pyg": sorted(name for name in sys.modules if name.startswith("torch_geometric")),
    "names": sorted(name for name in gnnscript.__all__ if hasattr(gnnscript, name)),
    "all": sorted(gnnscript.__all__),
}))
"""


def test_importing_the_package_has_no_side_effect(run_python) -> None:
    result = json.loads(run_python(IMPORT_AND_COMPARE).stdout)
    assert result["unchanged"]
    assert result["pyg"] == []
    assert result["names"] == result["all"]


def test_the_version_comes_from_the_package() -> None:
    import gnnscript

    try:
        installed = metadata.version("gnnscript")
    except metadata.PackageNotFoundError:
        pytest.skip("gnnscript is on the path, but not installed")
    assert installed == gnnscript.__version__

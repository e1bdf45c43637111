"""The pages are true: their code runs, prints what they show, and the files they name exist."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnnscript.deploy import ServerError, find_server

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("run_page.py")
PAGES = ["README.md", "docs/how-it-works.md", "docs/deployment.md", "docs/doors.md"]
BLOCK = re.compile(r"^```python\n.*?^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
# The outputs shown name options and lines of PyG's, which its next versions may move.
SHOWN_WITH = {"torch": "2.13", "torch-geometric": "2.8"}


def comparable(text: str) -> str:
    """Text without the line numbers of installed packages."""
    return re.sub(r"((?:torch|torch_geometric)/[\w/]+\.py)(?::|\", line )\d+", r"\1", text)


@pytest.mark.parametrize("name", PAGES)
def test_blocks_run_and_print_what_the_page_shows(name: str) -> None:
    if name == "docs/deployment.md":
        try:
            find_server()
        except ServerError as error:
            pytest.skip(str(error))
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", str(RUNNER), str(ROOT / name)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    outputs = json.loads(completed.stdout)
    shown = BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert len(outputs) == len(shown) > 1
    for package, version in SHOWN_WITH.items():
        if not importlib.metadata.version(package).startswith(f"{version}."):
            pytest.skip(f"the blocks run, but what the page shows is of {package} {version}")
    for output, expected in zip(outputs, shown, strict=True):
        if expected:
            assert comparable(output) == comparable(expected), f"run {RUNNER.name} {name} --write"


@pytest.mark.parametrize("name", [*PAGES, "docs/coverage.md", "docs/design.md", "docs/ops.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["docs/how-it-works.md", "docs/design.md"])
def test_files_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    stages = "analyze|deploy|intercept|ops|script|specialize"
    named = set(re.findall(rf"`((?:(?:{stages})/[\w/]+|_\w+)\.py)`", text))
    assert named
    for file in named:
        assert (ROOT / "src" / "gnnscript" / file).is_file(), file

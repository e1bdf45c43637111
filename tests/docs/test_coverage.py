"""The page docs/coverage.md names every class there is, and says of none where it was made."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from gnnscript.checking import DOORS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
PACKAGES = ("conv", "aggr", "norm", "pool", "unpool", "dense", "models")


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_is_named(package: str, text: str) -> None:
    module = importlib.import_module(f"torch_geometric.nn.{package}")
    named = set(re.findall(r"\w+", text))
    classes = [name for name in module.__all__ if inspect.isclass(getattr(module, name))]
    missing = sorted(set(classes) - named)
    assert not missing, "give them a case or a reason in NOT_TRIED, and write the page again"


def test_the_summary_adds_up(text: str) -> None:
    total = int(re.findall(r"from (\d+)\s+(?:of\s+the\s+\d+\s+)?cases", text)[0])
    shares = re.findall(r"^\| \*\*[^|]+\*\* ((?:\| \d+ of \d+ )+)\|$", text, re.MULTILINE)
    rows = [re.findall(r"(\d+) of (\d+)", share) for share in shares]
    assert sum(int(row[0][1]) for row in rows) == total
    for column, door in enumerate(("without gnnscript", *DOORS)):
        (line,) = re.findall(rf"^\| {door} \|.*\| (\d+) of (\d+) \|$", text, re.MULTILINE)
        assert int(line[0]) == sum(int(row[column][0]) for row in rows), door
        assert int(line[1]) == total


def test_nothing_of_the_machine_is_in_it(text: str) -> None:
    assert not re.findall(r"(?<![\w`.])/\w+/\S*", text)
    assert not re.findall(r"0x[0-9a-f]{6,}|site-packages|gnnscript_lowered", text)

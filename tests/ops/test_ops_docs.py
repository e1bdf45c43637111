"""The reference page of the ops states their signatures, and its example runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gnnscript import ops

PAGE = (Path(__file__).parents[2] / "docs" / "ops.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ops.__all__)
def test_the_page_states_the_signature(name: str) -> None:
    section = re.search(rf"^## {name}\n\n`(.+)`$", PAGE, re.MULTILINE)
    assert section is not None
    signature = str(inspect.signature(getattr(ops, name))).replace("torch.Tensor", "Tensor")
    assert section.group(1) == f"{name}{signature}"


def test_the_example_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    for block in blocks:
        exec(compile(block, "docs/ops.md", "exec"), {})

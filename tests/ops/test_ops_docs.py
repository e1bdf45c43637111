"""The reference page of the ops states their signatures, and its example runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gnnscript import ops

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    name: (DOCS / name).read_text(encoding="utf-8")
    for name in ("ops.md", "neighbors.md", "kernels.md")
}


@pytest.mark.parametrize("name", ops.__all__)
def test_the_page_states_the_signature(name: str) -> None:
    section = re.search(rf"^## {name}\n\n`(.+)`$", "".join(PAGES.values()), re.MULTILINE)
    assert section is not None
    signature = str(inspect.signature(getattr(ops, name))).replace("torch.Tensor", "Tensor")
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)  # of postponed annotations
    assert section.group(1) == f"{name}{signature}"


@pytest.mark.parametrize("page", PAGES)
def test_the_example_runs(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    for block in blocks:
        exec(compile(block, f"docs/{page}", "exec"), {})

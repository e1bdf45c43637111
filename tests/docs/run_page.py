"""Executes the Python blocks of a page in order, in a process of its own.

    python run_page.py PAGE            prints what each block printed, as a JSON list
    python run_page.py PAGE --write    writes it into the page instead

A ``text`` block right below a ``python`` block shows what that prints. Each block becomes a file
and a module of its own, named by its first line if that is ``# name.py``: so its classes have
source, and line numbers count from the start of the block. It sees the names of the blocks before
it. The paths of installed packages are shown from the package on.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import site
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
NAME = re.compile(r"# (\w+)\.py\n")


def execute(page: Path) -> list[str]:
    """Run the blocks; the standard output of each."""
    names: dict[str, Any] = {}
    outputs = []
    for number, block in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1):
        named = NAME.match(block["code"])
        module = types.ModuleType(named[1] if named else f"block_{number}")
        module.__file__ = f"{module.__name__}.py"
        Path(module.__file__).write_text(block["code"], encoding="utf-8")
        sys.modules[module.__name__] = module
        vars(module).update(names)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], module.__file__, "exec", dont_inherit=True), vars(module))
        names.update({k: v for k, v in vars(module).items() if not k.startswith("__")})
        outputs.append(without_prefixes(printed.getvalue()))
    return outputs


def without_prefixes(text: str) -> str:
    """Cut the paths of installed packages down to the package, and space at the ends of lines."""
    for folder in site.getsitepackages():
        text = text.replace(f"{folder}/", "")
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())


def written(page: Path, outputs: list[str]) -> str:
    """The page, showing these outputs."""
    remaining = iter(outputs)

    def block(match: re.Match[str]) -> str:
        output = next(remaining)
        if match["shown"] is None:
            return match[0]
        return f"```python\n{match['code']}```\n\n```text\n{output}```\n"

    return BLOCK.sub(block, page.read_text(encoding="utf-8"))


def main() -> None:
    page = Path(sys.argv[1]).resolve()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # for the blocks' files, and those that they write
        outputs = execute(page)
        os.chdir(here)
    if "--write" in sys.argv[2:]:
        page.write_text(written(page, outputs), encoding="utf-8")
    else:
        print(json.dumps(outputs))


if __name__ == "__main__":
    main()

"""Executes the Python blocks of a page in order, in a process of its own.

    python run_page.py PAGE            prints what each block printed, as a JSON list
    python run_page.py PAGE --write    writes it into the page instead

A ``text`` block right below a ``python`` block shows what that prints. All blocks share one
namespace, the ``__main__`` of the process. The source of each is registered under a file name of
its own, the one that a first line ``# name.py`` gives, so that the classes in it have source and
line numbers count from the start of the block. The paths of installed packages are shown from
the package on.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import re
import site
import sys
import tempfile
import types
from pathlib import Path

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
NAME = re.compile(r"# (\w+\.py)\n")


def execute(page: Path) -> list[str]:
    """Run the blocks; the standard output of each."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    outputs = []
    for number, block in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1):
        code = block["code"]
        named = NAME.match(code)
        file = named[1] if named else f"{page.stem}-{number}.py"
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, file, "exec", dont_inherit=True), vars(main))
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
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        outputs = execute(page)
    if "--write" in sys.argv[2:]:
        page.write_text(written(page, outputs), encoding="utf-8")
    else:
        print(json.dumps(outputs))


if __name__ == "__main__":
    main()

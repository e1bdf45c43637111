"""``gnnscript.check`` and the command of this name: outcomes, reasons, exit codes, the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing, SAGEConv

import gnnscript
from conformance.graphs import GRAPHS, IN, OUT
from gnnscript import GnnscriptError
from gnnscript.checking import DOORS
from gnnscript.cli import main

CALLS = [(g.x, g.edge_index) for g in GRAPHS]


class ByValue(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if float(x.max()) > 3:
            x = x / x.max()
        return self.propagate(edge_index, x=x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(IN, OUT)
        self.second = ByValue()
        self.unused = SAGEConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index), edge_index)


def test_each_conv_has_its_outcomes_and_failures_their_line() -> None:
    model = Net()
    report = gnnscript.check(model, CALLS)
    assert model.training
    rows = {row.path: row for row in report.rows}
    assert list(rows) == ["", "first", "second", "unused"]
    assert all(outcome.status == "ok" for outcome in rows["first"].outcomes.values())
    for path in ("", "second"):
        status = {door: outcome.status for door, outcome in rows[path].outcomes.items()}
        assert status == dict(zip(DOORS, ["ok", "ok", "failed", "failed", "failed"], strict=True))
        for door in ("fx", "compile", "export"):
            outcome = rows[path].outcomes[door]
            assert outcome.location == f"{__file__}:28", door
            assert "torch.where" in outcome.remedy
    assert rows["unused"].outcomes["script"].status == "ok"
    assert rows["unused"].outcomes["export"].status == "skipped"
    assert not report.ok
    text = str(report)
    assert text.splitlines()[0].split() == ["module", *DOORS]
    assert "first (GCNConv)" in text
    assert f"  {__file__}:28" in text


def test_calls_are_made_up_for_usual_arguments() -> None:
    report = gnnscript.check(lambda: SAGEConv((IN, OUT), OUT))
    assert report.ok
    assert {outcome.status for outcome in report.rows[0].outcomes.values()} == {"ok"}


def test_an_optional_argument_that_is_given_is_saved() -> None:
    calls = [(g.x, g.edge_index, g.weight) for g in GRAPHS]
    assert gnnscript.check(GCNConv(IN, OUT), calls, doors=["script", "load"]).ok


class Unusual(MessagePassing):
    def forward(self, nodes: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, nodes=nodes)

    def message(self, nodes_j: Tensor) -> Tensor:
        return nodes_j


def test_without_inputs_what_can_be_is_checked() -> None:
    (row,) = gnnscript.check(Unusual, doors=["script", "load", "fx"]).rows
    status = [outcome.status for outcome in row.outcomes.values()]
    assert status == ["ok", "ok", "skipped"]
    call = {"nodes": CALLS[0][0], "edge_index": CALLS[0][1]}
    assert gnnscript.check(Unusual, call, doors=["script", "fx", "export"]).ok


class Wrong(nn.Module):
    """Computes something else when it is scripted."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if torch.jit.is_scripting() else x


def test_results_are_compared() -> None:
    (row,) = gnnscript.check(Wrong(), (torch.ones(3),), doors=["script", "compile"]).rows
    assert row.outcomes["compile"].status == "ok"
    assert "differs from eager" in row.outcomes["script"].cause


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected doors out of"):
        gnnscript.check(Wrong(), doors=["window"])
    with pytest.raises(TypeError, match="expected a module"):
        gnnscript.check(dict)  # type: ignore[arg-type]
    with pytest.raises(
        GnnscriptError, match=r"'Net' itself raises on .* mat1 and mat2 .* give calls"
    ):
        gnnscript.check(Net(), (torch.ones(4, IN + 1), torch.tensor([[0], [1]])))


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "checked_by_users.py"
    code = """
        import torch
        from torch_geometric.nn import GCNConv, MessagePassing

        class Open(MessagePassing):
            def forward(self, x, edge_index, **kwargs):
                return self.propagate(edge_index, x=x, **kwargs)

        class Sized(Open):
            def __init__(self, size):
                super().__init__()

        class Difference(MessagePassing):
            def forward(self, x, edge_index):
                return self.propagate(edge_index, x=x)

            def message(self, x_i, x_j):
                return x_j - x_i

        class Holds(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = GCNConv(3, 2)

            def forward(self, x, edge_index):
                return self.conv(x, edge_index)

        def with_inputs():
            return GCNConv(3, 2), examples()

        def examples():
            return torch.ones(4, 3), torch.tensor([[0, 1], [1, 2]])

        def wide():
            return torch.ones(4, 5), torch.tensor([[0, 1], [1, 2]])

        def lost():
            raise KeyError("events")
    """
    path.write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return str(path)


def test_the_command_says_what_failed(user_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{user_file}:with_inputs", "--doors", "script,fx"]) == 0
    assert capsys.readouterr().out.split() == ["module", "script", "fx", "GCNConv", "ok", "ok"]
    assert main(["check", f"{user_file}:Open", "--doors", "script", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    outcome = report["rows"][0]["outcomes"]["script"]
    assert outcome["status"] == "failed"
    assert outcome["location"] == f"{user_file}:7"
    assert "name them in the signature" in outcome["remedy"]
    assert main(["check", f"{user_file}:Open", "--doors", "window"]) == 2
    assert main(["check"]) == 2


def test_the_command_checks_each_class_of_a_file(
    user_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = ["--inputs", f"{user_file}:examples"]
    assert main(["check", user_file, *examples, "--doors", "script,fx"]) == 1
    table, *notes = capsys.readouterr().out.split("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["module", "script", "fx"],
        ["Open", "failed", "failed"],
        ["Sized", "skipped", "skipped"],
        ["Difference", "ok", "ok"],
        ["Holds", "ok", "ok"],
        ["conv", "(GCNConv)", "ok", "ok"],
    ]
    assert [note.split(",")[0] for note in notes] == ["Open", "Sized"]
    assert f"{user_file}:7" in notes[0]
    assert "takes arguments (size); name a function without arguments" in notes[1]


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        ("{file}:Closed", "examples", "has no 'Closed'; the modules that it defines: Open, Sized"),
        ("{file}:Holds", "wide", "'Holds' itself raises on the example inputs"),
        ("{file}:Holds", "lost", "checked_by_users.py:38: KeyError: 'events'"),
        ("{file}:Holds", "Open", "expected '{file}:Open' to be a tuple"),
        ("{folder}/empty.py", None, "defines no class of modules"),
        ("{folder}/sized.py", None, "could be made:\nmodule  script"),
        ("{folder}/program.py", None, "it ends the process; put what only a program does under"),
        ("{folder}/unfinished.py", None, "unfinished.py:1: SyntaxError"),
    ],
)
def test_what_cannot_be_checked_is_explained(
    user_file: str,
    target: str,
    inputs: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(user_file).parent
    (folder / "empty.py").write_text("from torch.nn import Linear\n", encoding="utf-8")
    sized = "import torch\n\nclass Net(torch.nn.Linear):\n    pass\n"
    (folder / "sized.py").write_text(sized, encoding="utf-8")
    (folder / "program.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    (folder / "unfinished.py").write_text("class Net(:\n", encoding="utf-8")
    names = {"file": user_file, "folder": folder}
    command = ["check", target.format(**names), "--doors", "script"]
    command += [] if inputs is None else ["--inputs", f"{user_file}:{inputs}"]
    assert main(command) == 2
    assert message.format(**names) in capsys.readouterr().err


class Chain(nn.Module):
    """Its convs are called with their options by keyword, and with hidden features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = SAGEConv(IN, 16)
        self.second = GCNConv(16, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        hidden = self.first(x=x, edge_index=edge_index, size=None).relu()
        return self.second(hidden, edge_index, edge_weight=None)


def test_convs_of_a_model_are_checked_as_they_are_called() -> None:
    report = gnnscript.check(Chain)
    assert [row.path for row in report.rows] == ["", "first", "second"]
    assert report.ok, str(report)
    assert gnnscript.check(SAGEConv(IN, OUT), [(*CALLS[0], None)], doors=["script", "load"]).ok


def test_a_report_says_once_what_several_doors_have_in_common() -> None:
    text = str(gnnscript.check(ByValue(), CALLS))
    assert "\nByValue, compile: failed\n" in text
    text = str(gnnscript.check(Unusual, doors=["script", "fx", "export"]))
    assert "Unusual, fx, export: skipped" in text
    assert "none can be made up for 'nodes'" in text


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        ("def make(:", "make", "checked.py:1: SyntaxError"),
        ("x = 1\nimport not_there", "make", "checked.py:2: ModuleNotFoundError: No module named"),
        (
            "def make():\n    raise OSError('no weights')",
            "make",
            "checked.py:2: OSError: no weights",
        ),
        ("def make(width):\n    pass", "make", "takes arguments (width)"),
        ("make = 3", "make", "to be a module or to make one"),
        ("make = dict", "make", "to make a module, got {}"),
        ("", "make", "has no 'make'"),
    ],
)
def test_what_cannot_be_made_says_where(
    code: str,
    name: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "checked.py"
    path.write_text(code, encoding="utf-8")
    assert main(["check", f"{path}:{name}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_the_page_is_written_from_the_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "coverage.md"
    cases = Path(__file__).parent / "conformance"
    options = ["--all-pyg", "--cases", str(cases), "--doors", "script,fx", "--write", str(page)]
    # A process of its own: other tests decorate classes of PyG's, which then script "alone".
    only = ["--only", "WLConv-one-hot"]
    command = [sys.executable, "-m", "gnnscript", "check", *options, *only]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    text = page.read_text(encoding="utf-8")
    assert "| **WLConv** | 0 of 1 | 1 of 1 | 0 of 1 |" in text
    assert "| one-hot | ✗ | ✓ | ✗ |" in text
    assert "| script | `torch.jit.script(model)` | 1 of 1 |" in text
    assert "depends on the values that a tensor holds" in text
    assert "  - fx: WLConv (one-hot) (`torch_geometric/nn/conv/wl_conv.py:" in text
    assert "- GCNConv" not in text
    assert "- FusedGATConv: needs dgNN" in text
    assert str(Path.home()) not in text
    assert "0 of 1 cases pass script, fx" in run.stdout
    assert main(["check", "--all-pyg", "--cases", str(tmp_path)]) == 2
    assert "run this in a clone" in capsys.readouterr().err


def test_processes_share_the_cases_and_write_the_same_page(tmp_path: Path) -> None:
    cases = Path(__file__).parent / "conformance"
    options = [
        "--all-pyg",
        "--cases",
        str(cases),
        "--doors",
        "script,fx",
        "--only",
        "EdgePooling",
    ]
    pages, told = [], []
    for jobs in ("1", "2"):
        page = tmp_path / f"{jobs}.md"
        command = [sys.executable, "-m", "gnnscript", "check", *options, "--jobs", jobs]
        run = subprocess.run([*command, "--write", str(page)], capture_output=True, check=False)
        assert run.returncode == 1, run.stderr
        pages.append(page.read_text(encoding="utf-8"))
        told.append(sorted(line.split(b" ", 1)[1] for line in run.stderr.splitlines()))
    assert pages[0] == pages[1]
    assert re.search(r"from 2 (of the \d+ )?cases", " ".join(pages[0].split()))
    assert told[0] == told[1]
    assert main(["check", "--all-pyg", "--cases", str(cases), "--jobs", "0"]) == 2

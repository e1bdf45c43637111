"""The demo: its parts on small graphs, and the whole as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub

from bare import BareModel, assert_bare
from compare import KINDS, Row, compare, format_table
from gat import GAT
from hgcal.edgenet import EdgeNet
from hgcal.generator import generate_hits
from hgcal.graph import MIP, build_graph
from training import (
    accuracy,
    category_weights,
    edge_quality,
    signal_wedges,
    train_edgenet,
    train_gat,
)


@pytest.fixture(scope="module")
def small_graph() -> Data:
    return build_graph(generate_hits(0, noise=200, photons=1, pions=0, muons=1))


def random_graph(nodes: int, edges: int, channels: int) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, channels), torch.randint(nodes, (2, edges))


def make_row(**changes: Any) -> Row:
    row: dict[str, Any] = {
        "model": "EdgeNet",
        "graph": "wedge",
        "nodes": 1234,
        "edges": 56_789,
        "difference": 1e-6,
        "scale": 2.0,
        "size": 423_456,
        "milliseconds": dict(zip(KINDS, (12.25, 3.0, 1234.5), strict=True)),
    }
    return Row(**{**row, **changes})


# -- scripted unchanged ---------------------------------------------------------------------------


@pytest.mark.usefixtures("auto")
def test_gat_compares_equal_on_two_sizes() -> None:
    club = KarateClub()[0]
    graphs = {
        "club": (club.x, club.edge_index),
        "random": random_graph(200, 900, club.num_features),
    }
    rows = compare("GAT", GAT(club.num_features, 4), graphs, rounds=2)
    assert [(row.graph, row.nodes, row.edges) for row in rows] == [
        ("club", 34, 156),
        ("random", 200, 900),
    ]
    for row in rows:
        assert row.equal, row
        assert row.size > 10_000
        assert all(row.milliseconds[kind] > 0 for kind in KINDS)


@pytest.mark.usefixtures("auto")
def test_edgenet_compares_equal_on_two_sizes(small_graph: Data) -> None:
    wedge = signal_wedges(small_graph, 3)[0]
    graphs = {
        "wedge": (wedge.x, wedge.edge_index),
        "endcap": (small_graph.x, small_graph.edge_index),
    }
    rows = compare("EdgeNet", EdgeNet(), graphs, rounds=2)
    assert [row.edges for row in rows] == [wedge.num_edges, small_graph.num_edges]
    assert all(row.equal for row in rows), rows


# -- the comparison itself ------------------------------------------------------------------------


class ScriptedOtherwise(nn.Module):
    """Stands for a wrong compilation."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return x[edge_index[0]] + self.error
        return x[edge_index[0]]


@pytest.mark.parametrize(
    ("error", "equal"), [(0.0, True), (1e-3, False), (float("nan"), False), (float("inf"), False)]
)
def test_comparison_sees_a_difference(error: float, equal: bool) -> None:
    (row,) = compare("model", ScriptedOtherwise(error), {"graph": random_graph(5, 9, 3)}, rounds=2)
    assert row.equal is equal
    if 0 < error < 1:
        assert row.difference == pytest.approx(error, rel=1e-3)


def test_tolerance_follows_the_scale_of_the_output() -> None:
    assert make_row(difference=5e-5, scale=10.0).equal
    assert not make_row(difference=5e-5, scale=2.0).equal
    assert not make_row(difference=5e-5, scale=float("nan")).equal


class Picky(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if len(x) > 3:
            raise ValueError("too many nodes")
        return x[edge_index[0]]


def test_bare_process_reports_what_went_wrong(tmp_path: Path) -> None:
    torch.jit.script(Picky()).save(str(tmp_path / "model.pt"))
    graphs = [random_graph(3, 4, 2), random_graph(4, 4, 2)]
    with BareModel(tmp_path / "model.pt", graphs, tmp_path) as bare:
        output, milliseconds = bare.run(0)
        torch.testing.assert_close(output, graphs[0][0][graphs[0][1][0]])
        assert milliseconds > 0
        with pytest.raises(RuntimeError, match=r"torch alone, which ended with(?s:.*)too many"):
            bare.run(1)
        with pytest.raises(RuntimeError, match="torch alone"):
            bare.run(0)


def test_bare_process_refuses_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("no model", encoding="utf-8")
    with (
        BareModel(tmp_path / "model.pt", [random_graph(3, 4, 2)], tmp_path) as bare,
        pytest.raises(RuntimeError, match="torch alone"),
    ):
        bare.run(0)


def test_this_process_is_not_bare() -> None:
    with pytest.raises(AssertionError, match="imports torch_geometric"):
        assert_bare()


def test_table_is_aligned_and_says_which_differ() -> None:
    lines = format_table(
        [make_row(), make_row(graph="whole endcap", difference=0.5, nodes=15_743)]
    ).splitlines()
    assert len(lines) == 4
    assert re.search(r"EdgeNet +wedge +1,234 +56,789 +yes, max diff 1\.0e-06 +423 kB", lines[2])
    assert re.search(r"12\.2 +3\.0 +1,234\.5$", lines[2])
    assert re.search(r"whole endcap +15,743 .* NO, max diff 5\.0e-01", lines[3])
    assert len({line.index("423 kB") for line in lines[2:]}) == 1


# -- training -------------------------------------------------------------------------------------


def test_gat_learns_the_club() -> None:
    club = KarateClub()[0]
    assert accuracy(train_gat(club, 150), club) > 0.6


def test_edgenet_learns_to_tell_signal() -> None:
    graph = build_graph(generate_hits(0, noise=150, photons=0, pions=0, muons=1))
    model = train_edgenet([graph], steps=40, seed=0)
    accepted, mistaken = edge_quality(model, graph)
    assert accepted > mistaken + 0.3


def test_weights_make_categories_count_alike(small_graph: Data) -> None:
    weights = category_weights([small_graph])
    counts = small_graph.edge_label.bincount(minlength=4)
    present = counts > 0
    assert present.tolist() == [True, False, True, True]
    torch.testing.assert_close(
        (weights * counts)[present], torch.full((3,), float(small_graph.num_edges))
    )
    assert weights[1] == 0


def test_signal_wedges_start_with_the_richest() -> None:
    graph = build_graph(generate_hits(0, noise=800, photons=0, pions=0, muons=2))
    found = [int((wedge.edge_label == MIP).sum()) for wedge in signal_wedges(graph, 8)]
    assert 0 < len(found) < 8
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0
    noise = build_graph(generate_hits(0, noise=800, photons=0, pions=0, muons=0))
    with pytest.raises(ValueError, match="at least one true cluster, got noise alone"):
        signal_wedges(noise, 8)


# -- the script -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_prints_the_table(examples: Path) -> None:
    completed = subprocess.run(
        [sys.executable, examples / "demo.py", "--steps", "3"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    rows = [line for line in completed.stdout.splitlines() if "max diff" in line]
    assert [re.split(r"  +", row)[:2] for row in rows] == [
        ["GAT", "KarateClub"],
        ["GAT", "random"],
        ["EdgeNet", "wedge"],
        ["EdgeNet", "whole endcap"],
    ]
    for row in rows:
        model, _, nodes, edges, equal, size, *milliseconds = re.split(r"  +", row)
        assert equal.startswith("yes, max diff "), row
        assert size.endswith(" kB")
        assert len(milliseconds) == 3
        assert all(float(value.replace(",", "")) > 0 for value in milliseconds), row
        if model == "EdgeNet":
            ratio = int(edges.replace(",", "")) / int(nodes.replace(",", ""))
            assert ratio >= 20
    assert int(re.split(r"  +", rows[3])[2].replace(",", "")) > 15_000
    assert "of the shower generator" in completed.stdout
    assert "Warning" not in completed.stderr


def test_demo_fails_where_outputs_differ(examples: Path, run_python: Any) -> None:
    completed = run_python(
        "import sys\n"
        "sys.path.insert(0, sys.argv.pop())\n"
        "import demo\n"
        "from compare import Row\n"
        "row = Row('GAT', 'club', 34, 156, 0.1, 1.0, 9, dict(eager=1, scripted=1, reloaded=1))\n"
        "demo.demonstrate_gat = lambda steps: [row]\n"
        "demo.demonstrate_edgenet = lambda graphs, steps, seed: []\n"
        "sys.exit(demo.main())\n",
        examples,
        check=False,
    )
    assert completed.returncode == 1, completed.stderr
    assert "NO, max diff 1.0e-01" in completed.stdout
    assert "FAILED: the outputs differ for GAT on club" in completed.stdout


def test_demo_explains_wrong_options(examples: Path, run_python: Any) -> None:
    wrong = {
        "--events absent.root": "absent.root: no such file",
        "--steps 0": "--steps: expected at least 1, got 0",
        "--threads 0": "--threads: expected at least 1, got 0",
        "--seed -1": "--seed: expected 0 or more, got -1",
    }
    completed = run_python(
        "import sys\n"
        "examples, *wrong = sys.argv[1:]\n"
        "sys.path.insert(0, examples)\n"
        "import demo\n"
        "for options in wrong:\n"
        "    sys.argv = ['demo.py', *options.split()]\n"
        "    try:\n"
        "        demo.main()\n"
        "    except SystemExit as end:\n"
        "        print(options, end.code)\n",
        examples,
        *wrong,
    )
    assert completed.stdout.splitlines() == [f"{options} 2" for options in wrong]
    for message in wrong.values():
        assert message in completed.stderr

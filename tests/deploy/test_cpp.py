"""Models run in C++ as in Python, and what is wrong is said in the same words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gnnscript
from deploy.conftest import Answer
from deploy.deploy_models import (
    Edge,
    Forces,
    Graph,
    Hetero,
    Node,
    Typed,
    edge_call,
    edges,
    graph_call,
    hetero_call,
    node_call,
    typed_call,
)
from gnnscript import DeployError
from gnnscript.cpp import cmake_prefix
from gnnscript.deploy import flat_call, validate
from gnnscript.deploy.package import Kernels
from gnnscript.ops import library

CASES = {
    "node": (Node, [node_call(6, 17), node_call(9, 30)]),
    "edge": (Edge, [edge_call(6, 17), edge_call(11, 30)]),
    "graph": (Graph, [graph_call(6, 17), graph_call(13, 30)]),
    "hetero": (Hetero, [hetero_call(5, 7, 17), hetero_call(8, 4, 30)]),
    "typed": (Typed, [typed_call(5, 7, 17), typed_call(8, 4, 30)]),
}


@pytest.mark.parametrize("kernels", ["portable", "native"])
@pytest.mark.parametrize("case", CASES)
def test_a_model_computes_in_cpp_what_it_does_in_python(
    case: str, kernels: Kernels, answer: Answer, tmp_path: Path
) -> None:
    if kernels == "native" and not library.paths():
        pytest.skip("the native library is not built")
    make, calls = CASES[case]
    model = make().eval()
    path = tmp_path / "model.pt"
    manifest = gnnscript.save(
        model, path, kernels=kernels, example_inputs=calls[0], all_tensors=True
    )
    with gnnscript.intercept.installed():
        scripted = torch.jit.script(model)
    loaded = gnnscript.load(path)
    for call in calls:
        flat = flat_call(scripted, call)
        with torch.no_grad():
            want = loaded(**flat)
        found = answer(path, flat)
        assert isinstance(found, dict), found
        names = [spec.name for spec in manifest.outputs]
        assert set(found) == set(names)
        values = [want] if isinstance(want, Tensor) else list(want)
        torch.testing.assert_close([found[name] for name in names], values)


def test_a_model_may_ask_for_gradients(answer: Answer, tmp_path: Path) -> None:
    model = Forces().eval()
    path = tmp_path / "model.pt"
    gnnscript.save(model, path, example_inputs=graph_call(6, 17))
    call = graph_call(13, 30)
    found = answer(path, dict(zip(("pos", "edge_index", "batch"), call, strict=True)))
    assert isinstance(found, dict), found
    torch.testing.assert_close(list(found.values()), [t.detach() for t in model(*call)])


def test_graphs_without_nodes_or_edges(answer: Answer, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    gnnscript.save(Node().eval(), path, example_inputs=node_call(6, 17), all_tensors=True)
    for nodes in (3, 0):
        empty = {"x": torch.randn(nodes, 4), "edge_index": torch.empty(2, 0, dtype=torch.int64)}
        found = answer(path, empty)
        assert isinstance(found, dict), found
        assert found["output"].shape == (nodes, 3)


X, INDEX, ATTRIBUTES = torch.randn(5, 4), edges(5, 5, 9), torch.rand(9, 1)


def with_value(row: int, value: int) -> Tensor:
    index = INDEX.clone()
    index[row, 3] = value
    return index


WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "missing": (
        {"x": X, "edge_index": INDEX},
        "the input 'edge_attr' is missing; the model takes x",
    ),
    "unknown": (
        {"x": X, "edge_index": INDEX, "edge_attr": ATTRIBUTES, "weight": X},
        "the model has no input 'weight'; it takes x, edge_index, edge_attr",
    ),
    "dtype": (
        {"x": X, "edge_index": INDEX.int(), "edge_attr": ATTRIBUTES},
        "expected 'edge_index' to be int64, got int32",
    ),
    "rank": (
        {"x": X[None], "edge_index": INDEX, "edge_attr": ATTRIBUTES},
        "expected 'x' of shape [N, 4], which has 2 dimensions, got [1, 5, 4]",
    ),
    "features": (
        {"x": X[:, :3], "edge_index": INDEX, "edge_attr": ATTRIBUTES},
        "expected 'x' of shape [N, 4], got [5, 3]",
    ),
    "edges": (
        {"x": X, "edge_index": INDEX, "edge_attr": ATTRIBUTES[:7]},
        "expected 'edge_attr' of shape [E, 1] with E = 9 as in 'edge_index', got [7, 1]",
    ),
    "above": (
        {"x": X, "edge_index": with_value(1, 5), "edge_attr": ATTRIBUTES},
        "expected values of row 1 of 'edge_index' in [0, 5), as 'x' has N = 5, got 5",
    ),
    "negative": (
        {"x": X, "edge_index": with_value(0, -2), "edge_attr": ATTRIBUTES},
        "expected values of row 0 of 'edge_index' in [0, 5), as 'x' has N = 5, got -2",
    ),
}


def test_wrong_inputs_are_refused_in_the_same_words(answer: Answer, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    manifest = gnnscript.save(Edge(), path, example_inputs=edge_call(6, 17))
    for inputs, text in WRONG.values():
        with pytest.raises(DeployError) as raised:
            validate(manifest.inputs, inputs)
        assert str(raised.value).startswith(text)
        assert answer(path, inputs) == str(raised.value)
        with pytest.raises(DeployError) as raised:
            validate(manifest.inputs, {name: tensor.numpy() for name, tensor in inputs.items()})
        assert str(raised.value).startswith(text)
    right = {"x": X, "edge_index": INDEX, "edge_attr": ATTRIBUTES}
    validate(manifest.inputs, right)
    assert isinstance(answer(path, right), dict)


def test_unfit_files_are_refused_in_the_same_words(answer: Answer, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(DeployError) as raised:
            gnnscript.load(path)
        message = answer(path, {})
        assert isinstance(message, str)
        assert message.split("(")[0].split(";")[0].strip() == (
            str(raised.value).split("(")[0].split(";")[0].strip()
        )
        return message

    path = tmp_path / "model.pt"
    assert "there is no file" in refused(path)
    gnnscript.save(Node(), path, example_inputs=node_call(5, 9))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is damaged or no model" in refused(path)
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert "has no manifest" in refused(path)

    gnnscript.save(Node(), path, example_inputs=node_call(5, 9))
    data = json.loads(gnnscript.inspect(path).to_json())
    ops = ["gnnscript::absent(Tensor x) -> Tensor"]
    data["libraries"] = [{"file": "libgnnscript_absent.so", "sha256": "0" * 64, "ops": ops}]
    manifest = gnnscript.Manifest.from_json(json.dumps(data))
    extra = {"gnnscript.json": manifest.to_json(), "gnnscript.txt": manifest.to_lines()}
    torch.jit.save(torch.jit.load(path), path, _extra_files=extra)
    assert "the model needs libgnnscript_absent.so" in refused(path)
    (tmp_path / "libgnnscript_absent.so").write_bytes(b"no library")
    assert "libgnnscript_absent.so' does not load" in refused(path)


def test_models_that_take_other_things_than_tensors_are_refused(
    answer: Answer, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    gnnscript.save(Hetero(), path, example_inputs=hetero_call(5, 7, 9))
    assert "takes 'x_dict' of type Dict[str, Tensor], no tensor; save it with all_tensors" in str(
        answer(path, {})
    )
    gnnscript.save(Node(), path)
    assert "does not say which inputs it takes; save it with example_inputs" in str(
        answer(path, {})
    )


class Scores(Edge):
    """An edge classifier of nodes that lie on a line: near ones belong together."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        distance = (x[edge_index[0], 0] - x[edge_index[1], 0]).abs()
        return (
            0.5
            - distance
            + 0 * self.propagate(edge_index, x=x, edge_attr=distance.view(-1, 1)).sum()
        )


@pytest.mark.parametrize("classes", [False, True])
def test_the_example_finds_clusters(classes: bool, programs: Path, tmp_path: Path) -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = Scores()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            score = self.scores(x, edge_index)
            return torch.stack([-score, score], dim=1)

    model: nn.Module = Classes() if classes else Scores()
    x = torch.tensor([[0.0], [5.0], [0.4], [5.3], [9.0], [0.8]])
    index = torch.combinations(torch.arange(6)).t().contiguous()
    gnnscript.save(model, tmp_path / "model.pt", example_inputs=(x, index))
    lines = [f"{len(x)} {x.size(1)} {index.size(1)}"]
    lines += [" ".join(map(str, row)) for row in x.tolist()]
    lines += [" ".join(map(str, pair)) for pair in index.t().tolist()]
    (tmp_path / "graph.txt").write_text("\n".join(lines), encoding="utf-8")

    def run(*names: str) -> subprocess.CompletedProcess[str]:
        command: list[Any] = [programs / "clusters" / "clusters", *(tmp_path / n for n in names)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    completed = run("model.pt", "graph.txt", "clusters.txt")
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "clusters.txt").read_text().split() == ["0", "1", "0", "1", "2", "0"]
    (tmp_path / "short.txt").write_text("\n".join(lines[:-2]), encoding="utf-8")
    completed = run("model.pt", "short.txt", "clusters.txt")
    assert completed.returncode == 1
    assert "shorter than its first line says" in completed.stderr


def test_the_command_prints_the_prefix() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "gnnscript", "--cmake-prefix"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == f"{cmake_prefix()}\n"
    package, torch_prefix = map(Path, printed.strip().split(";"))
    assert (package / "share/cmake/gnnscript/gnnscriptConfig.cmake").is_file()
    assert (torch_prefix / "Torch/TorchConfig.cmake").is_file()

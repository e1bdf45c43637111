"""Saved models carry a manifest, load alone, and say what is wrong where they do not load."""

from __future__ import annotations

import contextlib
import copy
import json
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
import torch
from torch import Tensor, nn

import gnnscript
from deploy.deploy_models import (
    Edge,
    Graph,
    Hetero,
    Named,
    Node,
    Typed,
    Unannotated,
    Words,
    edge_call,
    edges,
    graph_call,
    hetero_call,
    node_call,
    pair_call,
    typed_call,
    words_call,
)
from gnnscript import DeployError, deploy
from gnnscript.cli import main
from gnnscript.deploy import Manifest, all_tensors, flat_call
from gnnscript.deploy.package import scripted_for
from gnnscript.deploy.structure import flat_outputs
from gnnscript.testing import BareProcess

CASES: dict[str, tuple[Callable[[], nn.Module], list[Any]]] = {
    "node": (Node, [node_call(6, 17), node_call(9, 30)]),
    "weighted": (Node, [(*node_call(6, 17), torch.rand(17)), (*node_call(9, 30), torch.rand(30))]),
    "edge": (Edge, [edge_call(6, 17), edge_call(11, 30)]),
    "graph": (Graph, [graph_call(6, 17), graph_call(13, 30)]),
    "hetero": (Hetero, [hetero_call(5, 7, 17), hetero_call(8, 4, 30)]),
    "typed": (Typed, [typed_call(5, 7, 17), typed_call(8, 4, 30)]),
    "unannotated": (Unannotated, [pair_call(5, 7, 17), pair_call(8, 4, 30)]),
    "words": (Words, [words_call(3), words_call(5)]),
    "named": (Named, [(torch.randn(3, 4),), (torch.randn(5, 4),)]),
}


def expected(model: nn.Module, call: Any) -> list[Tensor]:
    args, kwargs = (call, {}) if isinstance(call, tuple) else ((), call)
    with torch.no_grad():
        output = model(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        return [tensor for _, tensor in flat_outputs(output, numbers=True)]


@pytest.mark.parametrize("case", CASES)
def test_all_tensors_computes_the_same_alone(case: str, bare: BareProcess, tmp_path: Path) -> None:
    make, (first, second) = CASES[case]
    model = make()
    path = tmp_path / "model.pt"
    manifest = gnnscript.save(model, path, example_inputs=first, all_tensors=True)
    assert model.training  # as it was
    model.eval()
    scripted = scripted_for(model, None, [first])
    wrapped = all_tensors(scripted, first)
    calls = [flat_call(scripted, call) for call in (first, second)]
    loaded = gnnscript.load(path)
    for call, flat, alone in zip((first, second), calls, bare.run(path, calls), strict=True):
        want = [t.reshape(1) if t.dim() == 0 else t for t in expected(model, call)]
        own = [module(**copy.deepcopy(flat)) for module in (wrapped, loaded)]
        for output in (*own, alone):
            got = [output] if isinstance(output, Tensor) else list(output)
            torch.testing.assert_close([t.detach() for t in got], want)
    assert all(argument.type == "Tensor" for argument in manifest.arguments)
    assert [spec.name for spec in manifest.inputs] == list(calls[0])
    assert manifest == gnnscript.inspect(path)
    assert manifest.check is not None
    assert manifest.check.against == "eager"
    assert manifest.check.calls > 1


def test_names_of_parts_are_kept() -> None:
    make, (first, _) = CASES["hetero"]
    with gnnscript.intercept.installed():
        scripted = torch.jit.script(make().eval())
    wrapped = all_tensors(scripted, first)
    names = [argument.name for argument in wrapped.forward.schema.arguments[1:]]
    assert names == [
        "x_dict_source", "x_dict_target", "edge_index", "scales_0", "scales_1", "power"
    ]  # fmt: skip
    assert wrapped.output_names == ["target", "total"]
    assert [o.shape for o in wrapped(**flat_call(scripted, first))] == [(7, 5), (1,)]


def test_names_that_clash_are_refused(tmp_path: Path) -> None:
    class Inputs(nn.Module):
        def forward(self, x: Tuple[Tensor, Tensor], x_0: Tensor) -> Tensor:
            return x[0] + x[1] + x_0

    class Results(nn.Module):
        def forward(self, x: Tensor) -> Dict[str, Tensor]:
            return {"a b": x, "a_b": x * 2}

    x = torch.randn(3, 2)
    path = tmp_path / "model.pt"
    with pytest.raises(DeployError, match="two inputs would be named 'x_0'"):
        gnnscript.save(Inputs(), path, example_inputs=((x, x), x), all_tensors=True)
    for flat in (True, False):
        with pytest.raises(DeployError, match="two results would be named 'a_b'"):
            gnnscript.save(Results(), path, example_inputs=(x,), all_tensors=flat)
    assert not path.exists()


def test_what_torch_cannot_read_again_is_not_saved(tmp_path: Path) -> None:
    class Hides(nn.Module):
        def forward(self, torch: Tensor) -> Tensor:
            return torch.relu()

    path = tmp_path / "model.pt"
    with pytest.raises(DeployError, match="cannot read what it writes of 'Hides'"):
        gnnscript.save(Hides(), path, example_inputs=(torch.randn(3),))
    assert not path.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_dtypes_are_compared_by_their_rounding(dtype: torch.dtype, tmp_path: Path) -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 4, dtype=dtype))

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = (x @ self.weight)[edge_index[0]]
            return h.new_zeros(x.size(0), 4).index_add(0, edge_index[1], h)

    calls = [(torch.randn(n, 16, dtype=dtype), edges(n, n, 300)) for n in (9, 12)]
    manifest = gnnscript.save(Sums(), tmp_path / "model.pt", example_inputs=calls)
    assert str(manifest.outputs[0]) == f"output: {str(dtype).removeprefix('torch.')} [N, 4]"


def test_nothing_is_wrapped_that_needs_no_wrapping() -> None:
    with gnnscript.intercept.installed():
        scripted = torch.jit.script(Edge().eval())
    assert all_tensors(scripted, edge_call(5, 9)) is scripted


def test_the_manifest_is_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    manifest = gnnscript.save(Edge(), path, example_inputs=edge_call(5, 9))
    with zipfile.ZipFile(path) as archive:
        found = json.loads(archive.read("archive/extra/gnnscript.json"))
        lines = archive.read("archive/extra/gnnscript.txt").decode()
    assert found["versions"]["torch"] == torch.__version__
    assert found["kernels"] == "portable"
    assert found["inputs"][1] == {
        "name": "edge_index", "dtype": "int64", "shape": [2, "E"], "index": ["N", "N"]
    }  # fmt: skip
    assert "aten::index_select" in found["ops"]
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert {"input edge_index int64 2 E", "index edge_index N N", "output output float32 E"} < set(
        lines.splitlines()
    )


def test_inspect_prints_the_manifest(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.pt"
    manifest = gnnscript.save(Edge(), path, example_inputs=edge_call(5, 9))
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "edge_attr: float32 [E, 1]" in text
    assert "edge_index: int64 [2, E], values below N, N" in text
    assert main(["inspect", str(path), "--json"]) == 0
    assert Manifest.from_json(capsys.readouterr().out) == manifest
    assert main(["inspect", str(tmp_path / "absent.pt")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_without_examples_arguments_and_ops_remain(tmp_path: Path) -> None:
    manifest = gnnscript.save(Node(), tmp_path / "model.pt")
    assert [(a.name, a.type, a.required) for a in manifest.arguments] == [
        ("x", "Tensor", True),
        ("edge_index", "Tensor", True),
        ("edge_weight", "Optional[Tensor]", False),
    ]
    assert manifest.inputs == ()
    assert manifest.check is None
    with pytest.raises(ValueError, match="all_tensors needs example_inputs"):
        gnnscript.save(Node(), tmp_path / "model.pt", all_tensors=True)


@pytest.mark.usefixtures("auto")
def test_a_scripted_model_is_saved_in_evaluation_mode(tmp_path: Path) -> None:
    scripted = torch.jit.script(Node())
    manifest = gnnscript.save(scripted, tmp_path / "model.pt", example_inputs=node_call(5, 9))
    assert scripted.training
    assert scripted.drop.training
    loaded = gnnscript.load(tmp_path / "model.pt")
    assert not loaded.training
    assert not loaded.drop.training
    assert manifest.check is not None
    assert manifest.check.against == "scripted"


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file of this process grows beyond a size, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_where_there_is_no_space_the_process_lives_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    gnnscript.save(Node(), path)
    before = path.read_bytes()
    with small_files(4096), pytest.raises(OSError, match="File too large"):
        gnnscript.save(Node(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    gnnscript.save(Node(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DeployError, match=r"model\.pt' is damaged or no model"):
        gnnscript.load(path)
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(DeployError, match="has no manifest: it was not written by gnnscript"):
        gnnscript.load(path)
    with pytest.raises(DeployError, match="there is no file"):
        gnnscript.load(tmp_path / "absent.pt")


def with_manifest(path: Path, **changes: Any) -> None:
    """Writes the manifest of a saved model anew, with changes."""
    data = json.loads(gnnscript.inspect(path).to_json()) | changes
    model = torch.jit.load(path)
    torch.jit.save(model, path, _extra_files={"gnnscript.json": json.dumps(data)})


def test_a_manifest_that_does_not_match_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    gnnscript.save(Node(), path)
    with_manifest(path, format=99)
    with pytest.raises(DeployError, match="format 99"):
        gnnscript.load(path)
    gnnscript.save(Node(), path)
    with_manifest(path, ops=["aten::add", "elsewhere::spmm"])
    with pytest.raises(DeployError, match="calls 'elsewhere::spmm', which is not registered here"):
        gnnscript.load(path)
    gnnscript.save(Node(), path)
    with_manifest(path, arguments=3)
    with pytest.raises(DeployError, match="manifest cannot be read"):
        gnnscript.load(path)


def test_libraries_are_asked_for_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    library = {
        "file": "libgnnscript_absent.so",
        "sha256": "0" * 64,
        "ops": ["gnnscript::absent(Tensor x) -> Tensor"],
    }
    gnnscript.save(Node(), path)
    with_manifest(path, libraries=[library])
    with pytest.raises(DeployError, match=r"needs libgnnscript_absent\.so.*put the file with sha"):
        gnnscript.load(path)
    (tmp_path / "libgnnscript_absent.so").write_bytes(b"no library")
    with pytest.raises(DeployError, match=r"does not load .* put the libgnnscript_absent\.so"):
        gnnscript.load(path)


def test_a_model_that_differs_is_not_saved(tmp_path: Path) -> None:
    class Different(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + (1.0 if torch.jit.is_scripting() else 2.0)

    with pytest.raises(DeployError, match="differs from the original in call 0, result 'output'"):
        gnnscript.save(Different(), tmp_path / "model.pt", example_inputs=(torch.randn(3, 2),))
    assert list(tmp_path.iterdir()) == []


def test_kernels_are_those_asked_for(tmp_path: Path) -> None:
    with gnnscript.intercept.installed(), pytest.raises(DeployError, match="pass the eager model"):
        gnnscript.save(torch.jit.script(Node()), tmp_path / "m.pt", kernels="native")
    with pytest.raises(ValueError, match="expected kernels to be"):
        gnnscript.save(Node(), tmp_path / "m.pt", kernels="fast")  # type: ignore[arg-type]


def test_saving_works_in_a_process_without_auto(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch, gnnscript
from deploy.deploy_models import Edge, edge_call
gnnscript.save(Edge(), {str(tmp_path / "model.pt")!r}, example_inputs=edge_call(5, 9))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert gnnscript.inspect(tmp_path / "model.pt").model == "Edge"


def test_export_writes_files(tmp_path: Path, capsys: Any) -> None:
    models = Path(__file__).with_name("deploy_models.py")
    (tmp_path / "inputs.py").write_text(
        "import torch\n"
        "def examples():\n"
        "    return torch.randn(5, 4), torch.randint(5, (2, 9)), torch.rand(9, 1)\n",
        encoding="utf-8",
    )
    target = [f"{models}:Edge", "--inputs", f"{tmp_path / 'inputs.py'}:examples"]
    assert main(["export", *target, "--pt", str(tmp_path / "model.pt")]) == 0
    assert gnnscript.inspect(tmp_path / "model.pt").model == "Edge"
    assert f"wrote {tmp_path / 'model.pt'}" in capsys.readouterr().out
    assert main(["export", *target]) == 2
    assert "expected --pt, --aoti, --onnx, --triton or --kubernetes" in capsys.readouterr().err
    assert main(["export", *target[:1], "--pt", str(tmp_path / "model.pt")]) == 2
    assert "--inputs" in capsys.readouterr().err


@pytest.mark.parametrize("write", [gnnscript.save, deploy.aoti, deploy.onnx])
def test_where_nothing_can_be_written_is_told_first(write: Any, tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    arguments: dict[str, Any] = {"model": None, "example_inputs": ()}
    with pytest.raises(DeployError, match=r"no folder '.*no' to write 'model.pt2' to; make it"):
        write(path=tmp_path / "no" / "model.pt2", **arguments)
    with pytest.raises(DeployError, match=r"folder\.pt2' is a folder; name a file"):
        write(path=tmp_path / "folder.pt2", **arguments)

"""Repositories for the libtorch backend, held to what Triton 2.51 was measured to take.

The server of the wheel has the Python backend alone. It reads the configuration; models are called
as the libtorch backend does: with tensors, in the order of `forward`. What that backend makes of it
where there is one, is in test_libtorch_backend.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Dict

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor
from tritonclient.grpc import model_config_pb2

import gnnscript
from gnnscript.deploy import DeployError, Installation, Server, ServerError, flat_call, triton
from gnnscript.deploy.package import scripted_for
from gnnscript.deploy.structure import flat_outputs
from serving.conftest import PAIRS
from serving.served_models import (
    Bipartite,
    Centred,
    Kinds,
    Settings,
    Typed,
    graph,
    kinds,
    typed_graph,
)

TWO = [graph(8, 20), graph(6, 11)]
CASES = {
    "no dimensions out": (Centred, TWO),
    "a pair, an option, a dictionary out": (Bipartite, PAIRS),
    "edge types": (Typed, [typed_graph(8, 7, 20), typed_graph(6, 9, 11)]),
    "numbers, nested out": (Settings, [(*call, 2, True) for call in TWO]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_libtorch_takes(case: str, tmp_path: Path) -> None:
    make, calls = CASES[case]
    model = make().eval()
    folder = triton(model, calls, tmp_path, "model", backend="libtorch", threads=2)
    text = (folder / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.platform) == (
        "model",
        "pytorch",
        "pytorch_libtorch",
    )
    assert config.max_batch_size == 0  # ragged batches fail there where a graph has no edges
    assert not config.HasField("dynamic_batching")
    assert config.parameters["INTRA_OP_THREAD_COUNT"].string_value == "2"

    file = folder / "1" / "model.pt"
    saved = gnnscript.load(file)
    schema = saved.forward.schema
    # Optional, int and tuple inputs are refused at load; List inputs fail on request.
    assert {str(argument.type) for argument in schema.arguments[1:]} == {"Tensor"}
    assert [tensor.name for tensor in config.input] == [a.name for a in schema.arguments[1:]]
    # So do dict, list and 0-d outputs.
    (result,) = (returned.type for returned in schema.returns)
    parts = result.elements() if result.kind() == "TupleType" else [result]
    assert {part.kind() for part in parts} == {"TensorType"}
    # Classes whose module name contains <...> save but do not load.
    assert not [name for name in zipfile.ZipFile(file).namelist() if "<" in name]

    scripted = scripted_for(model, None, calls)
    for number, call in enumerate(calls):
        flat = flat_call(scripted, call)
        found = saved(*[flat[tensor.name] for tensor in config.input])
        tensors = [found] if isinstance(found, torch.Tensor) else list(found)
        expected = [tensor for _, tensor in flat_outputs(model(*call), numbers=True)]
        for spec, tensor, want in zip(config.output, tensors, expected, strict=True):
            assert len(spec.dims) == tensor.dim() > 0
            assert all(dim in (-1, size) for dim, size in zip(spec.dims, tensor.shape, strict=True))
            torch.testing.assert_close(tensor, want.reshape(tensor.shape))
        warm_up = config.model_warmup[number]
        assert warm_up.count == 3  # two profile and optimise
        for name, tensor in flat.items():
            described = warm_up.inputs[name]
            assert list(described.dims) == list(tensor.shape)
            values = (folder / "warmup" / described.input_data_file).read_bytes()
            assert values == tensor.numpy().tobytes()


def test_the_server_reads_the_configurations(installation: Installation, tmp_path: Path) -> None:
    """Nothing but the backend is missing, and what to do about it is said."""
    if installation.backends is None:
        pytest.skip("for the server that gnnscript installs, which has no libtorch backend")
    names = [f"model{number}" for number in range(len(CASES))]
    for name, (make, calls) in zip(names, CASES.values(), strict=True):
        triton(make().eval(), calls, tmp_path, name, backend="libtorch", threads=2)
    alone = dataclasses.replace(installation, further=None)
    with pytest.raises(ServerError) as caught:
        Server(tmp_path, installation=alone).start()
    _, *reasons, remedy = str(caught.value).splitlines()
    assert sorted(reason.partition(":")[0] for reason in reasons) == names
    assert all("unable to find backend library for backend 'pytorch'" in why for why in reasons)
    assert "export with backend='python', name a folder with the libtorch backend" in remedy


class Named(Centred):
    """Returns a dictionary of the given keys."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.first, self.second = keys

    def forward(self, x: Tensor, edge_index: Tensor) -> Dict[str, Tensor]:
        h = self.conv(x, edge_index)
        return {self.first: h, self.second: h.mean(dim=0)}


def test_names_that_the_backend_reads_a_number_from(tmp_path: Path) -> None:
    """It takes `layer__1` for the second result, where all are named like this."""
    with pytest.raises(DeployError, match="numbers at the end of layer__1, layer__0 for the posi"):
        triton(Named("layer__1", "layer__0"), TWO, tmp_path, "model", backend="libtorch")
    with pytest.raises(DeployError, match="numbers at the end of a__, b__ for the positions"):
        triton(Named("a__", "b__"), TWO, tmp_path, "model", backend="libtorch")
    triton(Named("layer__0", "layer__1"), TWO, tmp_path, "ordered", backend="libtorch")
    triton(Named("layer__1", "rest"), TWO, tmp_path, "others", backend="libtorch")
    triton(Named("a__b__1", "a__b__0"), TWO, tmp_path, "inner", backend="libtorch")
    triton(Named("layer__1", "layer__0"), TWO, tmp_path, "model", backend="python")


def test_what_libtorch_has_no_dtype_for(tmp_path: Path) -> None:
    calls = [(*kinds(8, 20), 2, 0.5), (*kinds(6, 11), 2, 0.5)]
    with pytest.raises(DeployError, match="'weight' is of dtype bfloat16, which the libtorch back"):
        triton(Kinds(), calls, tmp_path, "model", backend="libtorch")


def test_the_image_has_what_it_needs(tmp_path: Path) -> None:
    """What the Dockerfile copies and starts is in the repository; shells read what it starts."""
    triton(Centred().eval(), TWO, tmp_path, "model", backend="libtorch")
    lines = (tmp_path / "Dockerfile").read_text().splitlines()
    assert not [line for line in lines if "@" in line]
    (copied,) = (line.split()[1:] for line in lines if line.startswith("COPY"))
    *sources, target = copied
    assert all((tmp_path / source).exists() for source in sources)
    (entry,) = (line.partition(" ")[2] for line in lines if line.startswith("ENTRYPOINT"))
    (started,) = json.loads(entry)
    script = tmp_path / Path(started).relative_to(target)
    assert os.access(script, os.X_OK)
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n", script], check=True)
    (wanted,) = (line for line in lines if line.startswith("ARG PIP_TORCH"))
    assert wanted == f'ARG PIP_TORCH="torch=={torch.__version__.partition("+")[0]}"'

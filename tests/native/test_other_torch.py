"""One wheel serves every torch: its library and the files that models are saved in change hands."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from native.wheels import IGNORE_EDITABLE, build_and_install, run

QUIET = f"import sys, warnings\nwarnings.simplefilter('ignore')\n{IGNORE_EDITABLE}"
SAVE = f"""{QUIET}
import pathlib, torch, gnnscript
from torch import nn
from torch_geometric.nn import GATConv, MessagePassing, SAGEConv
from gnnscript import ops
from gnnscript.ops import library

site, folder = sys.argv[1], pathlib.Path(sys.argv[2])
assert gnnscript.__file__.startswith(site), gnnscript.__file__
assert library.implementation() == "native"
assert str(library.paths()[0]).startswith(site), library.paths()


class Distances(MessagePassing):
    def __init__(self):
        super().__init__(aggr=["max", "std"])
        self.lin = nn.Linear(6, 6)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_i, x_j):
        return torch.tanh(x_j - x_i)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = GATConv(4, 3, heads=2), Distances(), SAGEConv(12, 5)

    def forward(self, x, edge_index):
        h = self.second(self.first(x, edge_index), edge_index)
        return self.third(h, edge_index).relu()


torch.manual_seed(0)
calls = [
    (torch.randn(n, 4, requires_grad=True), torch.randint(n, (2, e))) for n, e in ((9, 31), (14, 0))
]
model = Net().eval()
results = []
for x, edge_index in calls:
    out = model(x, edge_index)
    results.append([out.detach(), *torch.autograd.grad(out.sum(), [x, *model.parameters()])])
torch.save([[(x.detach(), index) for x, index in calls], results], folder / "calls.pt")
for kernels in ("native", "portable"):
    manifest = gnnscript.save(
        model, folder / f"{{kernels}}.pt", example_inputs=calls[0], kernels=kernels
    )
    assert manifest.kernels == kernels
    assert manifest.versions["torch"] == torch.__version__

# Each op of the library runs, and its gradient.
index, other = calls[0][1][1], calls[0][1][0]
src = torch.randn(31, 4, dtype=torch.float64, requires_grad=True)
for reduce in ("sum", "mean", "max", "mul"):
    out = ops.scatter(src, index, 0, 9, reduce)
    with gnnscript.kernels("portable"):
        torch.testing.assert_close(out, ops.scatter(src, index, 0, 9, reduce))
assert torch.autograd.gradcheck(lambda s: ops.softmax(s, index, num_nodes=9), src)
print(torch.__version__)
"""
ALONE = """
import sys, torch
*libraries, kernels, folder = sys.argv[1:]
for library in libraries:
    torch.ops.load_library(library)
calls, results = torch.load(f"{folder}/calls.pt")
model = torch.jit.load(f"{folder}/{kernels}.pt")
for (x, edge_index), (expected, *_) in zip(calls, results):
    for _ in range(3):  # TorchScript optimises what has run
        torch.testing.assert_close(model(x, edge_index).detach(), expected)
assert not {"gnnscript", "torch_geometric"} & set(sys.modules)
print(torch.__version__)
"""
LOAD = f"""{QUIET}
import torch, gnnscript
kernels, folder = sys.argv[1:]
calls, results = torch.load(f"{{folder}}/calls.pt")
model = gnnscript.load(f"{{folder}}/{{kernels}}.pt")
for (x, edge_index), expected in zip(calls, results):
    x.requires_grad_()
    for _ in range(3):
        out = model(x, edge_index)
        found = [out.detach(), *torch.autograd.grad(out.sum(), [x, *model.parameters()])]
        torch.testing.assert_close(found, expected)
print(torch.__version__)
"""


@pytest.mark.slow
def test_library_and_files_go_from_one_torch_to_another(tmp_path: Path) -> None:
    other = os.environ.get("GNNSCRIPT_OTHER_TORCH")
    if not other:
        pytest.skip("GNNSCRIPT_OTHER_TORCH names no Python that has another torch")
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    wheel, here = build_and_install(tmp_path, "-C", "cmake.define.GNNSCRIPT_CUDA=off")
    there = tmp_path / "there"
    run(other, "-m", "pip", "install", "--no-deps", "--no-index", "--target", there, wheel)
    places = {"here": (sys.executable, here), "there": (other, there)}
    program = tmp_path / "save.py"  # a class is specialised from its source, which needs a file
    program.write_text(SAVE, encoding="utf-8")
    versions = {}
    for name, (python, site) in places.items():
        (tmp_path / name).mkdir(exist_ok=True)
        environment = {"PYTHONPATH": str(site), "GNNSCRIPT_KERNELS": "", "GNNSCRIPT_LIBRARY": ""}
        saved = run(python, program, site, tmp_path / name, **environment)
        versions[name] = saved.strip()
    assert versions["here"] == torch.__version__ != versions["there"]
    for saver, loader in (("here", "there"), ("there", "here")):
        python, site = places[loader]
        environment = {"PYTHONPATH": str(site), "GNNSCRIPT_LIBRARY": ""}
        for kernels in ("native", "portable"):
            libraries = [site / "gnnscript/libgnnscript.so"] if kernels == "native" else []
            file = (kernels, tmp_path / saver)
            alone = run(python, "-I", "-W", "ignore", "-c", ALONE, *libraries, *file)
            loaded = run(python, "-c", LOAD, *file, **environment)
            assert alone.strip() == loaded.strip() == versions[loader]

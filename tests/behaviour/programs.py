"""Parts of the programs that the tests of installing and uninstalling run."""

import textwrap

MODEL = """
class Own(MessagePassing):
    def __init__(self):
        super().__init__(aggr="mean")

    def forward(self, x: Tensor, edge_index: Tensor, scale: float = 2.0) -> Tensor:
        return self.propagate(edge_index, x=x, scale=scale)

    def message(self, x_i: Tensor, x_j: Tensor, scale: float) -> Tensor:
        return scale * (x_i - x_j)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gat, self.own = GATConv(4, 4), Own()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x, (_, alpha) = self.gat(x, edge_index, return_attention_weights=True)
        return self.own(x, edge_index) + alpha.mean()

"""

IMPORTS = """
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, MessagePassing
"""

SCRIPT = """
import subprocess
import sys

def scripts(model, script=torch.jit.script):
    modules = [(type(m), id(m)) for m in model.modules()]
    inputs = [
        (torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 2]])),
        (torch.randn(5, 4), torch.tensor([[0, 1, 4, 3, 0], [1, 2, 2, 3, 0]])),
    ]
    scripted = script(model)
    for x, edge_index in inputs:
        torch.testing.assert_close(scripted(x, edge_index), model(x, edge_index))
    assert modules == [(type(m), id(m)) for m in model.modules()]
    scripted.save("model.pt")
    check = "import torch, sys; torch.jit.load('model.pt'); assert 'gnnscript' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", check], check=True)
    print("scripts")
"""

STATE = """
import sys
import torch

def subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)

OWN = {"propagate", "collect", "edge_updater", "edge_collect", "_orig_propagate",
       "_jinja_propagate", "_orig_edge_updater", "_jinja_edge_updater", "__annotations__"}

def state(pyg=True):
    found = {
        "meta_path": list(map(id, sys.meta_path)),
        "path_hooks": list(map(id, sys.path_hooks)),
        "import": id(__builtins__.__import__),
        "torch.jit": {k: id(v) for k, v in vars(torch.jit).items() if callable(v)},
        "torch.jit._script": {k: id(v) for k, v in vars(torch.jit._script).items() if callable(v)},
        "recursive": {k: id(v) for k, v in vars(torch.jit._recursive).items() if callable(v)},
        "module": {k: id(v) for k, v in vars(torch.nn.Module).items()},
    }
    if pyg:
        from torch_geometric.nn import MessagePassing
        classes = [MessagePassing, *subclasses(MessagePassing)]
        found["classes"] = {
            str(c): {k: id(v) for k, v in vars(c).items() if c is MessagePassing or k not in OWN}
            for c in classes
        }
        import torch_geometric.inspector, torch_geometric.template
        for module in (torch_geometric.inspector, torch_geometric.template):
            found[module.__name__] = {k: id(v) for k, v in vars(module).items() if callable(v)}
        found["inspector"] = {
            k: id(v) for k, v in vars(torch_geometric.inspector.Inspector).items()
        }
    return found

def assert_same(before, after):
    for name, value in before.items():
        if name == "classes":  # there may be more of them
            after[name] = {k: v for k, v in after[name].items() if k in value}
        if value != after[name]:
            if isinstance(value, dict):
                came = after[name].keys() - value.keys()
                value = {k: v for k, v in value.items() if after[name].get(k) != v}, came
            raise AssertionError((name, value, after[name] if isinstance(value, list) else ""))
"""


def program(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part) for part in parts)

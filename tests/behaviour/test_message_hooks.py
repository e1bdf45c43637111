"""Functions that are registered on messages become part of the script."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, SAGEConv

import gnnscript
from conformance.graphs import IN, OUT

pytestmark = pytest.mark.usefixtures("auto")


def weighted(module, inputs, output):
    """Uses a parameter of the module, and what the message was given."""
    (given,) = inputs
    out = module.scale * output
    return out + 0.1 * given["x_j"].mean(-1, keepdim=True)


def checked(module, inputs, output):
    """Returns nothing: the message stays as it is."""
    if output.size(-1) == 0:
        raise ValueError("expected features")


class Stateful(nn.Module):
    """Lends its conv a value for the time of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GATConv(IN, OUT, add_self_loops=False)
        self.conv.register_message_forward_hook(factors)

    def forward(self, x, edge_index):
        self.conv.factor = x[edge_index[0], :1]
        out = self.conv(x, edge_index)
        del self.conv.factor
        return out


def factors(module, inputs, output):
    return output * module.factor.view(-1, 1, 1)


def test_functions_on_messages(check) -> None:
    conv = SAGEConv(IN, OUT)
    conv.scale = nn.Parameter(torch.tensor(0.5))
    for hook in (weighted, checked, lambda module, inputs, output: output.tanh()):
        conv.register_message_forward_hook(hook)
    check(conv)


def test_values_that_are_lent_for_a_call(check) -> None:
    check(Stateful())


class Recorder:
    def __call__(self, module, inputs, output):
        self.seen = output


@pytest.mark.parametrize("kind", ["message", "aggregate"])
def test_what_is_no_function_is_refused(kind) -> None:
    conv = SAGEConv(IN, OUT)
    getattr(conv, f"register_{kind}_forward_hook")(Recorder())
    with pytest.raises(gnnscript.UnsupportedError, match=f"hook is registered on '{kind}'"):
        torch.jit.script(conv)

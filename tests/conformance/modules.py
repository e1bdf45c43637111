"""Cases that are modules of any kind: models, pools, and what calls PyG's functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from conformance.graphs import GRAPHS, Graph
from gnnscript.testing import BareProcess, assert_scripts_like_eager


@dataclass(frozen=True)
class ModuleCase:
    """One module in one configuration, and the call to compare.

    Attributes:
        name: The test's id.
        make: Makes the module.
        inputs: The arguments for a graph.
        modes: The modes in which results can be compared.
        gradients: Whether there are gradients to compare.
        lazy: Whether the module must run once before its parameters have a shape.
        frozen: Whether TorchScript can freeze it: not where attributes share tensors.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[Graph], tuple[Any, ...]]
    modes: tuple[str, ...] = ("eval", "train")
    gradients: bool = True
    lazy: bool = False
    frozen: bool = True


def cases(table: list[ModuleCase]) -> pytest.MarkDecorator:
    """Parametrises a test over a table, whose names must differ."""
    names = [case.name for case in table]
    assert len(names) == len(set(names)), sorted(names)
    return pytest.mark.parametrize("case", table, ids=names)


def check(case: ModuleCase, bare: BareProcess) -> None:
    """Compares scripted, frozen, optimised and reloaded with eager on two graphs."""
    torch.manual_seed(0)
    module = case.make()
    inputs = [case.inputs(graph) for graph in GRAPHS]
    if case.lazy:
        with torch.no_grad():
            module(*inputs[0])
    scripted = assert_scripts_like_eager(
        module, *inputs, modes=case.modes, gradients=case.gradients, reload=bare
    )
    if not case.frozen:
        return
    module.eval()
    frozen = torch.jit.freeze(scripted.eval())
    optimised = torch.jit.optimize_for_inference(frozen)
    for call in inputs:
        torch.manual_seed(0)
        expected = module(*call)
        for one in (frozen, optimised):
            torch.manual_seed(0)
            torch.testing.assert_close(one(*call), expected, rtol=1e-4, atol=1e-4)

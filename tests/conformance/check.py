"""What every row of the tables is put through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gnnscript.testing import BareProcess, assert_scripts_like_eager


def check(
    model: nn.Module,
    inputs: Sequence[tuple[Any, ...]],
    bare: BareProcess,
    modes: tuple[str, ...] = ("eval", "train"),
    frozen: bool = True,
) -> None:
    """Compares eager, scripted and reloaded; frozen and optimised for inference too.

    Args:
        model: The eager model.
        inputs: Calls on graphs of different size.
        bare: The process that loads what is saved.
        modes: The modes in which results can be compared.
        frozen: Whether to compare `torch.jit.freeze` and `torch.jit.optimize_for_inference`.
    """
    scripted = assert_scripts_like_eager(model, *inputs, modes=modes, reload=bare)
    if not frozen:
        return
    model.eval()
    scripted.eval()
    scripted.load_state_dict(model.state_dict())  # buffers that forward assigned anew have parted
    fixed = torch.jit.freeze(scripted)
    optimized = torch.jit.optimize_for_inference(fixed)
    for compiled in (fixed, optimized):
        for call in inputs:
            with torch.no_grad():
                expected = model(*call)
                # Fused linear layers add up in another order.
                torch.testing.assert_close(compiled(*call), expected, rtol=1e-4, atol=1e-4)

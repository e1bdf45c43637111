"""Gradients as a node of a graph: lists of tensors, as TorchScript takes and gives them."""

import torch
from torch import Tensor

__all__ = ["gradients"]


def gradients(
    outputs: list[Tensor],
    inputs: list[Tensor],
    grad_outputs: list[Tensor] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> list[Tensor]:
    """Differentiate, as forces are the derivatives of an energy.

    Args:
        outputs: What is differentiated.
        inputs: What it is differentiated by.
        grad_outputs: A factor for each of the outputs, of its shape; 1 by default.
        retain_graph: Whether the outputs can be differentiated again.
        create_graph: Whether the gradients can be differentiated.
        allow_unused: Whether the outputs need not depend on all inputs.

    Returns:
        The gradient by each of the inputs; zeros by one that the outputs do not depend on.

    Raises:
        RuntimeError: The outputs depend on none of the inputs, or on some not without
            ``allow_unused``.

    Source: ``torch.autograd.grad``.
    """
    factors: list[Tensor | None] | None = None
    if grad_outputs is not None:
        given: list[Tensor | None] = []
        for factor in grad_outputs:  # TorchScript tells apart what a list may hold
            given.append(factor)  # noqa: PERF402
        factors = given
    found: list[Tensor | None] = list(
        torch.autograd.grad(
            outputs,
            inputs,
            factors,
            retain_graph=retain_graph,
            create_graph=create_graph,
            allow_unused=allow_unused,
        )
    )
    filled: list[Tensor] = []
    for position, gradient in enumerate(found):
        if gradient is None:
            filled.append(torch.zeros_like(inputs[position]))
        else:
            filled.append(gradient)
    return filled

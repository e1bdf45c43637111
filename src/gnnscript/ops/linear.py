"""Linear layers without gradients on CPU, by a kernel of ours.

This function is compiled by ``torch.jit.script`` like the other ops.
"""

from typing import Optional

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"
import torch
from torch import Tensor
from torch.nn import functional

from gnnscript.ops import library

__all__ = ["linear"]

library.load()


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
    """Apply a linear layer, as ``torch.nn.functional.linear`` does.

    Where no gradient is asked for, matrices of float32 and float64 on CPU are multiplied by the
    library's kernel: that of torch takes the narrow vectors of some processors, and is made for
    larger layers. All else is torch's.

    Args:
        x: `[..., K]`.
        weight: `[F, K]`.
        bias: `[F]`.

    Returns:
        `[..., F]`.

    Raises:
        RuntimeError: Shapes or dtypes do not fit.
    """
    ours = not torch.is_grad_enabled() and x.dim() == 2 and weight.dim() == 2 and x.is_cpu
    ours = ours and weight.is_cpu and x.dtype in [torch.float32, torch.float64]
    ours = ours and weight.dtype == x.dtype
    sized = True
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        # What is compiled for all sizes does not ask for them.
        sized = not torch.compiler.is_compiling()
        # What is a tensor to Python alone has linear layers of its own.
        ours = ours and (type(x) is Tensor or not sized)
    if ours:
        # Few rows are not worth arranging the weight for, and large layers are torch's business.
        ours = x.size(1) == weight.size(1) and weight.numel() <= 1 << 18
        ours = ours and (not sized or x.size(0) >= 32)
    if ours and bias is not None:
        ours = bias.is_cpu and bias.dtype == x.dtype and bias.dim() == 1
        ours = ours and bias.size(0) == weight.size(0)
    if ours:
        return torch.ops.gnnscript.linear(x, weight, bias)
    return functional.linear(x, weight, bias)

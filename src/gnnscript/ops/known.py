"""What the layers of a scripted model compute of the same tensors, kept for one ``forward``.

What the specialised code calls, as it does ``fused``; compiled by ``torch.jit.script``, too.
Besides in scripts, work is kept in traces (``traced``), and nowhere else.
"""

from typing import List, Optional  # noqa: UP035  TorchScript reads these

# What torch.ops returns is typed by the schema, which mypy does not read.
# mypy: disable-error-code="no-any-return"
import torch
from torch import Tensor

from gnnscript.ops import traced

__all__ = ["find_known", "keep_known", "share_plans"]


def share_plans(active: bool) -> None:
    """Keep the edges that are sorted from here on, for equal calls in this thread, or forget them.

    Args:
        active: Whether to begin, or to end.
    """
    # TorchScript calls pure ops of constants once, when it compiles, but none of random numbers;
    # and it leaves out what nobody asks for.
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        traced.share(active)
    elif not torch.ops.gnnscript.share_plans(torch.rand([0], device="cpu"), active):
        raise RuntimeError("sorted edges cannot be kept")


def find_known(
    key: str,
    sizes: List[int],  # noqa: UP006
    a: Optional[Tensor],  # noqa: UP045
    b: Optional[Tensor] = None,  # noqa: UP045
    c: Optional[Tensor] = None,  # noqa: UP045
    d: Optional[Tensor] = None,  # noqa: UP045
) -> List[Tensor]:  # noqa: UP006
    """What equal code has made of the same tensors since `share_plans(True)`, in this thread.

    Args:
        key: Names the code.
        sizes: The numbers that it depends on.
        a: A tensor that it depends on.
        b: Another one.
        c: Another one.
        d: Another one.

    Returns:
        What was given to `keep_known`; nothing where nobody has, or a tensor was written to since.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return traced.find(key, sizes, [a, b, c, d])
    unknown = torch.rand([0], device="cpu")  # as in share_plans
    return torch.ops.gnnscript.find_known(unknown, key, sizes, a, b, c, d)


def keep_known(
    key: str,
    sizes: List[int],  # noqa: UP006
    made: List[Tensor],  # noqa: UP006
    a: Optional[Tensor],  # noqa: UP045
    b: Optional[Tensor] = None,  # noqa: UP045
    c: Optional[Tensor] = None,  # noqa: UP045
    d: Optional[Tensor] = None,  # noqa: UP045
) -> None:
    """Keep what code has made of some tensors, for `find_known`.

    Args:
        key: Names the code.
        sizes: The numbers that it depends on.
        made: What it has made, one to four tensors, which nobody may write to. With a gradient it
            is not kept.
        a: A tensor that it depends on.
        b: Another one.
        c: Another one.
        d: Another one.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        unknown = torch.rand([0], device="cpu")
        others: List[Optional[Tensor]] = [None, None, None]  # noqa: UP006, UP045
        for place, one in enumerate(made[1:]):
            others[place] = one
        if not torch.ops.gnnscript.keep_known(
            unknown, key, sizes, a, b, c, d, made[0], others[0], others[1], others[2]
        ):
            raise RuntimeError("values cannot be kept")
    else:
        traced.keep(key, sizes, made, [a, b, c, d])

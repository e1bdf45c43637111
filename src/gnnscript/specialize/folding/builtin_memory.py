"""What eager models do to save memory in training: the same values are computed without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint

from gnnscript.specialize.folding.base import Arguments, Folded
from gnnscript.specialize.folding.builtins import for_

if TYPE_CHECKING:
    from gnnscript.specialize.folding.statements import Frame

__all__: list[str] = []

_OPTIONS = (
    "use_reentrant",
    "preserve_rng_state",
    "context_fn",
    "determinism_check",
    "debug",
    "early_stop",
)


@for_(checkpoint)
def _checkpoint(frame: Frame, function: Any, given: Arguments) -> Folded:
    """The function that is recomputed when gradients are: it is called."""
    named = {k: v for k, v in given.kwargs.items() if k not in _OPTIONS}
    args = list(given.args)
    called, node = named.pop("function") if "function" in named else args.pop(0)
    return frame.call(called, Arguments(args, named), node)

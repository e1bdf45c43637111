"""What eager models do to save memory in training: the same values are computed without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint, checkpoint_sequential

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


@for_(checkpoint_sequential)
def _checkpoint_sequential(frame: Frame, function: Any, given: Arguments) -> Folded:
    parameters = ("functions", "segments", "input")
    bound = dict(zip(parameters, given.args, strict=False)) | given.kwargs
    folded = bound["input"]
    for callee in frame.known_items(bound["functions"][0]):
        folded = frame.call(callee, Arguments([folded], {}), None)
    return folded

"""Whether tensors are those that a model takes: the same texts in Python, in C++ and from servers.

Nothing of torch is used, so that clients check NumPy arrays by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gnnscript.deploy.manifest import DeployError, TensorSpec

__all__ = ["validate"]


def validate(
    specs: Sequence[TensorSpec],
    tensors: Mapping[str, Any],
    least: Mapping[str, int] | None = None,
) -> None:
    """Checks tensors against the inputs of a manifest.

    ``gnnscript::Model`` in ``gnnscript/model.h`` makes the same checks, with the same texts.

    Args:
        specs: The inputs that the model takes.
        tensors: The inputs by name: torch tensors or NumPy arrays.
        least: The manifest's least sizes.

    Raises:
        DeployError: One is missing, unknown, or of another dtype, rank or shape, a size is too
            small, or not the same in all inputs that have it, or an index points to a node that is
            not there.
    """
    takes = ", ".join(spec.name for spec in specs)
    for name in sorted(tensors):
        if all(spec.name != name for spec in specs):
            raise DeployError(f"the model has no input '{name}'; it takes {takes}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        if spec.name not in tensors:
            raise DeployError(f"the input '{spec.name}' is missing; the model takes {takes}")
        _check_shape(spec, tensors[spec.name], sizes, least or {})
    for spec in specs:
        _check_index(spec, tensors[spec.name], sizes)


def _check_shape(
    spec: TensorSpec, tensor: Any, sizes: dict[str, tuple[int, str]], least: Mapping[str, int]
) -> None:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype != spec.dtype:
        raise DeployError(f"expected '{spec.name}' to be {spec.dtype}, got {dtype}")
    shape, found = _text(spec.shape), _text(tensor.shape)
    if len(tensor.shape) != len(spec.shape):
        raise DeployError(
            f"expected '{spec.name}' of shape {shape}, which has {len(spec.shape)} dimensions, "
            f"got {found}"
        )
    for want, size in zip(spec.shape, tensor.shape, strict=True):
        if isinstance(want, int):
            if size != want:
                raise DeployError(f"expected '{spec.name}' of shape {shape}, got {found}")
            continue
        known, owner = sizes.setdefault(want, (int(size), spec.name))
        if size != known:
            raise DeployError(
                f"expected '{spec.name}' of shape {shape} with {want} = {known} as in '{owner}', "
                f"got {found}"
            )
        if size < least.get(want, 0):
            raise DeployError(
                f"expected '{spec.name}' of shape {shape} with {want} of at least {least[want]}, "
                f"as it was compiled for, got {found}"
            )


def _check_index(spec: TensorSpec, tensor: Any, sizes: dict[str, tuple[int, str]]) -> None:
    for row, symbol in enumerate(spec.index):
        values = tensor[row] if len(spec.index) > 1 else tensor
        if symbol is None or 0 in values.shape:
            continue
        size, owner = sizes[symbol]
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= size:
            where = f"row {row} of '{spec.name}'" if len(spec.index) > 1 else f"'{spec.name}'"
            raise DeployError(
                f"expected values of {where} in [0, {size}), as '{owner}' has {symbol} = {size}, "
                f"got {low if low < 0 else high}"
            )


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"

"""Other values for the tensors of an example, to find out what a model makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gnnscript.deploy.manifest import TensorSpec

__all__ = ["is_constant", "is_index_dtype", "other_values", "scaled", "stirred"]

_PAIRED = 6
_LOUD = 1000.0


def is_index_dtype(tensor: Tensor) -> bool:
    """Whether a tensor can hold indices of nodes or numbers of graphs."""
    return tensor.dtype in (torch.int32, torch.int64)


def other_values(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors with values that may change the sizes of results; not every model takes them.

    The last value of one vector of integers is raised, or those of two or of all: the number of
    graphs hangs on the largest number in `batch`, or in one for each type of nodes. All numbers
    change their sign or size, and all masks are turned over, which changes what is selected.
    """
    vectors = [p for p, t in enumerate(tensors) if is_index_dtype(t) and t.dim() == 1]
    yield from (_changed(tensors, [position], _raised) for position in vectors)
    if len(vectors) <= _PAIRED:
        yield from (_changed(tensors, c, _raised) for c in itertools.combinations(vectors, 2))
    if len(vectors) > 2:
        yield _changed(tensors, vectors, _raised)
    floats = [p for p, t in enumerate(tensors) if t.is_floating_point()]
    if floats:
        yield _changed(tensors, floats, torch.neg)
        yield _changed(tensors, floats, lambda tensor: tensor * 100)
    masks = [p for p, t in enumerate(tensors) if t.dtype == torch.bool]
    if masks:
        yield _changed(tensors, masks, torch.logical_not)
        yield _changed(tensors, masks, torch.ones_like)


def is_constant(spec: TensorSpec) -> bool:
    """Whether a tensor has the same shape for every graph, so that it is a setting, say."""
    return all(isinstance(size, int) for size in spec.shape)


def scaled(
    inputs: Sequence[TensorSpec], graph: Mapping[str, Tensor], factor: float
) -> dict[str, Tensor]:
    """A graph with other features, of the same order; settings stay."""

    def other(spec: TensorSpec) -> Tensor:
        tensor = graph[spec.name]
        if is_constant(spec) or not tensor.is_floating_point():
            return tensor
        return tensor * factor + 0.1

    return {spec.name: other(spec) for spec in inputs}


def stirred(inputs: Sequence[TensorSpec], graph: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A graph of the same sizes with features that are larger by far, and other edges.

    Settings stay, and so do vectors of integers, which may have to be in order.
    """

    def other(spec: TensorSpec) -> Tensor:
        tensor = graph[spec.name]
        if is_constant(spec):
            return tensor
        if tensor.is_floating_point():
            return (tensor + 1) * _LOUD
        if tensor.dtype == torch.bool:
            return ~tensor
        if len(spec.index) > 1:  # another node at one end of each edge
            return torch.stack([tensor[0].flip(0), *tensor[1:]])
        return tensor

    return {spec.name: other(spec) for spec in inputs}


def _changed(
    tensors: Sequence[Tensor], positions: Sequence[int], change: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    return [change(t) if position in positions else t for position, t in enumerate(tensors)]


def _raised(tensor: Tensor) -> Tensor:
    raised = tensor.clone()
    raised[-1] += 1
    return raised

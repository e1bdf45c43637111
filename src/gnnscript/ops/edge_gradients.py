"""Gradients of the edge programs: edge programs again, found by differentiating the text.

Let ``P`` be the program, and ``G`` what flows back: of the nodes where edges were reduced, of the
edges otherwise. Each operand's gradient is the sum of ``G dP/d(operand)`` over the edges that read
its row: for `i` an `edge_reduce` over the rows of `index`, for `j` one over those of `other` with
both sides exchanged, for `e` an `edge_map`. As these ops have gradients, so do the gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnscript.ops.autograd import _edge_gradient
from gnnscript.ops.differentiation import register_gradient
from gnnscript.ops.plans import cached_csr
from gnnscript.ops.program import Expressions, Leaf, postorder, sides

__all__ = [
    "EdgeProgram",
    "Graph",
    "feature_shape",
    "gradients",
    "linear_programs",
    "programs_of",
    "register",
]

_ops = torch.ops.gnnscript
_SWAPPED = {"i": "j", "j": "i", "e": "e", "s": "s"}


# -- the programs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeProgram:
    """A program and what stands for its operands: places in a list of tensors.

    `twin` is the edge operand, if any, whose gradient is this one on each edge, or is `negative`.
    """

    text: str
    places: tuple[int, ...]
    twin: int | None = None
    negative: bool = False


def programs_of(
    expressions: Expressions, found: dict[Leaf, Any], count: int
) -> tuple[EdgeProgram | None, ...]:
    """Write the gradients of the first `count` operands, in the direction that sums each."""
    programs: list[EdgeProgram | None] = [None] * count
    own = {leaf: grad for leaf, grad in found.items() if leaf.position < count}
    edges = {grad: leaf.position for leaf, grad in own.items() if leaf.side == "e"}
    for leaf, grad in own.items():
        used = sorted(
            {node.leaf for node in postorder(grad) if node.leaf is not None},
            key=lambda used: used.position,
        )
        names = {
            old: Leaf(_SWAPPED[old.side] if leaf.side == "j" else old.side, new)
            for new, old in enumerate(used)
        }
        text = expressions.write(grad, names)
        places = tuple(old.position for old in used)
        same, opposite = edges.get(grad), edges.get(expressions.negate(grad))
        twin = None if leaf.side == "e" else opposite if same is None else same
        programs[leaf.position] = EdgeProgram(text, places, twin, same is None)
    return tuple(programs)


@functools.lru_cache(maxsize=1024)
def linear_programs(program: str, grad_side: str) -> tuple[EdgeProgram | None, ...]:
    """The gradients where `G` is operand number n of n: of a node (`i`), or of an edge (`e`)."""
    expressions = Expressions()
    count = len(sides(program))
    root = expressions.parse(program)
    grad = expressions.leaf(grad_side, count)
    return programs_of(expressions, expressions.gradients(root, grad), count)


@functools.lru_cache(maxsize=1024)
def _extremum_programs(program: str, is_half: bool) -> tuple[EdgeProgram | None, ...]:
    """The gradients of a minimum or maximum; operands n and n + 1 are `G` and the result."""
    expressions = Expressions()
    count = len(sides(program))
    root = expressions.parse(program)
    reached = _reached(expressions, root, count + 1, is_half)
    grad = expressions.where(reached, expressions.leaf("i", count), expressions.number(0.0))
    return programs_of(expressions, expressions.gradients(root, grad), count)


@functools.lru_cache(maxsize=1024)
def _tie_program(program: str, is_half: bool) -> str:
    """Whether an edge has the extremum, which is the last operand."""
    expressions = Expressions()
    count = len(sides(program))
    reached = _reached(expressions, expressions.parse(program), count, is_half)
    leaves = {node.leaf for node in postorder(reached) if node.leaf is not None}
    return expressions.write(reached, {leaf: leaf for leaf in leaves})


def _reached(expressions: Expressions, root: Any, position: int, is_half: bool) -> Any:
    value = expressions.call("rounded", root) if is_half else root
    return expressions.call("==", value, expressions.leaf("i", position))


# -- shapes ---------------------------------------------------------------------------------------


def feature_shape(program: str, operands: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the feature shape that the operands of a program broadcast to."""
    shapes = [
        operand.shape if side == "s" else operand.shape[1:]
        for side, operand in zip(sides(program), operands, strict=True)
    ]
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _fold(grad: Tensor, operand: Tensor) -> Tensor:
    """Sum the feature dimensions along which an operand was broadcast; the rows stay."""
    missing = grad.dim() - operand.dim()
    shape = [operand.shape[0], *([1] * missing), *operand.shape[1:]]
    if list(grad.shape) != shape:
        grad = grad.sum_to_size(shape)
    return grad.reshape(operand.shape)


def _fold_shared(grad: Tensor, operand: Tensor) -> Tensor:
    """Sum rows, and the feature dimensions along which a shared operand was broadcast."""
    return grad.sum(0).sum_to_size(operand.shape)


def _trailing(operand: Tensor, rank: int) -> int:
    """Count the last feature dimensions along which an edge operand was broadcast."""
    own = list(operand.shape[1:])
    own = [1] * (rank - len(own)) + own
    count = 0
    while count < rank and own[rank - 1 - count] == 1:
        count += 1
    return count


# -- the gradients --------------------------------------------------------------------------------


class Graph:
    """The edges of a call, and the rows that its gradients are summed over.

    Args:
        index: The node at the end `i` of each edge.
        other: The node at the end `j` of each edge.
        rows: ``csr(index, N)``, where the call has it.
    """

    def __init__(
        self, index: Tensor, other: Tensor, rows: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.index, self.other, self.rows = index, other, rows

    def gradient(
        self, side: str, operand: Tensor, program: EdgeProgram, tensors: list[Tensor], rank: int
    ) -> Tensor:
        """Sum ``G dP/d(operand)`` to the shape of an operand."""
        operands = [tensors[place] for place in program.places]
        if side == "e":
            count = _trailing(operand, rank)
            grad = _ops.edge_map(program.text, operands, self.index, self.other, count)
            return _fold(grad.reshape([*grad.shape, *([1] * count)]), operand)
        if side == "s":
            return _fold_shared(self._to_rows(program.text, operands), operand)
        ends = (self.index, self.other) if side == "i" else (self.other, self.index)
        rows = self._rows(side, operand)
        return _fold(self._reduce(program.text, operands, *ends, rows), operand)

    def summed(self, side: str, operand: Tensor, of_edges: Tensor) -> Tensor:
        """Sum a gradient that is known on each edge to the shape of another operand."""
        if side == "s":
            return _fold_shared(of_edges, operand)
        rows = self._rows(side, operand)
        return _fold(_ops.segment_reduce(of_edges, *rows, "sum"), operand)

    def _rows(self, side: str, operand: Tensor) -> tuple[Tensor, Tensor]:
        if side == "i" and self.rows is not None:
            return self.rows
        return cached_csr(self.index if side == "i" else self.other, operand.size(0))

    def _to_rows(self, text: str, operands: list[Tensor]) -> Tensor:
        """Sum over the edges of some rows: whichever there are."""
        letters = sides(text)
        if self.rows is not None:
            return self._reduce(text, operands, self.index, self.other, self.rows)
        for side, index, other in (("i", self.index, self.other), ("j", self.other, self.index)):
            if side in letters:
                rows = cached_csr(index, operands[letters.index(side)].size(0))
                swapped = text if side == "i" else _swap(text)
                return self._reduce(swapped, operands, index, other, rows)
        one_node = torch.zeros_like(self.index)
        return self._reduce(text, operands, one_node, one_node, cached_csr(one_node, 1))

    @staticmethod
    def _reduce(
        text: str, operands: list[Tensor], index: Tensor, other: Tensor, rows: tuple[Tensor, Tensor]
    ) -> Tensor:
        return _ops.edge_reduce(text, operands, index, other, *rows, "sum")  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1024)
def _swap(program: str) -> str:
    """Exchange the letters i and j."""
    expressions = Expressions()
    root = expressions.parse(program)
    leaves = {node.leaf for node in postorder(root) if node.leaf is not None}
    return expressions.write(
        root, {leaf: Leaf(_SWAPPED[leaf.side], leaf.position) for leaf in leaves}
    )


def _degrees(ptr: Tensor, like: Tensor) -> Tensor:
    """Return the number of edges of each row, at least 1, against the rows of a tensor."""
    return ptr.diff().clamp(min=1).to(like.dtype).view([-1, *([1] * (like.dim() - 1))])


def _read(operands: list[Tensor], programs: tuple[EdgeProgram | None, ...]) -> list[Tensor]:
    """The operands that gradients read; of others a stand-in of the same shape, without memory.

    What is not kept may be changed in place before the gradients are computed.
    """
    found = [
        program
        for operand, program in zip(operands, programs, strict=True)
        if program is not None and operand.requires_grad
    ]
    read = {place for program in found for place in program.places}
    return [
        operand if number in read else operand.new_empty(()).expand(operand.shape)
        for number, operand in enumerate(operands)
    ]


def _reduce_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    program, operands, index, other, ptr, perm, reduce = inputs
    kept = [output] if reduce in ("min", "amin", "max", "amax") else []
    if reduce in ("sum", "add", "mean"):
        operands = _read(operands, linear_programs(program, "i"))
    ctx.save_for_backward(index, other, ptr, perm, *operands, *kept)
    ctx.program, ctx.reduce, ctx.count = program, reduce, len(operands)


def _reduce_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    index, other, ptr, perm, *tensors = ctx.saved_tensors
    operands, kept = tensors[: ctx.count], tensors[ctx.count :]
    graph = Graph(index, other, (ptr, perm))
    is_half = grad.dtype in (torch.float16, torch.bfloat16)
    if kept:
        reached = _tie_program(ctx.program, is_half)
        ties = _ops.edge_reduce(reached, operands + kept, index, other, ptr, perm, "sum")
        extras = [grad / ties.clamp(min=1), *kept]
        programs = _extremum_programs(ctx.program, is_half)
    elif ctx.reduce in ("mul", "prod"):
        values = _ops.edge_map(ctx.program, operands, index, other, 0)
        out = _ops.segment_reduce(values, ptr, perm, "mul")
        extras = [_edge_gradient(grad, values, out, ptr, perm, "mul", index.size(0))]
        programs = linear_programs(ctx.program, "e")
    else:
        extras = [grad / _degrees(ptr, grad) if ctx.reduce == "mean" else grad]
        programs = linear_programs(ctx.program, "i")
    needed = ctx.needs_input_grad[1]
    grads = gradients(ctx.program, needed, graph, programs, operands, extras, grad.shape[1:])
    return None, grads, None, None, None, None, None


def gradients(
    text: str,
    needed: Sequence[bool],
    graph: Graph,
    programs: tuple[EdgeProgram | None, ...],
    operands: list[Tensor],
    extras: list[Tensor],
    shape: Sequence[int],
    shares: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]:
    """Return the gradients of the operands of a program, where they are needed and not 0.

    A gradient that is stored for each edge is summed for the operands whose gradient it is as well.
    The others in an order in which little is in memory at once: the sums over all edges first,
    which have a row for each node while they are computed; then those that are added to another.

    Args:
        text: The program.
        needed: Which operands' gradients are needed.
        graph: The edges.
        programs: The programs of the gradients, over the operands and `extras`.
        operands: The operands.
        extras: What flows back.
        shape: The feature shape of the program's value.
        shares: What else flows back to an operand; it is added to, and may not be needed any more.
    """
    tensors, letters = operands + extras, sides(text)
    found: list[Tensor | None] = [None] * len(operands) if shares is None else list(shares)
    wanted = [n for n, program in enumerate(programs) if program is not None and needed[n]]
    stored = {n for n in wanted if letters[n] == "e" and operands[n].shape[1:] == tuple(shape)}
    of_edges: dict[int, Tensor] = {}
    wanted.sort(key=lambda n: (n not in stored, letters[n] != "s", found[n] is None))
    for number in wanted:
        program, share, side = programs[number], found[number], letters[number]
        assert program is not None
        if program.twin in of_edges:
            grad = graph.summed(side, operands[number], of_edges[program.twin])
            grad = -grad if program.negative else grad
        else:
            grad = graph.gradient(side, operands[number], program, tensors, len(shape))
        if number in stored:
            of_edges[number] = grad
        found[number] = grad if share is None else share.add_(grad)
        del grad
    return found


def _map_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    program, operands, index, other, sum_dims = inputs
    ctx.save_for_backward(index, other, *_read(operands, linear_programs(program, "e")))
    ctx.program, ctx.sum_dims = program, sum_dims


def _map_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    index, other, *operands = ctx.saved_tensors
    grad = grad.reshape([*grad.shape, *([1] * ctx.sum_dims)])
    shape = feature_shape(ctx.program, operands)
    # An operand alone may be narrower than the value, and then so is G.
    grad = grad.expand([grad.size(0), *shape])
    programs = linear_programs(ctx.program, "e")
    needed, graph = ctx.needs_input_grad[1], Graph(index, other)
    grads = gradients(ctx.program, needed, graph, programs, operands, [grad], shape)
    return None, grads, None, None, None


def register() -> None:
    """Registers the gradients; once, after the library has been loaded."""
    register_gradient("edge_reduce", _reduce_backward, _reduce_context)
    register_gradient("edge_map", _map_backward, _map_context)

"""Which sizes of a model's tensors vary, and together with which others: found by running it.

No shape is guessed from a name. Sizes that are equal in every example are taken to be one size;
then the model runs with that size changed, and what fails to run is no variable size. The
conventions of PyG enter in one place: an integer tensor ``[2, E]`` is an edge index.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gnnscript.deploy.manifest import DeployError, Size, TensorSpec
from gnnscript.deploy.probes import is_index_dtype, other_values
from gnnscript.deploy.structure import (
    Call,
    bind,
    check_names,
    flat_outputs,
    invoke,
    named_tensors,
    refilled,
)

__all__ = ["Signature", "derive"]

Axis: TypeAlias = "tuple[int, int]"
"""Position of a tensor among the inputs, and a dimension of it."""

# How much a size grows. The last slice is repeated: what is valid for it is valid for its copies.
_STEP = 2
_RESAMPLINGS = 3
_SEED = 20_231


@dataclass(frozen=True)
class Signature:
    """The tensors of a model, and where the symbols in their shapes are read.

    Args:
        inputs: What goes in.
        outputs: What comes out.
        symbols: Per symbol of the inputs where it is read, such as ``x.size(0)``.
        calls: The example calls, and one for each size that was changed; all of them run.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: dict[str, str]
    calls: tuple[dict[str, Any], ...]


def derive(scripted: torch.jit.ScriptModule, calls: Sequence[Call]) -> Signature:
    """Finds out the shapes of a model's inputs and outputs by running it.

    Args:
        scripted: The model, on the CPU; copies of it are run some ten times, so small graphs do.
        calls: Example inputs. Sizes that are equal in all of them count as the same size: where
            two node types have equally many nodes in the first, give a second in which they
            differ.

    Returns:
        The shapes, in symbols: ``E`` for the columns of an edge index, ``N`` for the first other
        leading size, ``F`` for others that vary; ``N2``, ``E2``, ... where there are several.

    Raises:
        DeployError: The calls do not fit, differ in structure, or a tensor is empty or not on
            the CPU.
    """
    bound = [bind(scripted, call) for call in calls]
    return _Deriver(scripted, bound).signature()


@dataclass
class _Variable:
    """One variable size: its symbol, the dimensions that have it, and whether it varies alone."""

    symbol: str
    axes: list[Axis]
    alone: bool = True


class _Deriver:
    def __init__(self, scripted: torch.jit.ScriptModule, calls: list[dict[str, Any]]) -> None:
        self.scripted = scripted
        self.calls = calls
        flat = [
            [pair for name, value in call.items() for pair in named_tensors(name, value)]
            for call in calls
        ]
        self.names = [name for name, _ in flat[0]]
        self.tensors = [[tensor for _, tensor in pairs] for pairs in flat]
        self._validate(flat)
        self.first = self.tensors[0]
        self.extra: list[dict[str, Any]] = []

    def _validate(self, flat: list[list[tuple[str, Tensor]]]) -> None:
        for pairs in flat:
            names = [name for name, _ in pairs]
            if names != self.names:
                raise DeployError(
                    "expected all example inputs to have the same tensors, got "
                    f"{', '.join(self.names)} and {', '.join(names)}"
                )
            for (name, tensor), first in zip(pairs, self.tensors[0], strict=True):
                if tensor.dtype != first.dtype or tensor.dim() != first.dim():
                    raise DeployError(
                        f"expected '{name}' to have one dtype and one number of dimensions in all "
                        f"example inputs, got {first.dtype} {list(first.shape)} and {tensor.dtype} "
                        f"{list(tensor.shape)}"
                    )
                if tensor.layout is not torch.strided:
                    raise DeployError(
                        f"expected dense tensors in the example inputs, got '{name}' in the layout "
                        f"{tensor.layout}, which other runtimes do not pass; take its indices and "
                        "values as arguments, such as an edge_index and weights of edges"
                    )
                if tensor.device.type != "cpu":
                    raise DeployError(
                        f"expected example inputs on the CPU, got '{name}' on {tensor.device}; "
                        "move model and inputs there (the saved file loads on any device)"
                    )
                if tensor.numel() == 0:
                    raise DeployError(
                        f"the example for '{name}' is empty ({list(tensor.shape)}), which does not "
                        "show what its sizes mean; give a graph that has nodes and edges"
                    )
        check_names(self.names, "inputs")

    # -- running ----------------------------------------------------------------------------------

    def _call(self, tensors: Iterable[Tensor]) -> dict[str, Any]:
        """The first call with other tensors."""
        named = dict(zip(self.names, tensors, strict=True))
        return {name: refilled(name, value, named) for name, value in self.calls[0].items()}

    def _run(self, call: dict[str, Any]) -> list[tuple[str, Tensor]]:
        torch.manual_seed(_SEED)
        # A copy, because a model may remember what it has seen, or write to what it is given.
        model, given = copy.deepcopy((self.scripted, call))
        with torch.no_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            outputs = flat_outputs(invoke(model, given))
        names = getattr(self.scripted, "output_names", None)  # of `all_tensors`
        if names is None:
            return outputs
        return [(name, tensor) for name, (_, tensor) in zip(names, outputs, strict=True)]

    def _runs(self, tensors: Sequence[Tensor]) -> bool:
        try:
            self._run(self._call(tensors))
        except Exception:  # whatever it raises says that the model does not take these
            return False
        return True

    def _grown(self, axes: Iterable[Axis], tensors: Sequence[Tensor], step: int) -> list[Tensor]:
        grown = list(tensors)
        for position, dim in axes:
            last = grown[position].narrow(dim, -1, 1)
            repeats = [1] * last.dim()
            repeats[dim] = step
            grown[position] = torch.cat([grown[position], last.repeat(repeats)], dim)
        return grown

    # -- inputs -----------------------------------------------------------------------------------

    def signature(self) -> Signature:
        state = torch.random.get_rng_state()
        try:
            outputs = [self._run(call) for call in self.calls]
            check_names([name for name, _ in outputs[0]], "results")
            variables = self._variables()
            index = [self._index(position, variables) for position in range(len(self.first))]
            return Signature(
                inputs=tuple(
                    TensorSpec(name, _dtype(tensor), self._shape(position, variables), rows)
                    for position, (name, tensor, rows) in enumerate(
                        zip(self.names, self.first, index, strict=True)
                    )
                ),
                outputs=_Outputs(self, variables).specs(outputs),
                symbols={
                    v.symbol: f"{self.names[v.axes[0][0]]}.size({v.axes[0][1]})" for v in variables
                },
                calls=(*self.calls, *self.extra),
            )
        finally:
            torch.random.set_rng_state(state)

    def _shape(self, position: int, variables: list[_Variable]) -> tuple[Size, ...]:
        symbols: dict[Axis, Size] = {axis: v.symbol for v in variables for axis in v.axes}
        sizes = self.first[position].shape
        return tuple(symbols.get((position, dim), size) for dim, size in enumerate(sizes))

    def _is_edge_index(self, position: int) -> bool:
        return all(
            tensors[position].dim() == 2
            and tensors[position].size(0) == 2
            and is_index_dtype(tensors[position])
            for tensors in self.tensors
        )

    def _variables(self) -> list[_Variable]:
        edges = [p for p in range(len(self.first)) if self._is_edge_index(p)]
        columns = [(p, 1) for p in edges]
        leading = [(p, 0) for p, t in enumerate(self.first) if t.dim() and p not in edges]
        inner = [
            (p, d) for p, t in enumerate(self.first) if p not in edges for d in range(1, t.dim())
        ]
        found: list[_Variable] = []
        secondary = self._by_size(inner)
        for members in self._by_size([*columns, *leading]):
            same = next((s for s in secondary if self._sizes(s[0]) == self._sizes(members[0])), [])
            own = [axis for axis in members if axis in columns]
            rest = [axis for axis in members if axis not in columns]
            if own:
                group = self._smallest(own, rest)
                if group:
                    found.append(_Variable("E", group))
                    rest = [axis for axis in rest if axis not in group]
                else:
                    found += self._seen("E", own)
            while rest:
                group = self._largest(rest, same)
                if not group:
                    found += self._seen("N", rest)
                    break
                found.append(_Variable("N", group))
                rest = [axis for axis in rest if axis not in group]
                secondary = [s for s in secondary if s[0] not in group]
        for axes in secondary:
            if self._accept(axes):
                found.append(_Variable("F", axes))
            else:
                found += self._seen("F", axes)
        return _named(found)

    def _smallest(self, required: list[Axis], others: list[Axis]) -> list[Axis]:
        """The fewest axes of one size that can grow together, of edges.

        Where there are as many edges as nodes, this leaves the nodes out.
        """
        for count in range(len(others) + 1):
            for chosen in itertools.combinations(others, count):
                if self._accept([*required, *chosen]):
                    return [*required, *chosen]
        return []

    def _largest(self, axes: list[Axis], inner: list[Axis]) -> list[Axis]:
        """The most axes of one size that can grow together, of nodes.

        A square input, such as an adjacency matrix, grows along its inner axis as well. What
        cannot grow, such as a width that happens to be the number of nodes, is left out.
        """
        for count in range(len(axes), 0, -1):
            for chosen in itertools.combinations(axes, count):
                for group in ([*chosen], [*chosen, *inner]):
                    if self._accept(group):
                        return group
        return []

    def _sizes(self, axis: Axis) -> tuple[int, ...]:
        return tuple(tensors[axis[0]].size(axis[1]) for tensors in self.tensors)

    def _by_size(self, axes: Iterable[Axis]) -> list[list[Axis]]:
        groups: dict[tuple[int, ...], list[Axis]] = {}
        for axis in axes:
            groups.setdefault(self._sizes(axis), []).append(axis)
        return list(groups.values())

    def _accept(self, axes: list[Axis]) -> bool:
        """Whether the model takes another size there."""
        grown = self._grown(axes, self.first, _STEP)
        if self._runs(grown):
            self.extra.append(self._call(grown))
            return True
        return False

    def _seen(self, kind: str, axes: list[Axis]) -> list[_Variable]:
        """What the examples alone show to vary, together with other sizes or values."""
        varies = len(set(self._sizes(axes[0]))) > 1
        return [_Variable(kind, axes, alone=False)] if varies else []

    def _index(self, position: int, variables: list[_Variable]) -> tuple[str | None, ...]:
        """Per row of an index tensor, the symbol below which its values must lie."""
        tensor = self.first[position]
        if not is_index_dtype(tensor) or tensor.dim() == 0:
            return ()
        edge_index = self._is_edge_index(position)
        rows: list[str | None] = []
        for row in range(2) if edge_index else [None]:
            if any(bool((_row(t[position], row) < 0).any()) for t in self.tensors):
                rows.append(None)  # what is negative here points to nothing, or from the end
                continue
            bound = [v.symbol for v in variables if self._bounds(v, position, row)]
            rows.append(bound[0] if len(bound) == 1 else None)
        return tuple(rows) if edge_index or any(rows) else ()

    def _bounds(self, variable: _Variable, position: int, row: int | None) -> bool:
        """Whether the value ``n`` is refused where the size is ``n``, and taken where it is not."""

        def with_value(tensors: Sequence[Tensor]) -> list[Tensor]:
            changed = list(tensors)
            changed[position] = changed[position].clone()
            _row(changed[position], row).view(-1)[0] = size
            return changed

        size = self.first[variable.axes[0][0]].size(variable.axes[0][1])
        if self._runs(with_value(self.first)):
            return False
        return self._runs(with_value(self._grown(variable.axes, self.first, 1)))


class _Outputs:
    """The shapes of the results as expressions of the inputs' symbols."""

    def __init__(self, deriver: _Deriver, variables: list[_Variable]) -> None:
        self.deriver = deriver
        self.variables = variables

    def specs(self, outputs: list[list[tuple[str, Tensor]]]) -> tuple[TensorSpec, ...]:
        first = self.deriver.first
        changed = [
            self._shapes(self.deriver._grown(v.axes, first, _STEP)) if v.alone else None
            for v in self.variables
        ]
        # A size may depend on values, as the number of graphs does on the largest in `batch`.
        moved = [self._shapes(tensors) for tensors in other_values(first)]
        moved += [self._shapes(self._resampled(seed)) for seed in range(_RESAMPLINGS)]
        specs = []
        for number, (name, tensor) in enumerate(outputs[0]):
            shape: list[Size] = []
            for dim, size in enumerate(tensor.shape):
                seen = [_size(output, number, dim) for _, output in _plain(outputs)]
                if any(_size(shapes, number, dim) not in (size, None) for shapes in moved):
                    shape.append("?")
                    continue
                steps = [_size(shapes, number, dim) for shapes in changed]
                shape.append(self._expression(size, steps, seen))
            specs.append(TensorSpec(name, _dtype(tensor), tuple(shape)))
        return tuple(specs)

    def _resampled(self, seed: int) -> list[Tensor]:
        """The first example with nodes and edges drawn from its own, in their order."""
        generator = torch.Generator().manual_seed(seed)
        drawn = list(self.deriver.first)
        for variable in self.variables:
            size = drawn[variable.axes[0][0]].size(variable.axes[0][1])
            rows = torch.randint(size, (size,), generator=generator).sort().values
            for position, dim in variable.axes:
                drawn[position] = drawn[position].index_select(dim, rows)
        return drawn

    def _shapes(self, tensors: Sequence[Tensor]) -> list[torch.Size] | None:
        try:
            return [t.shape for _, t in self.deriver._run(self.deriver._call(tensors))]
        except Exception:  # the changed value is not one that the model takes
            return None

    def _dependent(self) -> list[_Variable]:
        return [variable for variable in self.variables if not variable.alone]

    def _counts(self, variable: _Variable) -> list[int]:
        return list(self.deriver._sizes(variable.axes[0]))

    def _expression(self, size: int, steps: list[int | None], seen: list[int | None]) -> Size:
        factors: list[tuple[int, _Variable]] = []
        for variable, stepped in zip(self.variables, steps, strict=True):
            if not variable.alone:
                continue
            if stepped is None or (stepped - size) % _STEP:
                return "?"
            if stepped != size:
                factors.append(((stepped - size) // _STEP, variable))
        if not factors:
            factors = [(1, v) for v in self._dependent() if self._counts(v) == seen][:1]
        deriver = self.deriver

        def varying(number: int) -> int:
            return sum(f * deriver._sizes(v.axes[0])[number] for f, v in factors)

        constant = size - varying(0)
        if any(found != constant + varying(number) for number, found in enumerate(seen)):
            return "?"
        if not factors:
            return size
        text = " + ".join(v.symbol if f == 1 else f"{f}*{v.symbol}" for f, v in factors)
        return text if constant == 0 else f"{text} {'+' if constant > 0 else '-'} {abs(constant)}"


def _plain(
    outputs: list[list[tuple[str, Tensor]]],
) -> Iterable[tuple[int, list[torch.Size]]]:
    return enumerate([tensor.shape for _, tensor in output] for output in outputs)


def _size(shapes: list[torch.Size] | None, number: int, dim: int) -> int | None:
    if shapes is None or number >= len(shapes) or dim >= len(shapes[number]):
        return None
    return shapes[number][dim]


def _named(found: list[_Variable]) -> list[_Variable]:
    counts: dict[str, int] = {}
    ordered = sorted(found, key=lambda variable: "NEF".index(variable.symbol))
    for variable in ordered:
        kind = variable.symbol
        counts[kind] = counts.get(kind, 0) + 1
        variable.symbol = kind if counts[kind] == 1 else f"{kind}{counts[kind]}"
    return ordered


def _row(tensor: Tensor, row: int | None) -> Tensor:
    return tensor if row is None else tensor[row]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

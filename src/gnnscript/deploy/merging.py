"""Whether many graphs can run as one, and how: planned from the manifest, decided by running it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnscript.deploy.comparing import assert_close
from gnnscript.deploy.manifest import Manifest, TensorSpec
from gnnscript.deploy.probes import is_constant, is_index_dtype, scaled, stirred
from gnnscript.deploy.triton_model import OWN, Merge, is_feature

__all__ = ["NotMergeableError", "merge_plan", "remembers"]

# As many graphs are tried as one, up to this number of nodes and edges: a model may do something
# else with large graphs.
_TRIED_GRAPHS = 32
_TRIED_ROWS = 1 << 15
_MOST_PLANS = 32
_LARGEST_SETTING = 1024
_INTEGERS = ("int32", "int64")

_Graph = dict[str, Tensor]
_Rule = dict[str, Any]


class NotMergeableError(Exception):
    """The graphs of a model cannot be merged; the message says why."""


class _InfluenceError(NotMergeableError):
    """Graphs change each other's results."""


def merge_plan(
    manifest: Manifest,
    model: torch.jit.ScriptModule,
    calls: Sequence[_Graph],
    *,
    rtol: float,
    atol: float,
) -> dict[str, Any]:
    """Finds out how graphs are merged such that each gets the results that it gets on its own.

    Many graphs are run as one and compared with each on its own; and again with the values of half
    of them changed to very different ones, which must not matter to the other half.

    Args:
        manifest: What goes in and comes out.
        model: The model, which takes and returns tensors alone, and remembers no calls.
        calls: Graphs of several sizes that the model takes, by the names of its inputs.
        rtol: Relative tolerance of the comparison.
        atol: Absolute tolerance of the comparison.

    Returns:
        The plan that :class:`gnnscript.deploy.triton_model.Merge` follows.

    Raises:
        NotMergeableError: There is none, as for a model in which graphs without edges between them
            influence each other.
    """
    trial = _Trial(manifest, model, _graphs(manifest, calls), rtol, atol)
    refusal = NotMergeableError("the model takes no graph")
    for rules in _plans(manifest):
        try:
            return trial.settled(rules)
        except NotMergeableError as error:
            # That of the first plan, as a rule; that graphs influence each other says the most.
            if refusal.__cause__ is None or isinstance(error, _InfluenceError):
                refusal = NotMergeableError(str(error))
                refusal.__cause__ = error
    raise refusal


def remembers(
    manifest: Manifest,
    model: torch.jit.ScriptModule,
    calls: Sequence[_Graph],
    *,
    rtol: float,
    atol: float,
) -> bool:
    """Whether what a model returns for a graph depends on those that it has seen before.

    Args:
        manifest: What goes in and comes out.
        model: The model, of which copies are run.
        calls: Graphs that the model takes, by the names of its inputs.
        rtol: Relative tolerance of the comparison.
        atol: Absolute tolerance of the comparison.
    """
    wanted = _run(copy.deepcopy(model), calls[0])
    for before in (stirred(manifest.inputs, calls[0]), *calls[-1:]):
        used = copy.deepcopy(model)
        try:
            _run(used, before)
        except Exception:  # the changed values are not ones that the model takes
            continue
        try:
            for found, expected in zip(_run(used, calls[0]), wanted, strict=True):
                assert_close(found, expected, rtol=rtol, atol=atol)
        except Exception:  # it differs, or does not run any more
            return True
    return False


def _graphs(manifest: Manifest, calls: Sequence[_Graph]) -> list[_Graph]:
    """Graphs that differ in their sizes and values, and have equally many features."""

    def features(graph: _Graph) -> list[int]:
        return [
            graph[spec.name].size(dim)
            for spec in manifest.inputs
            for dim, size in enumerate(spec.shape)
            if isinstance(size, str) and is_feature(size)
        ]

    first = calls[0]
    settings = {spec.name: first[spec.name] for spec in manifest.inputs if is_constant(spec)}
    alike = [{**call, **settings} for call in calls if features(call) == features(first)]
    graphs: list[_Graph] = []
    rows = 0
    for number in range(_TRIED_GRAPHS):
        graph = alike[number % len(alike)]
        rows += sum(max(tensor.shape, default=0) for tensor in graph.values())
        if number >= 2 and rows > _TRIED_ROWS:
            break
        graphs.append(scaled(manifest.inputs, graph, 1.0 + 0.5 * number))
    return graphs


def _plans(manifest: Manifest) -> Iterator[dict[str, _Rule]]:
    """What shapes and bounds leave open for the inputs: a plain vector may count graphs or not."""
    inputs = {spec.name: _input_rules(spec) for spec in manifest.inputs}
    if all(is_constant(spec) for spec in manifest.inputs):
        raise NotMergeableError("all of its inputs have one shape, and no nodes or edges")
    for rules in itertools.islice(itertools.product(*inputs.values()), _MOST_PLANS):
        yield dict(zip(inputs, rules, strict=True))


def _counted(spec: TensorSpec) -> list[tuple[int, str]]:
    """The dimensions that count nodes or edges; those of features have to agree in all graphs."""
    sizes = [(dim, size) for dim, size in enumerate(spec.shape) if isinstance(size, str)]
    return [(dim, size) for dim, size in sizes if not is_feature(size)]


def _input_rules(spec: TensorSpec) -> list[_Rule]:
    varying = _counted(spec)
    if is_constant(spec) and torch.Size(spec.shape).numel() <= _LARGEST_SETTING:  # type: ignore[arg-type]
        return [{"dim": None, "offset": []}]  # those run as one in which it is the same
    if len(varying) != 1:
        raise NotMergeableError(
            f"'{spec.name}' has the shape [{', '.join(map(str, spec.shape))}], and only what has "
            "one size that counts nodes or edges can be concatenated"
        )
    dim = varying[0][0]
    if len(spec.shape) == 2 and spec.shape[0] == 2 and spec.dtype in _INTEGERS:
        known = {row for row in spec.index if row is not None}
        if not known or (len(known) > 1 and None in spec.index):
            raise NotMergeableError(f"it is not known which nodes '{spec.name}' points to")
        # A row that the model does not read points to the nodes that the other one does.
        return [{"dim": dim, "offset": [row or min(known) for row in spec.index]}]
    if spec.dtype in _INTEGERS and len(spec.shape) == 1:
        bound = spec.index[0] if spec.index else None
        if bound is not None:
            return [{"dim": dim, "offset": [bound]}]
        return [{"dim": dim, "offset": [None]}, {"dim": dim, "offset": [OWN]}]
    return [{"dim": dim, "offset": [None]}]


def _output_rule(spec: TensorSpec, inputs: Mapping[str, _Rule]) -> _Rule:
    counts_graphs = any(OWN in rule["offset"] for rule in inputs.values())
    varying = _counted(spec)
    if not varying:
        return {"dim": None, "size": None}
    if len(varying) == 1:
        dim, size = varying[0]
        if size == "?" and counts_graphs:
            return {"dim": dim, "size": OWN}
        if size.isalnum():
            return {"dim": dim, "size": size}
    shape = ", ".join(map(str, spec.shape))
    raise NotMergeableError(f"the result '{spec.name}' of shape [{shape}] cannot be taken apart")


class _Trial:
    """Graphs that run as one, against what each gives on its own."""

    def __init__(
        self,
        manifest: Manifest,
        model: torch.jit.ScriptModule,
        graphs: Sequence[_Graph],
        rtol: float,
        atol: float,
    ) -> None:
        self.manifest = manifest
        self.model = model
        self.graphs = list(graphs)
        self.tolerance = {"rtol": rtol, "atol": atol}
        self.alone = [_run(model, graph) for graph in graphs]

    def settled(self, inputs: dict[str, _Rule]) -> dict[str, Any]:
        """The plan for such inputs; raises NotMergeableError where there is none."""
        merge = Merge({"inputs": inputs})
        rules = [_output_rule(spec, inputs) for spec in self.manifest.outputs]
        counts = self._counts(merge)
        together = self._together(merge, self.graphs, counts)
        # Numbers of nodes that come out are those of the merged graph.
        moved = dict.fromkeys(row for rule in inputs.values() for row in rule["offset"] if row)
        outputs = []
        for number, (spec, rule, found) in enumerate(
            zip(self.manifest.outputs, rules, together, strict=True)
        ):
            movable = is_index_dtype(found) and rule["size"] is not None
            tried = [rule, *({**rule, "offset": row} for row in (moved if movable else ()))]
            wanted = [[results[number]] for results in self.alone]
            outputs.append(self._fitting(spec, tried, found, wanted, counts))
        plan = {"inputs": inputs, "outputs": outputs}
        self._check_influence(Merge(plan), counts)
        return plan

    def _counts(self, merge: Merge) -> list[dict[str, int]]:
        return [
            merge.counts(
                graph,
                {
                    size: graph[spec.name].size(dim)
                    for spec in self.manifest.inputs
                    for dim, size in enumerate(spec.shape)
                    if isinstance(size, str)
                },
            )
            for graph in self.graphs
        ]

    def _together(
        self, merge: Merge, graphs: Sequence[_Graph], counts: Sequence[Mapping[str, int]]
    ) -> list[Tensor]:
        try:
            return _run(self.model, merge.join(graphs, counts))
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise NotMergeableError(
                f"the model does not take several graphs as one ({lines[-1].strip()})"
            ) from error

    def _fitting(
        self,
        spec: TensorSpec,
        rules: Sequence[_Rule],
        together: Tensor,
        wanted: Sequence[Sequence[Tensor]],
        counts: Sequence[Mapping[str, int]],
    ) -> _Rule:
        """The rule by which a result comes apart into those that graphs have on their own."""
        errors: list[Exception] = []
        for rule in rules:
            try:
                self._compare(Merge({"outputs": [rule]}), [together], counts, wanted)
            except (AssertionError, RuntimeError) as error:
                errors.append(error)
            else:
                return rule
        hint = ""
        if rules[0]["size"] is None:
            shape = ", ".join(map(str, spec.shape))
            hint = (
                f"; the result '{spec.name}' has the shape [{shape}] for any graph: where it is "
                "one a graph, let it take `batch`"
            )
        raise _InfluenceError(
            "graphs that run as one influence each other, so their results differ from those "
            f"they have alone ({_line(errors[0])}){hint}"
        ) from errors[0]

    def _compare(
        self,
        merge: Merge,
        together: Sequence[Tensor],
        counts: Sequence[Mapping[str, int]],
        wanted: Sequence[Sequence[Tensor]],
    ) -> None:
        for results, expected in zip(merge.split(together, counts), wanted, strict=True):
            for one, other in zip(results, expected, strict=True):
                assert_close(one, other, **self.tolerance)

    def _check_influence(self, merge: Merge, counts: Sequence[Mapping[str, int]]) -> None:
        """Changes what half of the graphs hold, and looks at the other half."""
        other = [self._stirred(graph) for graph in self.graphs]
        half = len(self.graphs) // 2
        for kept in (range(half), range(half, len(self.graphs))):
            graphs = [
                graph if number in kept else changed
                for number, (graph, changed) in enumerate(zip(self.graphs, other, strict=True))
            ]
            parts = merge.split(self._together(merge, graphs, counts), counts)
            for number in kept:
                for one, expected in zip(parts[number], self.alone[number], strict=True):
                    try:
                        assert_close(one, expected, **self.tolerance)
                    except AssertionError as error:
                        raise _InfluenceError(
                            "graphs that run as one influence each other, so their results depend "
                            f"on the values of others ({_line(error)})"
                        ) from error

    def _stirred(self, graph: _Graph) -> _Graph:
        changed = stirred(self.manifest.inputs, graph)
        try:
            _run(self.model, changed)
        except Exception:  # these are not values that the model takes
            return graph
        return changed


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _run(model: torch.jit.ScriptModule, graph: Mapping[str, Tensor]) -> list[Tensor]:
    given = {name: tensor.clone() for name, tensor in graph.items()}  # it may write to them
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        result = model(**given)
    return [result] if isinstance(result, Tensor) else list(result)

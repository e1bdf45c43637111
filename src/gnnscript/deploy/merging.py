"""Whether many graphs can run as one, and how: planned from the manifest, decided by running it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gnnscript.deploy.manifest import Manifest, TensorSpec
from gnnscript.deploy.triton_model import OWN, Merge, is_feature

__all__ = ["NotMergeableError", "merge_plan"]

_TRIED_GRAPHS = 4
_INTEGERS = ("int32", "int64")


class NotMergeableError(Exception):
    """The graphs of a model cannot be merged; the message says why."""


def merge_plan(
    manifest: Manifest,
    model: torch.jit.ScriptModule,
    calls: Sequence[dict[str, Tensor]],
    *,
    rtol: float,
    atol: float,
) -> dict[str, Any]:
    """Finds out how graphs are merged such that each gets the results that it gets on its own.

    Args:
        manifest: What goes in and comes out.
        model: The model, which takes and returns tensors alone.
        calls: Graphs of several sizes that the model takes, by the names of its inputs.
        rtol: Relative tolerance of the comparison.
        atol: Absolute tolerance of the comparison.

    Returns:
        The plan that :class:`gnnscript.deploy.triton_model.Merge` follows.

    Raises:
        NotMergeableError: There is none, as for a model in which graphs without edges between them
            influence each other.
    """
    graphs = _graphs(manifest, calls)
    reason = "the model takes no graph"
    for plan in _plans(manifest):
        merge = Merge(plan)
        reason = _difference(manifest, model, merge, graphs, rtol=rtol, atol=atol)
        if not reason:
            return plan
    raise NotMergeableError(reason)


def _graphs(manifest: Manifest, calls: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Graphs that differ in their sizes and values, and have equally many features."""

    def features(graph: dict[str, Tensor]) -> list[int]:
        return [
            graph[spec.name].size(dim)
            for spec in manifest.inputs
            for dim, size in enumerate(spec.shape)
            if isinstance(size, str) and is_feature(size)
        ]

    first = calls[0]
    alike = [call for call in calls if features(call) == features(first)]
    other = {k: v * 1.5 + 0.1 if v.is_floating_point() else v for k, v in first.items()}
    return [other, *alike[:_TRIED_GRAPHS]]


def _plans(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The plans that shapes and bounds leave open: a plain vector may count graphs or not."""
    inputs = {spec.name: _input_rules(spec) for spec in manifest.inputs}
    for rules in itertools.product(*inputs.values()):
        if sum(OWN in rule["offset"] for rule in rules) > 1:
            continue
        outputs = [_output_rule(spec, rules) for spec in manifest.outputs]
        yield {"inputs": dict(zip(inputs, rules, strict=True)), "outputs": outputs}


def _counted(spec: TensorSpec) -> list[tuple[int, str]]:
    """The dimensions that count nodes or edges; those of features have to agree in all graphs."""
    sizes = [(dim, size) for dim, size in enumerate(spec.shape) if isinstance(size, str)]
    return [(dim, size) for dim, size in sizes if not is_feature(size)]


def _input_rules(spec: TensorSpec) -> list[dict[str, Any]]:
    varying = _counted(spec)
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


def _output_rule(spec: TensorSpec, rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts_graphs = any(OWN in rule["offset"] for rule in rules)
    varying = _counted(spec)
    if len(varying) == 1:
        dim, size = varying[0]
        if size == "?" and counts_graphs:
            return {"dim": dim, "size": OWN}
        if size.isalnum():
            return {"dim": dim, "size": size}
    shape = ", ".join(map(str, spec.shape))
    hint = "" if varying else "; where it returns one result a graph, let it take `batch`"
    return {"reason": f"the result '{spec.name}' of shape [{shape}] cannot be taken apart{hint}"}


def _difference(
    manifest: Manifest,
    model: torch.jit.ScriptModule,
    merge: Merge,
    graphs: Sequence[dict[str, Tensor]],
    *,
    rtol: float,
    atol: float,
) -> str:
    """Why merged graphs do not give what they give on their own; empty where they do."""
    for rule in merge.plan["outputs"]:
        if "reason" in rule:
            return str(rule["reason"])
    symbols = [
        {
            size: graph[spec.name].size(dim)
            for spec in manifest.inputs
            for dim, size in enumerate(spec.shape)
            if isinstance(size, str)
        }
        for graph in graphs
    ]
    counts = [merge.counts(graph, sizes) for graph, sizes in zip(graphs, symbols, strict=True)]
    try:
        alone = [_run(model, graph) for graph in graphs]
        together = merge.split(_run(model, merge.join(graphs, counts)), counts)
        for wanted, found in zip(alone, together, strict=True):
            for one, other in zip(wanted, found, strict=True):
                torch.testing.assert_close(other, one, rtol=rtol, atol=atol, equal_nan=True)
    except AssertionError as error:
        return (
            "graphs that run as one influence each other, so their results differ from those "
            f"they have alone ({' '.join(str(error).split())[:200]})"
        )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"the model does not take several graphs as one ({lines[-1].strip()})"
    return ""


def _run(model: torch.jit.ScriptModule, graph: dict[str, Tensor]) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        result = model(**graph)
    return [result] if isinstance(result, Tensor) else list(result)

"""Serves a model that gnnscript saved, in the Python backend of Triton Inference Server.

This file is copied into model repositories as ``model.py``: it needs torch alone. The model lies
beside it, with the libraries that it needs; its manifest says what goes in and comes out. Requests
are checked before they reach the model, so that a wrong one gets an answer that says what is wrong.
Where ``config.pbtxt`` has the parameter ``merge``, the graphs of the requests that wait at the same
time run as one graph: tensors are concatenated, node indices moved on, results split.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

Graph = dict[str, Tensor]
"""The inputs of one request by name."""

OWN = "max"
"""Stands for the number of graphs that a vector of graph numbers counts: its largest, plus one."""

# How many nodes and edges are merged at most. On a CPU it pays as long as what one layer makes of
# them stays in the caches; a GPU wants to be filled.
_ROWS = {False: 1 << 15, True: 1 << 20}
_MANIFEST = "extra/gnnscript.json"
TRITON_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


def is_feature(symbol: str) -> bool:
    """Whether a symbol stands for a number of features, not of nodes or edges."""
    return symbol.startswith("F")


class InputError(ValueError):
    """The inputs of a request do not fit the model: the caller's fault."""


def measure(
    inputs: Sequence[Mapping[str, Any]],
    graph: Mapping[str, Tensor],
    *,
    limits: Mapping[str, int] | None = None,
    finite: bool = True,
) -> dict[str, int]:
    """Checks a graph, and finds out its sizes.

    Args:
        inputs: The manifest's inputs: ``name``, ``shape`` and ``index`` of each.
        graph: The tensors by name.
        limits: The largest value of each symbol that is accepted.
        finite: Whether NaN and infinity are refused.

    Returns:
        The size that each symbol stands for.

    Raises:
        InputError: A tensor has the wrong shape, an index points to nothing, or a number is not
            finite.
    """
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    for spec in inputs:
        name, shape, tensor = spec["name"], spec["shape"], graph[spec["name"]]
        wanted = f"[{', '.join(map(str, shape))}]"
        if tensor.dim() != len(shape):
            raise InputError(
                f"expected '{name}' of shape {wanted}, got {list(tensor.shape)}; "
                f"give it {len(shape)} dimensions"
            )
        for size, found in zip(shape, tensor.shape, strict=True):
            if isinstance(size, int):
                if size != found:
                    raise InputError(
                        f"expected '{name}' of shape {wanted}, got {list(tensor.shape)}"
                    )
            elif sizes.setdefault(size, found) != found:
                raise InputError(
                    f"expected '{name}' of shape {wanted}, got {list(tensor.shape)}, and "
                    f"'{first[size]}' has {size} = {sizes[size]}"
                )
            else:
                first.setdefault(size, name)
    for symbol, limit in (limits or {}).items():
        if sizes.get(symbol, 0) > limit:
            raise InputError(
                f"expected {symbol} of at most {limit}, got {sizes[symbol]} in '{first[symbol]}'; "
                "send a smaller graph"
            )
    for spec in inputs:
        _check_values(spec, graph[spec["name"]], sizes, finite=finite)
    return sizes


def _check_values(
    spec: Mapping[str, Any], tensor: Tensor, sizes: Mapping[str, int], *, finite: bool
) -> None:
    name = spec["name"]
    if tensor.numel() == 0:
        return
    if finite and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        where = (~tensor.isfinite()).nonzero()[0].tolist()
        raise InputError(
            f"'{name}' holds NaN or infinity, first at {where}; send finite numbers alone"
        )
    rows = spec["index"]
    parts = tensor.unbind(0) if len(rows) > 1 else [tensor]
    for row, (symbol, part) in enumerate(zip(rows, parts, strict=False)):
        if symbol is None:
            continue
        low, high = (int(bound) for bound in part.aminmax())
        if low < 0 or high >= sizes[symbol]:
            wrong = low if low < 0 else high
            place = f"row {row} of '{name}'" if len(rows) > 1 else f"'{name}'"
            if sizes[symbol] == 0:
                raise InputError(
                    f"expected no indices in {place}, as there are no nodes ({symbol} = 0), "
                    f"got {wrong}"
                )
            raise InputError(
                f"expected indices from 0 to {symbol} - 1 = {sizes[symbol] - 1} in {place}, "
                f"got {wrong}"
            )


class Merge:
    """Several graphs as one: how they are put together, and their results taken apart.

    Args:
        plan: ``inputs``: per name ``dim``, along which tensors are concatenated, and ``offset``,
            per row what its values are moved on by: a symbol, `OWN`, or None; without ``dim`` it
            is the same in all graphs. ``outputs``: for each ``dim``, along which it is split,
            ``size``, the symbol or `OWN` that says how much of it a graph has, and for numbers of
            nodes ``offset``, what they were moved on by; without ``dim`` all get the whole.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan

    def counts(self, graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes of a graph, with the number of graphs that it counts itself as `OWN`."""
        counts = dict(sizes)
        for name, rule in self.plan["inputs"].items():
            if OWN in rule["offset"]:
                found = int(graph[name].max()) + 1 if graph[name].numel() else 0
                counts[OWN] = max(found, counts.get(OWN, 0))
        return counts

    def fits(self, graph: Graph, counts: Mapping[str, int]) -> bool:
        """Whether a graph can be merged with others; an empty one runs on its own."""
        sizes = (size for symbol, size in counts.items() if not symbol.startswith("E"))
        return all(size > 0 for size in sizes) and all(
            int(graph[name].min()) >= 0
            for name, rule in self.plan["inputs"].items()
            if OWN in rule["offset"]
        )

    def join(self, graphs: Sequence[Graph], counts: Sequence[Mapping[str, int]]) -> Graph:
        """Puts graphs together.

        Args:
            graphs: The graphs.
            counts: For each what :meth:`counts` returned.
        """
        return {
            name: self._joined(name, rule, graphs, counts)
            for name, rule in self.plan["inputs"].items()
        }

    @staticmethod
    def _joined(
        name: str,
        rule: Mapping[str, Any],
        graphs: Sequence[Graph],
        counts: Sequence[Mapping[str, int]],
    ) -> Tensor:
        offsets = rule["offset"]
        if rule["dim"] is None:
            return graphs[0][name]
        if not any(offsets):
            return torch.cat([graph[name] for graph in graphs], rule["dim"])
        before = [0] * len(offsets)
        parts = []
        for graph, count in zip(graphs, counts, strict=True):
            tensor = graph[name]
            moved = torch.tensor(before, dtype=tensor.dtype, device=tensor.device)
            shape = [-1] + [1] * (tensor.dim() - 1) if len(offsets) > 1 else [1] * tensor.dim()
            parts.append(tensor + moved.reshape(shape))
            before = [n + count.get(row, 0) for n, row in zip(before, offsets, strict=True)]
        return torch.cat(parts, rule["dim"])

    def split(
        self, outputs: Sequence[Tensor], counts: Sequence[Mapping[str, int]]
    ) -> list[list[Tensor]]:
        """Takes results apart: for each graph its own."""
        columns: list[Sequence[Tensor]] = []
        for rule, tensor in zip(self.plan["outputs"], outputs, strict=True):
            if rule["dim"] is None:
                columns.append([tensor] * len(counts))
                continue
            lengths = [count[rule["size"]] for count in counts]
            if sum(lengths) != tensor.size(rule["dim"]):
                raise RuntimeError(
                    f"expected {sum(lengths)} values for {len(counts)} graphs, got "
                    f"{tensor.size(rule['dim'])}"
                )
            parts: Sequence[Tensor] = torch.split_with_sizes(tensor, lengths, rule["dim"])
            if "offset" in rule:
                # Numbers of nodes, as each graph counts them; what is negative stands for none.
                before = itertools.accumulate((c[rule["offset"]] for c in counts), initial=0)
                parts = [torch.where(p < 0, p, p - b) for p, b in zip(parts, before, strict=False)]
            columns.append(parts)
        return [list(parts) for parts in zip(*columns, strict=True)]

    def groups(
        self, graphs: Sequence[Graph], counts: Sequence[Mapping[str, int]], rows: int
    ) -> list[list[int]]:
        """Divides graphs into those that run together.

        Args:
            graphs: The graphs.
            counts: For each what :meth:`counts` returned.
            rows: How many nodes and edges a group has at most.

        Returns:
            The positions of the graphs in each group, all of the same number of features and
            with the same settings.
        """
        settings = [name for name, rule in self.plan["inputs"].items() if rule["dim"] is None]
        groups: list[list[int]] = []
        last: dict[tuple[Any, ...], tuple[list[int], int]] = {}
        for number, (graph, count) in enumerate(zip(graphs, counts, strict=True)):
            features = [size for symbol, size in count.items() if is_feature(symbol)]
            size = sum(count.values()) - sum(features)
            alike = (*features, *(str(graph[name].tolist()) for name in settings))
            group, total = last.get(alike, ([], rows))
            if total + size > rows:
                group, total = [], 0
                groups.append(group)
            group.append(number)
            last[alike] = (group, total + size)
        return groups


class Model:
    """A saved model, its manifest, and how requests are run.

    Args:
        path: The file of the model; the libraries that it needs lie beside it.
        device: Where it runs.

    Raises:
        RuntimeError: The file is damaged, or a library is missing or another.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.device = device
        self.manifest = _manifest(path)
        _load_libraries(self.manifest, path.parent, device)
        # Given as a file: a backend whose locale is ASCII cannot hand other names to torch.
        with path.open("rb") as file:
            self.module: Any = torch.jit.load(file, map_location=device)  # type: ignore[no-untyped-call]
        self.module.eval()
        self.merge: Merge | None = None
        self.limits: dict[str, int] = {}
        self.finite = True
        self.rows = 0

    def configure(self, config: Mapping[str, Any]) -> None:
        """Takes the settings of ``config.pbtxt``.

        Raises:
            RuntimeError: It describes other inputs or outputs than the manifest.
        """
        for kind in ("input", "output"):
            found = [described(t["name"], t["data_type"], t["dims"]) for t in config[kind]]
            wanted = [
                described(spec["name"], TRITON_TYPES[spec["dtype"]], spec["shape"])
                for spec in self.manifest[f"{kind}s"]
            ]
            if found != wanted:
                raise RuntimeError(
                    f"config.pbtxt does not match the manifest of the model: its {kind}s are "
                    f"{'; '.join(found)}, and the model has {'; '.join(wanted)}; export the model "
                    "again, or put back the file that it was exported with"
                )
        values = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        plan = json.loads(values.get("merge", "null"))
        self.merge = None if plan is None else Merge(plan)
        self.rows = int(values.get("merge_rows", _ROWS[self.device.type == "cuda"]))
        self.limits = json.loads(values.get("limits", "{}"))
        self.finite = values.get("finite", "true") == "true"
        threads = int(values.get("threads", 0))
        if threads:
            torch.set_num_threads(threads)

    def check(self, graph: Graph) -> dict[str, int]:
        """The sizes of a graph; raises InputError where it does not fit the model."""
        return measure(self.manifest["inputs"], graph, limits=self.limits, finite=self.finite)

    def run(self, graph: Graph) -> list[Tensor]:
        """Runs one graph."""
        # Where a gradient is asked for inside (forces from an energy), inference mode is refused.
        with torch.no_grad():
            result = self.module(**{k: v.to(self.device) for k, v in graph.items()})
        outputs = [result] if isinstance(result, Tensor) else list(result)
        return [output.detach().cpu() for output in outputs]

    def run_all(self, graphs: Sequence[Graph]) -> list[list[Tensor] | Exception]:
        """Runs many graphs, merged where that can be done.

        Returns:
            For each graph its results, or what is wrong with it: no graph harms another.
        """
        answers: list[list[Tensor] | Exception] = [RuntimeError("not run") for _ in graphs]
        alone: list[int] = []
        together: list[int] = []
        counts: dict[int, dict[str, int]] = {}
        for number, graph in enumerate(graphs):
            try:
                sizes = self.check(graph)
            except InputError as error:
                answers[number] = error
                continue
            if self.merge is not None:
                counts[number] = self.merge.counts(graph, sizes)
                if self.merge.fits(graph, counts[number]):
                    together.append(number)
                    continue
            alone.append(number)
        if self.merge is not None:
            for group in self.merge.groups(
                [graphs[n] for n in together], [counts[n] for n in together], self.rows
            ):
                numbers = [together[position] for position in group]
                if not self._run_merged(numbers, graphs, counts, answers):
                    alone += numbers
        for number in alone:
            try:
                answers[number] = self.run(graphs[number])
            except Exception as error:
                answers[number] = error
        return answers

    def _run_merged(
        self,
        numbers: Sequence[int],
        graphs: Sequence[Graph],
        counts: Mapping[int, Mapping[str, int]],
        answers: list[list[Tensor] | Exception],
    ) -> bool:
        if len(numbers) < 2 or self.merge is None:
            return False
        chosen = [counts[number] for number in numbers]
        try:
            outputs = self.run(self.merge.join([graphs[number] for number in numbers], chosen))
            parts = self.merge.split(outputs, chosen)
        except Exception:
            return False
        for number, part in zip(numbers, parts, strict=True):
            answers[number] = part
        return True


def _manifest(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            reader = torch._C.PyTorchFileReader(file)
            if _MANIFEST not in reader.get_all_records():
                raise RuntimeError(f"'{path}' has no manifest; export the model again")
            manifest: dict[str, Any] = json.loads(reader.get_record(_MANIFEST))
    except (RuntimeError, ValueError, OSError) as error:
        # Of a damaged file, what torch says names none.
        if str(path) in str(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"'{path}' is damaged ({reason}); export the model again") from error
    return manifest


def _load_libraries(manifest: Mapping[str, Any], folder: Path, device: torch.device) -> None:
    for library in manifest["libraries"]:
        if not library["ops"] and device.type != "cuda":
            continue  # the kernels for CUDA, which a torch without it cannot load
        path = folder / library["file"]
        if not path.is_file():
            raise RuntimeError(f"the model needs {path.name}, and there is no '{path}'")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != library["sha256"]:
            raise RuntimeError(
                f"'{path}' has sha256 {digest}, and the model needs the one with sha256 "
                f"{library['sha256']}; put that there"
            )
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]


def described(name: str, type_: str, shape: Iterable[Any]) -> str:
    """A tensor as error messages show it; sizes that vary are -1, as in ``config.pbtxt``."""
    sizes = ", ".join(str(size) if str(size).isdecimal() else "-1" for size in shape)
    return f"{name}: {type_} [{sizes}]"


class TritonPythonModel:
    """What the Python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the model."""
        import triton_python_backend_utils as backend

        self.backend = backend
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        kind, number = args["model_instance_kind"], args["model_instance_device_id"]
        device = torch.device(f"cuda:{number}" if kind == "GPU" else "cpu")
        try:
            # The server may see a link to it: errors name the file, and libraries lie beside that.
            self.model = Model((folder / "model.pt").resolve(), device)
            self.model.configure(config)
        except (RuntimeError, OSError) as error:
            text = str(error).encode(errors="surrogateescape").decode(errors="replace")
            raise backend.TritonModelException(text) from error
        self.batched = int(config["max_batch_size"]) > 0
        self.names = [spec["name"] for spec in self.model.manifest["inputs"]]
        self.outputs = [spec["name"] for spec in self.model.manifest["outputs"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers requests, each on its own terms."""
        graphs: list[Graph] = []
        errors: dict[int, Exception] = {}
        for number, request in enumerate(requests):
            try:
                graphs.append(self._graph(request))
            except InputError as error:
                errors[number] = error
        answers = iter(self.model.run_all(graphs))
        return [
            self._response(errors[number] if number in errors else next(answers))
            for number in range(len(requests))
        ]

    def _graph(self, request: Any) -> Graph:
        graph = {}
        for name in self.names:
            given = self.backend.get_input_tensor_by_name(request, name)
            # DLPack, not numpy: no copies, and the backend is not bound to a version of numpy.
            tensor = from_dlpack(given.to_dlpack())
            if self.batched:
                if tensor.size(0) != 1:
                    raise InputError(
                        f"expected one graph a request, with a first dimension of 1, got "
                        f"{tensor.size(0)} in '{name}'; send each graph as a request of its own, "
                        "the server puts them together"
                    )
                tensor = tensor[0]
            graph[name] = tensor
        return graph

    def _response(self, answer: list[Tensor] | Exception) -> Any:
        backend = self.backend
        if isinstance(answer, Exception):
            message, code = _explained(answer)
            error = backend.TritonError(message, getattr(backend.TritonError, code))
            return backend.InferenceResponse(output_tensors=[], error=error)
        tensors = []
        for name, output in zip(self.outputs, answer, strict=True):
            batched = output.unsqueeze(0) if self.batched else output
            tensors.append(backend.Tensor.from_dlpack(name, batched.contiguous()))
        return backend.InferenceResponse(output_tensors=tensors)


_OWN_FAULT = ("not enough memory", "out of memory", "CUDA error", "cudaError", "not run")


def _explained(error: Exception) -> tuple[str, str]:
    """What is wrong, in a line, and whose fault it is."""
    if isinstance(error, InputError):
        return str(error), "INVALID_ARG"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OWN_FAULT):
        return f"the server could not run the model: {text}", "UNAVAILABLE"
    return f"the model does not take these inputs: {text}", "INVALID_ARG"

"""What a deployed file says of itself: the manifest, read and written without torch."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from gnnscript._errors import GnnscriptError

__all__ = [
    "FORMAT",
    "JSON_FILE",
    "LINES_FILE",
    "Argument",
    "Check",
    "DeployError",
    "Library",
    "Manifest",
    "Size",
    "TensorSpec",
    "read_manifest",
]

FORMAT = 1
# Extra files of the archive. The second says the same as the first, in a form that takes a C++
# program no parser: a keyword and its values on each line.
JSON_FILE = "gnnscript.json"
LINES_FILE = "gnnscript.txt"

Size: TypeAlias = "int | str"
"""One size of a shape: a number, a symbol (``N``), an expression (``E + N``), or ``?``."""


class DeployError(GnnscriptError):
    """A model cannot be packaged, or a package cannot be used here; the message says the remedy."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that goes in or comes out.

    Args:
        name: The name of the argument; parts of tuples and dictionaries have their position or
            key added, as in ``x_0`` or ``x_dict_paper``.
        dtype: The name of its dtype, such as ``float32``.
        shape: Its sizes. A symbol stands for the same number wherever it occurs; ``?`` stands for
            a size that depends on values.
        index: Of a tensor of indices: for each of its rows (for a vector, its only one) the
            symbol below which its values must lie, or None. Empty for other tensors.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    index: tuple[str | None, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Argument:
    """One argument of ``forward``.

    Args:
        name: Its name.
        type: Its TorchScript type, such as ``Optional[Tensor]``.
        required: Whether it has no default.
    """

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class Library:
    """A library of native ops that the model needs.

    Args:
        file: Its file name; it lies beside the model.
        sha256: Checksum of the file, in hexadecimal digits.
        ops: The schemas of its ops that the model calls.
    """

    file: str
    sha256: str
    ops: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """How the saved file was compared with the model it was made of.

    Args:
        against: ``eager`` or, where only that was given, ``scripted``.
        calls: Number of calls compared, on graphs of different sizes.
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the largest value of its tensor.
        rtol: Relative tolerance that was granted.
        atol: Absolute tolerance that was granted.
    """

    against: str
    calls: int
    max_abs: float
    max_rel: float
    rtol: float
    atol: float


@dataclass(frozen=True)
class Manifest:
    """What a deployed model is, needs, takes and returns.

    Args:
        model: Name of the model's class.
        kernels: ``native`` or ``portable``.
        versions: The versions of gnnscript, torch and PyG that it was made with.
        arguments: The arguments of ``forward``.
        inputs: The tensors in them; empty where no example inputs were given.
        outputs: The tensors that come out, likewise.
        symbols: Where each symbol of the inputs' shapes is read, such as ``x.size(0)``.
        least: For a symbol, the least size that the file was found to be right for, if that is not
            0: some of what is compiled holds for larger graphs alone.
        ops: Names of all ops in the model.
        libraries: The libraries that the model needs.
        check: The comparison with the original, if there were example inputs.
        format: Version of this format.
    """

    model: str
    kernels: str
    versions: dict[str, str]
    arguments: tuple[Argument, ...]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    symbols: dict[str, str] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    ops: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()
    check: Check | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def to_lines(self) -> str:
        """The manifest as one ``keyword value ...`` a line, values separated by single spaces."""

        def tensor(keyword: str, spec: TensorSpec) -> str:
            # An expression is one word here.
            shape = (str(size).replace(" ", "") for size in spec.shape)
            return " ".join([keyword, spec.name, spec.dtype, *shape])

        lines = [f"format {self.format}", f"model {self.model}", f"kernels {self.kernels}"]
        lines += [f"version {name} {version}" for name, version in self.versions.items()]
        lines += [f"argument {a.name} {int(a.required)} {a.type}" for a in self.arguments]
        for spec in self.inputs:
            lines.append(tensor("input", spec))
            if any(spec.index):
                lines.append(" ".join(["index", spec.name, *(row or "-" for row in spec.index)]))
        lines += [tensor("output", spec) for spec in self.outputs]
        lines += [f"least {symbol} {size}" for symbol, size in self.least.items()]
        for library in self.libraries:
            lines.append(f"library {library.file} {library.sha256}")
            lines += [f"op {library.file} {schema}" for schema in library.ops]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The manifest that :meth:`to_json` wrote.

        Raises:
            DeployError: The text is none, or of a later format than this version reads.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            number = data["format"]
            if number > FORMAT:
                raise DeployError(
                    f"the manifest has format {number}, and gnnscript here reads formats up to "
                    f"{FORMAT}; upgrade gnnscript"
                )
            check = data["check"]
            return cls(
                **{
                    **data,
                    "arguments": tuple(Argument(**item) for item in data["arguments"]),
                    "inputs": _tensors(data["inputs"]),
                    "outputs": _tensors(data["outputs"]),
                    "ops": tuple(data["ops"]),
                    "libraries": tuple(
                        Library(**{**item, "ops": tuple(item["ops"])}) for item in data["libraries"]
                    ),
                    "check": None if check is None else Check(**check),
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DeployError(
                f"the manifest cannot be read ({type(error).__name__}: {error}); save the model "
                "again with gnnscript.save"
            ) from error

    def __str__(self) -> str:
        """The manifest for people."""
        made = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [f"{self.model}, {self.kernels} ops; made with {made}"]
        signature = ", ".join(
            f"{a.name}: {a.type}{'' if a.required else ' = default'}" for a in self.arguments
        )
        lines.append(f"forward({signature})")
        for title, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            if specs:
                lines += [f"{title}:", *(f"  {spec}{_below(spec)}" for spec in specs)]
        if self.symbols:
            lines.append("sizes:")
            for symbol, meaning in self.symbols.items():
                least = f", at least {self.least[symbol]}" if symbol in self.least else ""
                lines.append(f"  {symbol} = {meaning}{least}")
        for library in self.libraries:
            ops = ", for" if library.ops else ""  # one of CUDA kernels has none of its own
            lines += [f"library: {library.file}, sha256 {library.sha256}{ops}"]
            lines += [f"  {schema}" for schema in library.ops]
        namespaces: dict[str, int] = {}
        for op in self.ops:
            namespaces[op.split("::")[0]] = namespaces.get(op.split("::")[0], 0) + 1
        counts = ", ".join(f"{count} of {name}" for name, count in sorted(namespaces.items()))
        lines.append(f"ops: {counts}")
        if self.check is None:
            lines.append("check: none, because no example inputs were given")
        else:
            lines.append(
                f"check: {self.check.calls} calls against {self.check.against}, largest "
                f"difference {self.check.max_abs:.1e} absolute, {self.check.max_rel:.1e} relative"
            )
        return "\n".join(lines)


def _tensors(items: Iterable[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(**{**item, "shape": tuple(item["shape"]), "index": tuple(item["index"])})
        for item in items
    )


def _below(spec: TensorSpec) -> str:
    if not any(spec.index):
        return ""
    return f", values below {', '.join(str(row or '?') for row in spec.index)}"


_EXTRA = re.compile(rf"(^|/)(extra/)?{re.escape(JSON_FILE)}$")


def read_manifest(path: str | Path) -> Manifest:
    """Reads the manifest of a saved model; needs no torch.

    Args:
        path: A file that :func:`gnnscript.save` or :func:`gnnscript.deploy.aoti` wrote.

    Returns:
        Its manifest.

    Raises:
        DeployError: There is no such file, it is damaged, or has no manifest; says which.
    """
    path = Path(path)
    if not path.is_file():
        raise DeployError(f"there is no file '{path}'")
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if _EXTRA.search(name):
                    return Manifest.from_json(archive.read(name).decode())
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError) as error:
        raise DeployError(
            f"'{path}' is damaged or no model ({error}); copy or save it again"
        ) from error
    raise DeployError(
        f"'{path}' has no manifest: it was not written by gnnscript.save; load it with "
        "torch.jit.load, or save the model with gnnscript.save"
    )

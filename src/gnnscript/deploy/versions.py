"""Versions of a model in a repository: a new one beside those before, and which are served."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gnnscript.deploy.manifest import DeployError, Manifest, TensorSpec, read_manifest

__all__ = ["Earlier", "add_version", "serve_versions", "served_versions", "versions_of"]

_POLICY = re.compile(r"^version_policy.*\n", re.MULTILINE)
_NAME = re.compile(r"^name: .*\n", re.MULTILINE)
_FILE = re.compile(r'input_data_file: "([^"]*)"')


def versions_of(folder: Path) -> list[int]:
    """The versions that a model's folder holds, ascending."""
    return sorted(int(f.name) for f in folder.iterdir() if f.is_dir() and _is_version(f.name))


def _is_version(name: str) -> bool:
    return re.fullmatch("[1-9][0-9]*", name) is not None


class Earlier:
    """What a new version of a model has to agree with, because one configuration is for all.

    Args:
        folder: The folder of the model in its repository.

    Raises:
        DeployError: There is no model of gnnscript's in it.
    """

    def __init__(self, folder: Path) -> None:
        versions = versions_of(folder)
        config = folder / "config.pbtxt"
        if not versions or not config.is_file():
            raise DeployError(f"'{folder}' holds no model that a version could be added to")
        self._config = config.read_text(encoding="utf-8")
        self._newest = folder / str(versions[-1])
        self._manifest = read_manifest(self._newest / "model.pt")

    @property
    def merged(self) -> bool:
        """Whether requests are merged."""
        return re.search(r"^max_batch_size: [1-9]", self._config, re.MULTILINE) is not None

    @property
    def policy(self) -> str:
        """The line of the configuration that says which versions are served, if there is one."""
        return _policy_in(self._config)

    def check(self, manifest: Manifest, backend: str) -> None:
        """Raises DeployError where a new version takes, returns or needs something else."""
        own = "python" if (self._newest / "model.py").exists() else "libtorch"
        if own != backend:
            raise DeployError(
                f"'{self._newest}' is for backend={own!r}, and a model has one backend for all of "
                "its versions; give the new one another name"
            )
        for kind in ("inputs", "outputs"):
            before = [_declared(spec) for spec in getattr(self._manifest, kind)]
            now = [_declared(spec) for spec in getattr(manifest, kind)]
            if before != now:
                raise DeployError(
                    f"'{self._newest}' has the {kind} {', '.join(before)}, and the new version "
                    f"{', '.join(now)}, which clients would not notice; give it another name, or "
                    "replace the model by overwrite=True without a version"
                )


def _policy_in(config: str) -> str:
    found = _POLICY.search(config)
    line = "" if found is None else found[0].rstrip("\n")
    if line.count("{") != line.count("}"):
        raise DeployError("the version_policy of the configuration has to stand on one line")
    return line


def _declared(spec: TensorSpec) -> str:
    """What the configuration says of a tensor."""
    sizes = ", ".join("-1" if isinstance(size, str) else str(size) for size in spec.shape)
    return f"{spec.name}: {spec.dtype} [{sizes}]"


def add_version(made: Path, target: Path, version: int) -> None:
    """Moves a version into the folder of its model, which a server may be reading meanwhile.

    Args:
        made: A folder like that of a model, on the same disk, with this version alone.
        target: The folder of the model.
        version: The version; one of that number is replaced.
    """
    config = target / "config.pbtxt"
    used = set(_FILE.findall(config.read_text(encoding="utf-8")))  # until the server looks again
    (target / "warmup").mkdir(exist_ok=True)
    for file in (made / "warmup").iterdir():
        used.add(file.name)
        file.replace(target / "warmup" / file.name)
    place = target / str(version)
    if place.exists():
        place.rename(made / "replaced")
    (made / str(version)).rename(place)
    for name in ("README.md", config.name):
        (made / name).replace(target / name)
    for file in (target / "warmup").iterdir():
        if file.name not in used:
            file.unlink()


def serve_versions(
    repository: str | os.PathLike[str],
    name: str,
    versions: str | Sequence[int],
) -> None:
    """Says which versions of a model a server loads, such as ``[1]`` to take back version 2.

    A server that runs follows: it loads what is missing before it unloads what is no longer
    served, and no request is lost. ``gnnscript serve`` and :class:`Server` look once a second, and
    so does a ``tritonserver`` with ``--model-control-mode=poll``.

    Args:
        repository: The folder of the model repository.
        name: The name of the model.
        versions: ``"latest"``, which is what a new model has: the one with the highest number;
            ``"all"``; or those with these numbers.

    Raises:
        DeployError: There is no such model or version.
    """
    folder = Path(repository) / name
    config = folder / "config.pbtxt"
    if not config.is_file():
        raise DeployError(f"there is no model '{name}' in '{repository}'")
    if versions == "latest":
        policy = "latest { num_versions: 1 }"
    elif versions == "all":
        policy = "all { }"
    elif isinstance(versions, str) or not versions:
        raise ValueError(f"expected 'latest', 'all' or numbers of versions, got {versions!r}")
    else:
        missing = sorted(set(versions) - set(versions_of(folder)))
        if missing:
            raise DeployError(
                f"'{name}' has no version {missing[0]}; it has "
                f"{', '.join(map(str, versions_of(folder)))}"
            )
        policy = f"specific {{ versions: [ {', '.join(map(str, versions))} ] }}"
    text = config.read_text(encoding="utf-8")
    _policy_in(text)
    text = _POLICY.sub("", text)
    line = f"version_policy: {{ {policy} }}\n"
    named = _NAME.search(text)
    position = 0 if named is None else named.end()
    changed = config.with_name(".config.pbtxt")
    changed.write_text(text[:position] + line + text[position:], encoding="utf-8")
    changed.replace(config)


def served_versions(folder: Path) -> list[int]:
    """The versions that a server loads of the model in a folder."""
    policy = _policy_in((folder / "config.pbtxt").read_text(encoding="utf-8"))
    versions = versions_of(folder)
    if "specific" in policy:
        return [v for v in map(int, re.findall("[0-9]+", policy)) if v in versions]
    return versions if "all" in policy else versions[-1:]

"""What every test stands on: a clean process state around it, and the fixtures all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
from torch_geometric.nn import MessagePassing

ROOT = Path(__file__).resolve().parent.parent

# TorchScript compiles for seconds where a test's first example runs, so no deadline; and the same
# examples in every run, so that a red test stays red. To look for new ones:
# pytest --hypothesis-profile=explore
hypothesis.settings.register_profile(
    "gnnscript",
    deadline=None,
    derandomize=True,
    max_examples=50,
    # `auto` installs once for all examples of a test, which is what is meant.
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.register_profile(
    "explore",
    hypothesis.settings.get_profile("gnnscript"),
    derandomize=False,
    max_examples=500,
)
hypothesis.settings.load_profile("gnnscript")


def pytest_configure(config: pytest.Config) -> None:
    """Keep parallel workers from competing for the same cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


# -- the state around every test ------------------------------------------------------------------

# Modules in which an entry that vanishes, or becomes another object, is a test's broken promise.
WATCHED_PACKAGES = ("gnnscript", "torch", "torch_geometric")

# What PyG itself sets on a class when its first instance is made, gnnscript installed or not.
PYG_OWN_ATTRIBUTES = frozenset(
    {
        "_jinja_edge_updater",
        "_jinja_propagate",
        "_orig_edge_updater",
        "_orig_propagate",
        "collect",
        "edge_collect",
        "edge_updater",
        "propagate",
    }
)


def _functions(module: ModuleType) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if callable(value)}


@dataclass(frozen=True)
class ProcessState:
    """The global state that gnnscript promises to leave, or to restore.

    Attributes:
        meta_path: The finders in ``sys.meta_path``, in order.
        modules: The watched entries of ``sys.modules``.
        attributes: Per class or module, its attributes by name. TorchScript's entry points are
            among them: ``torch.jit.script`` and ``torch.jit._script._script_impl``.
    """

    meta_path: list[object]
    modules: dict[str, ModuleType]
    attributes: dict[str, dict[str, object]]

    @classmethod
    def take(cls) -> ProcessState:
        """Read the state of this process."""
        modules = {
            name: module
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in WATCHED_PACKAGES
        }
        return cls(
            meta_path=list(sys.meta_path),
            modules=modules,
            attributes={
                "torch.jit": _functions(torch.jit),
                "torch.jit._script": _functions(torch.jit._script),
                "torch.jit._recursive": _functions(torch.jit._recursive),
                "torch.nn.Module": dict(vars(torch.nn.Module)),
                "MessagePassing": dict(vars(MessagePassing)),
            },
        )

    def differences(self, later: ProcessState) -> list[str]:
        """Say what is no longer as it was.

        Args:
            later: The state to compare with.

        Returns:
            One line per difference; empty where there is none.
        """
        found = []
        if not _same_objects(self.meta_path, later.meta_path):
            found.append(f"sys.meta_path was {self.meta_path}, is {later.meta_path}")
        for name, module in self.modules.items():
            if name not in later.modules:
                found.append(f"sys.modules[{name!r}] disappeared")
            elif later.modules[name] is not module:
                found.append(f"sys.modules[{name!r}] is another object")
        for name in later.modules.keys() - self.modules.keys():
            spec = getattr(later.modules[name], "__spec__", None)
            if spec is None and name.partition(".")[0] != "torch":  # torch has synthetic ones
                found.append(f"sys.modules[{name!r}] is new, and was not imported")
        for owner, before in self.attributes.items():
            found += compare_attributes(owner, before, later.attributes[owner])
        return found


def _same_objects(first: list[object], second: list[object]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def compare_attributes(
    owner: str, before: dict[str, object], after: dict[str, object]
) -> list[str]:
    """Say which attributes came, went, or are another object, one line each."""
    lines = [f"{owner}.{name} is new" for name in after.keys() - before.keys()]
    lines += [f"{owner}.{name} disappeared" for name in before.keys() - after.keys()]
    lines += [
        f"{owner}.{name} was {before[name]!r}, is {after[name]!r}"
        for name in before.keys() & after.keys()
        if before[name] is not after[name]
    ]
    return sorted(lines)


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    """Seed torch, and fail the test that leaves the process other than it found it."""
    torch.manual_seed(0)
    before = ProcessState.take()
    yield
    differences = before.differences(ProcessState.take())
    assert not differences, "the test left behind:\n" + "\n".join(differences)


# -- doors ----------------------------------------------------------------------------------------


def _pyg_classes() -> dict[str, dict[str, object]]:
    """The attributes of every message passing class that PyG defines, by qualified name."""
    classes: dict[str, dict[str, object]] = {}
    pending: list[type] = [MessagePassing]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls.__module__.startswith("torch_geometric."):
            classes[f"{cls.__module__}.{cls.__qualname__}"] = {
                name: value for name, value in vars(cls).items() if name not in PYG_OWN_ATTRIBUTES
            }
    return classes


@pytest.fixture
def auto() -> Iterator[None]:
    """``import gnnscript.auto`` for one test, undone completely afterwards."""
    import gnnscript

    before = _pyg_classes()
    gnnscript.install()
    yield
    gnnscript.uninstall()
    after = _pyg_classes()
    differences = [
        line for name in before for line in compare_attributes(name, before[name], after[name])
    ]
    assert not differences, "uninstall() left behind:\n" + "\n".join(differences)


# -- processes and files --------------------------------------------------------------------------

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Run code in a fresh interpreter.

    Returns:
        ``run_python(code, *args, env=None, cwd=None, check=True)``: runs ``python -c code args``
        with ``env`` added to this process's environment, and returns the completed process with
        its output as text. Where ``check`` holds, a failing process fails the test with its
        standard error.
    """

    def run(
        code: str,
        *args: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check:
            assert completed.returncode == 0, completed.stderr
        return completed

    return run


@pytest.fixture(scope="session")
def hgcal_file() -> Path:
    """The ROOT file of two simulated HGCAL events.

    It is named by the environment variable ``GNNSCRIPT_EVENTS``, or lies beside the repository in
    ``../shared/hgcal``. Where it does neither, the test is skipped.
    """
    named: Any = os.environ.get("GNNSCRIPT_EVENTS")
    if named:
        path = Path(named)
        assert path.is_file(), f"GNNSCRIPT_EVENTS names {path}, which is no file"
        return path
    beside = sorted((ROOT.parent / "shared" / "hgcal").glob("*.root"))
    if not beside:
        pytest.skip("no HGCAL events: set GNNSCRIPT_EVENTS to the ROOT file")
    return beside[0]

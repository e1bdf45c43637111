"""What every test stands on: a clean process state around it, and the fixtures all tests share."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from process_state import ProcessState, compare_attributes, pyg_classes

# These bring finders into sys.meta_path, inductor those of an old setuptools: better now than
# within a test.
with contextlib.suppress(ImportError):
    import awkward  # noqa: F401
with contextlib.suppress(ImportError):
    import torch.utils.cpp_extension

# Tests run on the portable ops, also those in processes of their own; those of the native ops ask
# for them, and are skipped where the library has not been built.
os.environ.setdefault("GNNSCRIPT_KERNELS", "portable")

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
    """Keep parallel workers from competing for the same cores, and `make test` from skipping."""
    # Tests of the ops make tensors on torch's default device: benchmarks/gpu.sh names another.
    if device := os.environ.get("GNNSCRIPT_TEST_DEVICE"):
        torch.set_default_device(device)
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
    elif "GNNSCRIPT_COMPLETE" in os.environ and (missing := list(missing_tools())):
        raise pytest.UsageError(f"tests would be skipped: {'; '.join(missing)}")


def missing_tools() -> Iterator[str]:
    """What the Makefile installs, and is not there: tests that need it would be skipped."""
    from gnnscript.deploy import ServerError, find_server
    from gnnscript.ops import library

    if not library.paths():
        yield "there is no native library (make native)"
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    if shutil.which("cmake", path=path) is None:
        yield "there is no cmake (make install)"
    if sys.platform == "linux":
        try:
            find_server()
        except ServerError as error:
            yield str(error)


# -- the state around every test ------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    """Seed torch, and fail the test that leaves the process other than it found it."""
    torch.manual_seed(0)
    before = ProcessState.take()
    yield
    differences = before.differences(ProcessState.take())
    assert not differences, "the test left behind:\n" + "\n".join(differences)


# -- doors ----------------------------------------------------------------------------------------


@pytest.fixture
def auto() -> Iterator[None]:
    """``import gnnscript.auto`` for one test, undone completely afterwards."""
    import gnnscript

    before = pyg_classes()
    gnnscript.install()
    yield
    gnnscript.uninstall()
    after = pyg_classes()
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

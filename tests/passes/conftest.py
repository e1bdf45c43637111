"""Native ops for the tests of the passes, which write nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import gnnscript
from gnnscript.ops import library
from gnnscript.testing import BareProcess


@pytest.fixture
def native() -> Iterator[None]:
    """Native ops in what is scripted and run."""
    if not library.paths():
        pytest.skip("no native library: run 'make native'")
    with gnnscript.kernels("native"):
        yield


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process

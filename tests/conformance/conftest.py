"""One fresh process for each module of conformance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gnnscript.testing import BareProcess


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process

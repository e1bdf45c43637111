"""Fixtures of the tests of the examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from hgcal.events import read_graphs, read_hits
from hgcal.graph import Hits

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the examples."""
    return EXAMPLES


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keeps training fast where other tests run on the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def real_hits(hgcal_file: Path) -> list[Hits]:
    """The endcaps of the real events."""
    return read_hits(hgcal_file)


@pytest.fixture(scope="session")
def real_graphs(hgcal_file: Path) -> list[Data]:
    """The graphs of the real events, in the order of `real_hits`."""
    return read_graphs(hgcal_file)

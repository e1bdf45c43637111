"""Makes the examples importable, as they are for the scripts beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

from hgcal.events import read_graphs, read_hits  # noqa: E402  importable from here on
from hgcal.graph import Hits  # noqa: E402


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

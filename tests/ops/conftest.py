"""Fixtures of the op tests: PyG's ATen code as the reference, and each op in both its forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch_geometric.typing

from gnnscript import ops

Ops = dict[str, Callable[..., Any]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep tiny inputs from waking the threads of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _aten_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with PyG's own ATen calls also where torch_scatter and pyg_lib are installed."""
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", False)
    monkeypatch.setattr(torch_geometric.typing, "WITH_SOFTMAX", False)


@pytest.fixture(scope="session")
def eager() -> Ops:
    return {name: getattr(ops, name) for name in ops.__all__}


@pytest.fixture(scope="session")
def scripted(eager: Ops) -> Ops:
    return {name: torch.jit.script(op) for name, op in eager.items()}


@pytest.fixture(params=["eager", "scripted"])
def each_form(request: pytest.FixtureRequest, eager: Ops, scripted: Ops) -> Ops:
    return eager if request.param == "eager" else scripted

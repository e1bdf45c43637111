"""Fixtures of the op tests: PyG's ATen code as the reference, each op in all its forms.

A test that asks for `kernels`, `eager`, `scripted` or `each_form` runs on the portable and on the
native ops; the latter are skipped where the library has not been built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch_geometric.typing

import gnnscript
from gnnscript import ops
from gnnscript.ops import library, portable

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
def native() -> Any:
    """The module of native ops."""
    if not library.paths():
        pytest.skip("no native library: run 'make native'")
    from gnnscript.ops import native

    return native


@pytest.fixture(scope="session", params=["portable", "native"])
def implementation(request: pytest.FixtureRequest) -> Any:
    """Each module of ops."""
    return portable if request.param == "portable" else request.getfixturevalue("native")


@pytest.fixture
def kernels(implementation: Any) -> Iterator[str]:
    """Has `gnnscript.ops` run on each implementation."""
    name = implementation.__name__.rpartition(".")[2]
    with gnnscript.kernels(name):
        yield name


@pytest.fixture
def portable_kernels() -> Iterator[None]:
    """Has `gnnscript.ops` run on ATen alone."""
    with gnnscript.kernels("portable"):
        yield


@pytest.fixture(scope="session")
def eager(implementation: Any) -> Ops:
    return {name: getattr(implementation, name, getattr(ops, name)) for name in ops.__all__}


@pytest.fixture(scope="session")
def scripted(eager: Ops) -> Ops:
    return {name: torch.jit.script(op) for name, op in eager.items()}


@pytest.fixture(params=["eager", "scripted"])
def each_form(request: pytest.FixtureRequest, eager: Ops, scripted: Ops) -> Ops:
    return eager if request.param == "eager" else scripted

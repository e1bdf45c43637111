"""Models as research code writes them, each compared with its script, its gradients and its file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gnnscript.testing import BareProcess, assert_scripts_like_eager
from zoo import attention, equivariant, idioms, vectors

MODELS = {
    f"{topic.__name__.split('.')[-1]}-{name}": row
    for topic in (attention, equivariant, idioms, vectors)
    for name, row in topic.MODELS.items()
}


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("name", MODELS)
def test_scripts_like_eager(name: str, bare: BareProcess) -> None:
    make, inputs, *options = MODELS[name]
    torch.manual_seed(0)
    assert_scripts_like_eager(make(), *inputs, reload=bare, **(options[0] if options else {}))

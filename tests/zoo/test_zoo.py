"""Models as research code writes them, each compared with its script, its gradients and its file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gnnscript.testing import BareProcess, assert_scripts_like_eager
from zoo import attention, equivariant, idioms, physics, structures, temporal, vectors, wild

MODELS = {
    f"{topic.__name__.split('.')[-1]}-{name}": row
    for topic in (attention, equivariant, idioms, physics, structures, temporal, vectors, wild)
    for name, row in topic.MODELS.items()
}


@pytest.fixture(scope="module")
def bare() -> Iterator[BareProcess]:
    """A process that imports only torch, in which saved models are run."""
    with BareProcess() as process:
        yield process


# One of the classes has a comment with types that are out of date; the last test reads the warning.
@pytest.mark.filterwarnings("ignore:.*the declared types of 'propagate' are out of date")
@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("name", MODELS)
def test_scripts_like_eager(name: str, bare: BareProcess) -> None:
    make, inputs, *options = MODELS[name]
    torch.manual_seed(0)
    assert_scripts_like_eager(make(), *inputs, reload=bare, **(options[0] if options else {}))


@pytest.mark.usefixtures("auto")
def test_types_that_are_out_of_date_are_reported() -> None:
    found = r"idioms\.py:\d+: .*'weight' is declared as 'Optional\[Tensor\]', and not passed"
    with pytest.warns(UserWarning, match=found):
        torch.jit.script(idioms.TypeCommentModel())

"""The models of more_models.py, and the refusal of those that cannot be expressed."""

from __future__ import annotations

import pytest
import torch

import gnnscript
from conformance.modules import ModuleCase, cases, check
from conformance.more_models import MORE, REFUSED
from gnnscript.testing import BareProcess

pytestmark = pytest.mark.usefixtures("auto")


@cases(MORE)
def test_more_models(case: ModuleCase, bare: BareProcess) -> None:
    check(case, bare)


@cases(REFUSED)
def test_what_is_refused_says_where_and_what_to_do(case: ModuleCase) -> None:
    with pytest.raises(gnnscript.UnsupportedError) as caught:
        torch.jit.script(case.make())
    assert caught.value.location is not None
    assert "torch_geometric" in caught.value.location.file
    assert caught.value.remedy

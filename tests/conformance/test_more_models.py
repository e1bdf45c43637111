"""The models of more_models.py."""

from __future__ import annotations

import pytest

from conformance.modules import ModuleCase, cases, check
from conformance.more_models import MORE
from gnnscript.testing import BareProcess

pytestmark = pytest.mark.usefixtures("auto")


@cases(MORE)
def test_more_models(case: ModuleCase, bare: BareProcess) -> None:
    check(case, bare)

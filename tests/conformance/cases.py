"""The whole table: every conv of PyG, with the options that change its code and its call forms."""

from conformance.case import Case
from conformance.cases_common import COMMON
from conformance.cases_propagation import PROPAGATION
from conformance.cases_structure import STRUCTURE

__all__ = ["CASES", "Case"]

CASES = [*COMMON, *PROPAGATION, *STRUCTURE]

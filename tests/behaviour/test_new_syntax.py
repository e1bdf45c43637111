"""What newer Pythons brought: aliases, type parameters, starred indices, nested f-strings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Generic, Optional, Tuple, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from typing_extensions import TypeAliasType

import gnnscript
from behaviour.conftest import Check
from conformance.graphs import GRAPHS
from gnnscript.analyze.aliases import unaliased
from gnnscript.analyze.types import TENSOR, UNKNOWN, from_annotation, list_of
from gnnscript.ops import library

pytestmark = pytest.mark.usefixtures("auto")
T = TypeVar("T")
U = TypeVar("U")
Edges = TypeAliasType("Edges", Tensor)
Pair = TypeAliasType("Pair", Tuple[T, T], type_params=(T,))
Turned = TypeAliasType("Turned", Tuple[U, T], type_params=(T, U))
Maybe = TypeAliasType("Maybe", Optional[T], type_params=(T,))
Same = TypeAliasType("Same", T, type_params=(T,))


class Aliased(MessagePassing, Generic[T]):
    def forward(self, x: Same[Tensor], edge_index: Edges, weight: Maybe[Edges] = None) -> T:
        pair: Pair[Tensor] = (x, 2 * x)
        return self.propagate(edge_index, x=pair, weight=weight)

    def message(self, x_j: T, weight: Maybe[Tensor]) -> T:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class Annotated(MessagePassing):
    """Its annotations are objects: PyG reads them when an instance is made."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x, weight=None)

    def message(self, x_j, weight):
        return x_j if weight is None else x_j * weight


Annotated.message.__annotations__ = {"x_j": Same[T], "weight": Maybe["Tensor"], "return": T}


@pytest.fixture(params=["portable", "native"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "native" and not library.paths():
        pytest.skip("no native library: run 'make native'")
    with gnnscript.kernels(request.param):
        yield


def weighted() -> list[tuple[Tensor, ...]]:
    return [(g.x, g.edge_index, torch.rand(g.edge_index.size(1))) for g in GRAPHS]


def test_aliases_stand_for_their_values() -> None:
    assert unaliased(Pair[int]) == Tuple[int, int]
    assert unaliased(Turned[int, str]) == Tuple[str, int]
    assert unaliased(Maybe[Pair[Tensor]]) == Optional[Tuple[Tensor, Tensor]]
    assert unaliased(Tuple[Same[int], str]) == Tuple[int, str]
    assert unaliased(Maybe) == Optional[T]
    assert from_annotation(Edges) == TENSOR
    assert from_annotation(list[Same[Edges]]) == list_of(TENSOR)
    assert from_annotation(Same) == UNKNOWN


@pytest.mark.usefixtures("kernels")
def test_aliases_and_type_variables(check: Check) -> None:
    check(Aliased())
    check(Aliased(), *weighted())
    check(Annotated())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="x[*index] is of Python 3.11")
def test_starred_indices(check: Check) -> None:
    from behaviour.syntax_311 import StarredIndices

    check(StarredIndices())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="generic named tuples are of Python 3.11")
def test_generic_named_tuples(check: Check) -> None:
    from behaviour.syntax_311 import Generics

    check(Generics())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters are of Python 3.12")
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["Weighted", "Bounded", "Nested"])
def test_type_parameters(name: str, check: Check) -> None:
    from behaviour import syntax_312

    make: type[nn.Module] = getattr(syntax_312, name)
    check(make())
    # TorchScript has no types that contain themselves.
    assert from_annotation(syntax_312.Tree).args == (TENSOR, list_of(UNKNOWN))
    if name == "Weighted":
        check(make(), *weighted())

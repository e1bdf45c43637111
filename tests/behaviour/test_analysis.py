"""Annotations in every way users spell them, evaluated where the class was defined."""

# Classes stand here as users write them.
# ruff: noqa: RET504

import typing
import typing as t
from typing import List, Optional, Tuple, Union

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.typing
import torch_geometric.typing as pyg_t
import typing_extensions
from torch import Tensor, nn
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, PairTensor
from typing_extensions import Annotated, TypeAlias

from behaviour.models import Projecting
from conformance.graphs import GRAPHS

pytestmark = pytest.mark.usefixtures("auto")

NodePair = Tuple[Tensor, Optional[Tensor]]
Weights: TypeAlias = Optional[Tensor]


# -- spellings of types ---------------------------------------------------------------------------


class Pep604(Projecting):
    def forward(
        self, x: Tensor | OptPairTensor, edge_index: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        out = self.propagate(edge_index, x=x, weight=weight)
        return self.lin(out)

    def message(self, x_j: Tensor, weight: Tensor | None) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class Pep604InForward(Projecting):
    """PyG's own inspector cannot read a union of the hooks; those of forward it never looks at."""

    def forward(
        self, x: Tensor | PairTensor, edge_index: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(self, x_j: Tensor, weight: OptTensor) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class Strings(Projecting):
    def forward(
        self, x: "Tensor", edge_index: "Adj", weight: "Optional[torch.Tensor]" = None
    ) -> "Tensor":
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(self, x_j: "Tensor", weight: "OptTensor") -> "torch.Tensor":
        if weight is not None:
            return x_j * weight.view(-1, 1)
        return x_j


class StringsInside(Projecting):
    def forward(
        self, x: Union["Tensor", "NodePair"], edge_index: Adj, weight: Optional["Tensor"] = None
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(self, x_j: Tensor, weight: Optional["Tensor"]) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class OwnAliases(Projecting):
    def forward(self, x: Union[Tensor, NodePair], edge_index: Adj, weight: Weights = None):
        if isinstance(x, Tensor):
            x = (x, x)
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(self, x_j: Tensor, weight: Weights) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class Qualified(Projecting):
    def forward(
        self,
        x: typing.Union[torch.Tensor, torch_geometric.typing.OptPairTensor],
        edge_index: pyg_t.Adj,
        weight: t.Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            x = (x, x)
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(self, x_j: torch.Tensor, weight: pyg_t.OptTensor) -> torch.Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class FromTypingExtensions(Projecting):
    def forward(
        self,
        x: typing_extensions.Union[Tensor, typing_extensions.Tuple[Tensor, Tensor]],
        edge_index: Tensor,
        weight: typing_extensions.Optional[Tensor] = None,
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(self, x_j: Tensor, weight: typing_extensions.Optional[Tensor]) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class WithShapes(Projecting):
    def forward(
        self,
        x: Annotated[Tensor, "N", "F"],
        edge_index: Annotated[Tensor, 2, "E"],
        weight: Optional[Annotated[Tensor, "E"]] = None,
    ) -> Annotated[Tensor, "N", "C"]:
        return self.lin(self.propagate(edge_index, x=x, weight=weight))

    def message(
        self, x_j: Annotated[Tensor, "E", "F"], weight: Annotated[Optional[Tensor], "E"]
    ) -> Tensor:
        return x_j if weight is None else x_j * weight.view(-1, 1)


class LowerCaseGenerics(Projecting):
    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        if not isinstance(x, tuple):
            x = (x, x)
        scales: list[float] = [1.0, 2.0]
        return self.lin(self.propagate(edge_index, x=x, weight=weight, scales=scales))

    def message(self, x_j: Tensor, weight: Tensor | None, scales: list[float]) -> Tensor:
        x_j = x_j * scales[0] * scales[1]
        return x_j if weight is None else x_j * weight.view(-1, 1)


SPELLINGS = [
    Pep604, Pep604InForward, Strings, StringsInside, OwnAliases, Qualified, FromTypingExtensions,
    WithShapes, LowerCaseGenerics,
]  # fmt: skip


class Weighted(nn.Module):
    """Hands on weights that may be missing."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        return self.conv(x, edge_index) + self.conv(x, edge_index, weight)


@pytest.mark.parametrize("cls", SPELLINGS)
def test_spelling(cls, check, check_conv):
    check_conv(cls())
    check(Weighted(cls()), *[(g.x, g.edge_index, g.weight) for g in GRAPHS])
    check(Weighted(cls()))


@pytest.mark.parametrize("cls", [c for c in SPELLINGS if c not in {Strings, WithShapes}])
def test_spelling_of_pairs(cls, check):
    class PairModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = cls()

        def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv((x_src, x_dst), edge_index)

    check(PairModel(), *[(g.x, g.x_dst, g.bipartite) for g in GRAPHS])


def test_names_are_looked_up_where_the_class_is_defined(check_conv):
    Local = Optional[Tensor]
    factor = 3.0

    class Closure(Projecting):
        def forward(self, x: Tensor, edge_index: "Tensor", weight: Local = None) -> Tensor:
            return self.lin(self.propagate(edge_index, x=x, weight=weight))

        def message(self, x_j: Tensor, weight: Local) -> Tensor:
            return factor * x_j if weight is None else x_j * weight.view(-1, 1)

    check_conv(Closure())


# -- arguments of hooks that are no tensors -------------------------------------------------------


class Numbers(Projecting):
    def __init__(self, power: int = 2):
        super().__init__()
        self.power = power

    def forward(
        self, x: Tensor, edge_index: Tensor, scale: float = 0.5, double: bool = True
    ) -> Tensor:
        out = self.propagate(
            edge_index,
            x=self.lin(x),
            scale=scale,
            power=self.power,
            double=double,
            offsets=[1, -1, 2],
            shift=None,
        )
        return out

    def message(
        self,
        x_j: Tensor,
        scale: float,
        power: int,
        double: bool,
        offsets: List[int],
        shift: Optional[float],
    ) -> Tensor:
        out = scale * x_j**power
        for offset in offsets:
            out = out + offset
        if double:
            out = 2 * out
        return out if shift is None else out + shift


class NumbersFromModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Numbers(power=3)

    def forward(self, x: Tensor, edge_index: Tensor, scale: float, double: bool) -> Tensor:
        return self.conv(x, edge_index, scale=scale, double=double)


def test_numbers(check, check_conv):
    check_conv(Numbers())
    inputs = [(g.x, g.edge_index, 0.25 * (i + 1), i == 0) for i, g in enumerate(GRAPHS)]
    check(NumbersFromModel(), *inputs)


class OptionalInt(Projecting):
    def forward(
        self, x: Tensor, edge_index: Tensor, num_bins: Optional[int] = None, mode: str = "cos"
    ) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x), num_bins=num_bins, mode=mode)

    def message(self, x_i: Tensor, x_j: Tensor, num_bins: Optional[int], mode: str) -> Tensor:
        difference = x_j - x_i
        if num_bins is not None:
            difference = difference / num_bins
        if mode == "cos":
            return difference.cos()
        return difference.sin()


class OptionalIntModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = OptionalInt()

    def forward(self, x: Tensor, edge_index: Tensor, bins: int, mode: str) -> Tensor:
        first = self.conv(x, edge_index)
        second = self.conv(x, edge_index, bins)
        return first + second + self.conv(x, edge_index, mode=mode, num_bins=bins)


def test_optional_int_and_string(check, check_conv):
    check_conv(OptionalInt())
    inputs = [(g.x, g.edge_index, 4 + i, "sin") for i, g in enumerate(GRAPHS)]
    check(OptionalIntModel(), *inputs)


class Defaults(Projecting):
    """The hooks' own defaults count where propagate is not given a value."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.lin(x))

    def message(
        self, x_j: Tensor, slope: float = 0.3, weight: OptTensor = None, repeats: int = 2
    ) -> Tensor:
        out = F.leaky_relu(x_j, slope) * repeats
        return out if weight is None else weight.view(-1, 1) * out


def test_defaults_of_hooks(check_conv):
    check_conv(Defaults())


class TensorLists(Projecting):
    def forward(self, xs: List[Tensor], edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=xs[0], others=xs[1:], shape=(1, -1))

    def message(self, x_j: Tensor, others: List[Tensor], shape: Tuple[int, int]) -> Tensor:
        for other in others:
            x_j = x_j + other.mean(dim=0).view(shape)
        return self.lin(x_j)


def test_lists_and_tuples(check):
    check(TensorLists(), *[([g.x, g.x_dst, g.x], g.edge_index) for g in GRAPHS])

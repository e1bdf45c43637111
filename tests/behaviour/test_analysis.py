"""Annotations in every way users spell them, evaluated where the class was defined."""

# Classes stand here as users write them.
# ruff: noqa: RET504

import math
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
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, PairTensor, Size
from torch_geometric.utils import add_self_loops, degree, softmax
from typing_extensions import Annotated, TypeAlias

from conformance.graphs import EDGE, GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")

NodePair = Tuple[Tensor, Optional[Tensor]]
Weights: TypeAlias = Optional[Tensor]
EPSILON = 1e-6


class Projecting(MessagePassing):
    """Base of most classes here: a linear layer before the messages."""

    def __init__(self, **kwargs):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.lin = nn.Linear(IN, OUT)


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


# -- no annotations -------------------------------------------------------------------------------


class TutorialGCN(MessagePassing):
    """The layer of PyG's tutorial: no annotation anywhere."""

    def __init__(self, in_channels, out_channels):
        super().__init__(aggr="add")
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x, edge_index):
        # x has shape [N, in_channels], edge_index has shape [2, E]
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))
        x = self.lin(x)
        row, col = edge_index
        deg = degree(col, x.size(0), dtype=x.dtype)
        deg_inv_sqrt = deg.pow(-0.5)
        deg_inv_sqrt[deg_inv_sqrt == float("inf")] = 0
        norm = deg_inv_sqrt[row] * deg_inv_sqrt[col]
        out = self.propagate(edge_index, x=x, norm=norm)
        out = out + self.bias
        return out

    def message(self, x_j, norm):
        return norm.view(-1, 1) * x_j


class TutorialEdgeConv(MessagePassing):
    def __init__(self, in_channels, out_channels):
        super().__init__(aggr="max")
        self.mlp = nn.Sequential(
            nn.Linear(2 * in_channels, out_channels),
            nn.ReLU(),
            nn.Linear(out_channels, out_channels),
        )

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_i, x_j):
        tmp = torch.cat([x_i, x_j - x_i], dim=1)
        return self.mlp(tmp)


class HalfAnnotated(Projecting):
    def forward(self, x, edge_index: Tensor, edge_attr: OptTensor = None):
        return self.propagate(edge_index, x=self.lin(x), edge_attr=edge_attr)

    def message(self, x_i, x_j: Tensor, edge_attr: OptTensor):
        out = x_i - x_j
        return out if edge_attr is None else out * edge_attr.sum(-1, keepdim=True)

    def update(self, aggr_out, x):
        return aggr_out + x


@pytest.mark.parametrize(
    "conv", [TutorialGCN(IN, OUT), TutorialEdgeConv(IN, OUT), HalfAnnotated()], ids=str
)
def test_without_annotations(conv, check_conv):
    check_conv(conv)


def test_half_annotated_with_attr(check):
    check(HalfAnnotated(), *[(g.x, g.edge_index, g.attr) for g in GRAPHS])


# -- names that hooks and forward refer to --------------------------------------------------------


def radial_basis(distance: Tensor, count: int) -> Tensor:
    centres = torch.linspace(0.0, 2.0, count, device=distance.device)
    return torch.exp(-((distance.view(-1, 1) - centres) ** 2))


def length(vector):
    return (vector * vector).sum(dim=-1).clamp(min=EPSILON).sqrt()


class Continuous(MessagePassing):
    """Positions, a helper of the module, constants and a library function in one message."""

    scale = 0.5

    def __init__(self, num_basis: int = EDGE):
        super().__init__(aggr="mean")
        self.num_basis = num_basis
        self.filter = nn.Linear(num_basis, IN)
        self.lin = nn.Linear(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor, pos: OptTensor = None, size: Size = None):
        if pos is None:
            pos = x[:, :3]
        return self.propagate(edge_index, x=x, pos=pos, size=size)

    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor, index: Tensor) -> Tensor:
        distance = length(pos_j - pos_i) / math.sqrt(2.0)
        gate = softmax(-distance * self.scale, index)
        return gate.view(-1, 1) * self.filter(radial_basis(distance, self.num_basis)) * x_j

    def update(self, inputs: Tensor) -> Tensor:
        return self.lin(inputs)


def test_helpers_constants_and_libraries(check, check_conv):
    check_conv(Continuous())
    check(Continuous(), *[(g.x, g.edge_index, g.x[:, 3:6]) for g in GRAPHS])


class PairAliases(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin_l = nn.Linear(IN, OUT)
        self.lin_r = nn.Linear(IN, OUT, bias=False)

    def forward(self, x: PairTensor, edge_index: Adj, size: Size = None) -> Tensor:
        return self.propagate(edge_index, x=x, size=size)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.lin_l(x_j) + self.lin_r(x_i).tanh()


def test_pair_that_is_no_union(check):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = PairAliases()

        def forward(self, x: Tuple[Tensor, Tensor], edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index, size=(x[0].size(0), x[1].size(0)))

    inputs = [((g.x, g.x_dst), g.bipartite) for g in GRAPHS]
    check(PairAliases(), *inputs)
    check(Nested(), *inputs)

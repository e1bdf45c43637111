"""Models in syntax that came with Python 3.12: type parameters, aliases, nested f-strings."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from conformance.graphs import IN

type Edges = Tensor
type Pair[T] = tuple[T, T]
type Maybe[T] = T | None
type Nodes = Tensor | Pair[Tensor]
type Tree = Tensor | list[Tree]


class Weighted[T](MessagePassing):
    type Messages = Tensor

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.lin = nn.Linear(IN, IN)

    def forward(self, x: Nodes, edge_index: Edges, weight: Maybe[Edges] = None) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, self.lin(x))
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j: Messages, x_i: T, weight: Maybe[Tensor]) -> Messages:
        difference = x_j - x_i
        return difference if weight is None else difference * weight.view(-1, 1)


class Bounded[T: Tensor](MessagePassing):
    def forward(self, x: T, edge_index: Edges) -> T:
        return shifted(self.propagate(edge_index, x=x), 2.0)

    def update(self, out: T, x: "Later") -> "T":
        return out + x


def shifted[T: (Tensor, float)](value: T, by: float) -> T:
    return value + by


class Nested[*Ts, **P](nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({f"conv{'s'[:0]}_{i}": Weighted[Tensor]() for i in range(2)})
        self.last = Bounded()

    def forward(self, x: Tensor, edge_index: Edges) -> Pair[Tensor]:
        assert x.dim() == 2, f"expected {f'{"rows"}'} of nodes, got {x.dim()}"

        def halved[U](value: U) -> U:
            return value / 2

        h = x
        for name, conv in self.convs.items():
            part = f"{
                name.split('_')[0]  # the part before the number
            }"
            h = conv(h, edge_index) if part == "conv" else h * 0
        weight = torch.ones(edge_index.size(1))
        return halved(self.last(h, edge_index)), self.convs["conv_1"]((x, h), edge_index, weight)


type Later = Tensor

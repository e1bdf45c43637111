"""Dataclasses that a model makes: known by their fields, in no code that is left."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

import gnnscript
from behaviour.conftest import Check

pytestmark = pytest.mark.usefixtures("auto")


@dataclass
class State:
    h: Tensor
    score: Tensor | None = None
    turns: int = 1
    history: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.score is None:
            self.score = self.h.mean(-1)

    @property
    def weighted(self) -> Tensor:
        return self.h * self.score.unsqueeze(-1)

    def total(self, scale: float = 1.0) -> Tensor:
        return scale * self.h.sum() + self.turns

    def __add__(self, other: State) -> State:
        return State(self.h + other.h, turns=self.turns + other.turns)


class Stepping(MessagePassing):
    def step(self, state: State, edge_index: Tensor) -> State:
        state.history = [*state.history, state.h]
        state.turns += 1
        return dataclasses.replace(state, h=self.propagate(edge_index, x=state.h))

    def forward(self, x: Tensor, edge_index: Tensor):
        state = State(x)
        for _ in range(2):
            state = self.step(state, edge_index)
        both = state + State(x, turns=3)
        match both:
            case State(h, turns=turns) if turns > 100:
                x = h
            case State(_, score):
                x = x + score.unsqueeze(-1)
        return state.weighted, both.total(0.5), len(state.history), both.turns, x


def test_fields_methods_and_changes_are_as_in_eager_mode(check: Check) -> None:
    check(Stepping())


class Returns(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        return State(self.propagate(edge_index, x=x))


class Misses(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        return State(size=self.propagate(edge_index, x=x)).h


@pytest.mark.parametrize(
    ("cls", "cause"), [(Returns, "a 'State' is used as a value"), (Misses, "other arguments")]
)
def test_what_no_field_says_is_refused(cls: type[MessagePassing], cause: str) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause):
        torch.jit.script(cls())

"""Named tuples that compute, and functions named like builtins."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

pytestmark = pytest.mark.usefixtures("auto")


class Copying(MessagePassing):
    def run(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)


class Complex(NamedTuple):
    """A named tuple that computes."""

    real: Tensor
    imag: Tensor
    scale = 2.0

    @property
    def norm(self) -> Tensor:
        return (self.real**2 + self.imag**2 + 1e-6).sqrt()

    @staticmethod
    def of(x: Tensor) -> Complex:
        return Complex(x, x.flip(0))

    @classmethod
    def unit(cls, x: Tensor) -> Complex:
        return cls(torch.ones_like(x), torch.zeros_like(x))

    def turned(self, by: float = 1.0) -> Complex:
        return Complex(-by * self.imag, by * self.real)

    def __mul__(self, other: Complex) -> Complex:
        return Complex(
            self.real * other.real - self.imag * other.imag,
            self.real * other.imag + self.imag * other.real,
        )

    def __radd__(self, other: Tensor) -> Tensor:
        return other + self.real + self.imag


class ComplexConv(Copying):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        z = Complex.of(x)
        for _ in range(2):
            z = (z * z.turned(0.5)).turned()
        z = z * z.unit(x)
        return self.run(x + z, edge_index) * z.scale + z.norm.mean()


def test_named_tuples_with_methods(check):
    check(ComplexConv())


def sum(values: Tensor, scale: float) -> Tensor:  # noqa: A001
    """Named like a builtin of TorchScript's."""
    squares = values * values
    return squares * scale


class Shadows(Copying):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.run(sum(x, 2.0), edge_index)


def test_functions_named_like_builtins(check):
    check(Shadows())

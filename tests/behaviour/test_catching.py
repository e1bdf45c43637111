"""``try`` around what fails as the configuration decides, or cannot fail."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

import gnnscript
from conformance.graphs import IN

pytestmark = pytest.mark.usefixtures("auto")

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh}


class Refusing(Exception):
    pass


class Base(MessagePassing):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(IN, IN)

    def forward(self, x: Tensor, edge_index: Tensor):
        return self.propagate(edge_index, x=self.prepared(x))

    def prepared(self, x):
        return x


class CannotFail(Base):
    def prepared(self, x):
        turns = 0
        try:
            h = self.lin(x)
            h = F.relu(h) / 2
        except (AttributeError, TypeError):
            h = x
        else:
            h = h + 1
        finally:
            turns += 1
        return h * turns

    def message(self, x_i, x_j):
        try:
            if x_i.size(1) != x_j.size(1):
                raise ValueError("no pair")
            return x_i + x_j
        except ValueError as error:
            raise RuntimeError("no message") from error


class LookUp(Base):
    """Keys, attributes, positions and numbers that are not there."""

    def __init__(self) -> None:
        super().__init__()
        self.activation, self.depth = "swish", "two"
        self.lins = nn.ModuleList([nn.Linear(IN, IN)])

    def prepared(self, x):
        try:
            act = ACTIVATIONS[self.activation]
        except KeyError as error:
            print("unknown:", error)
            act = F.silu if str(error) == "'swish'" else F.elu
        try:
            depth = int(self.depth)
        except ValueError:
            depth = 3
        for position in range(depth):
            try:
                x = self.lins[position](x)
            except IndexError:
                break
            x = act(x)
        try:
            first, second = self.scales
        except AttributeError:
            first, second = 2.0, 3.0
        try:
            (x,) = (x, x)
        except ValueError as error:
            x = x * len(error.args)
        return x * first + second


class Helpers(Base):
    """What a helper raises for its options; in loops and branches."""

    def scale(self, name):
        if name not in ACTIVATIONS:
            raise Refusing(f"no activation {name}")
        return len(name) * 1.0

    def prepared(self, x):
        for name in ("relu", "gelu", "tanh"):
            try:
                scale = self.scale(name)
            except Refusing:
                continue
            finally:
                x = x + 1
            x = x * scale
        if x.sum() > 0:
            try:
                x = self.norm(x)
            except AttributeError:
                x = F.normalize(x)
        for _ in range(x.size(0)):
            try:
                x = x * self.gain
            except AttributeError:
                x = x * 0.9
        return x


class Halfway(Base):
    """What stands before the statement that fails is done."""

    def prepared(self, x):
        try:
            x = self.lin(x)
            self.seen = x.sum()
            x = self.norm(x)
            x = x * 100
        except AttributeError:
            x = x + 1
        return x * self.seen.cos()


@pytest.mark.parametrize(
    "module",
    [CannotFail(), LookUp(), Helpers(), Halfway()],
    ids=lambda module: type(module).__name__,
)
def test_errors_that_are_decided(module, check) -> None:
    check(module)


class Divides(Base):
    def prepared(self, x):
        try:
            return x / int(x.abs().sum() * 0)
        except ZeroDivisionError:
            return x


class Looks(Base):
    def prepared(self, x):
        factors = {1: 2.0, 2: 3.0}
        try:
            return x * factors[x.size(0)]
        except KeyError:
            return x


class Computes(Base):
    def prepared(self, x):
        try:
            return torch.linalg.inv(x.t() @ x) @ x.t()
        except Exception:
            return x


class Asks(Base):
    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor | None = None):
        try:
            x = x * weight.view(-1, 1)
        except AttributeError:
            x = x + 1
        return self.propagate(edge_index, x=x)


class Norms(Base):
    """A batch norm refuses a single row in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(IN)

    def prepared(self, x):
        try:
            return self.norm(x)
        except ValueError:
            return x


class Raises(Base):
    def prepared(self, x):
        try:
            if x.size(0) > 3:
                raise Refusing("large")
            return x * 2
        except Refusing:
            return x


class DoneBefore(Base):
    """What a helper does before it fails would be lost."""

    def helper(self, x):
        self.seen = x.sum()
        return self.norm(x)

    def prepared(self, x):
        try:
            x = self.helper(x)
        except AttributeError:
            x = x + 1
        return x * self.seen


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        (Divides(), "raises ZeroDivisionError"),
        (Looks(), "raises KeyError"),
        (Computes(), "raises RuntimeError"),
        (Asks(), "raises AttributeError"),
        (Norms(), "raises ValueError"),
        (Raises(), "raises Refusing"),
        (DoneBefore(), "AttributeError|has no attribute 'norm'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_errors_that_the_run_decides_are_refused(module, cause) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=cause) as caught:
        torch.jit.script(module)
    assert caught.value.location is not None
    assert caught.value.location.file == __file__
    assert caught.value.remedy

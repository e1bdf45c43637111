"""Texts with numbers of run time in them."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

import gnnscript
from gnnscript.specialize.formatting import Format

pytestmark = pytest.mark.usefixtures("auto")


class Describes(MessagePassing):
    name = "conv"

    def forward(self, x: Tensor, edge_index: Tensor):
        nodes, mean, last = x.size(0), float(x.detach().mean()), int(edge_index.max())
        print(f"[{self.name:>8}] mean {x.detach().mean():.4f} of {nodes:5d} nodes, {mean:+.1%}")
        assert nodes > 0, f"{nodes:.2e} nodes"  # the text of an error is simplified
        texts = [
            f"{nodes:04d}|{mean * 1000:.2f}|{nodes!s:6}|{last:<5}|{nodes * 1000:,}|{self.name!r}",
            f"{x.detach().sum():10.1f}",
            "n={0:d}, mean={1:.3f}, {name}, {0}".format(nodes, mean, name=self.name),  # noqa: UP032
            "{} of {:3d}".format(last, nodes),  # noqa: UP032
            "%s: %.2f%% (%5d) [%-6s]" % (self.name, mean * 100, last, "x"),  # noqa: UP031
            "%d of %d" % (last, nodes),  # noqa: UP031
        ]
        return self.propagate(edge_index, x=x), texts


def test_texts(check) -> None:
    check(Describes())


class Exponent(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor):
        return self.propagate(edge_index, x=x), f"{float(x.detach().mean()):.3e}"


def test_other_formats_are_refused() -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=r"the format '\.3e' of a 'float'"):
        torch.jit.script(Exponent())


_SPECS = [".2f", "f", "8.3f", "<10.1f", "^12.4f", "+.2f", "08.2f", ".0f", ",.2f", ".1%", ".15f"]


@pytest.mark.parametrize("spec", [*_SPECS, "*>9.2f"])
def test_numbers_are_written_as_python_does(spec: str) -> None:
    known = Format.parse(spec, integer=False, text=False)
    assert known is not None
    write, options = known.writer
    generator = random.Random(0)
    numbers = [0.0, -0.0, 0.5, 1.5, 2.5, -0.125, 1e-300, math.inf, -math.inf, math.nan]
    numbers += [generator.uniform(-1, 1) * 10 ** generator.randint(-8, 12) for _ in range(500)]
    numbers += [round(generator.uniform(-50, 50) * 8) / 8 for _ in range(100)]
    for number in numbers:
        assert write(number, *options) == format(number, spec)


@pytest.mark.parametrize("spec", ["d", "5d", ">9", "<9", "05d", ",", "+d", "^11d"])
def test_integers_are_written_as_python_does(spec: str) -> None:
    known = Format.parse(spec, integer=True, text=False)
    assert known is not None
    write, options = known.writer
    for number in (0, -5, 123456, -1234567):
        assert write(number, *options) == format(number, spec)

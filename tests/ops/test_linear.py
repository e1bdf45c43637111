"""The library's linear layers equal torch's, for every size, layout and dtype."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("native")

# Less than a tile, one, several, with and without remainders of rows, vectors and panels.
ROWS = (0, 1, 5, 6, 12, 100, 385, 1000)
WIDTHS = ((1, 1), (3, 4), (5, 16), (7, 17), (64, 33), (70, 64), (138, 100), (2, 130))
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


def layer(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows + inputs * outputs)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_values(dtype: torch.dtype) -> None:
    for rows, (inputs, outputs) in itertools.product(ROWS, WIDTHS):
        x, weight, bias = layer(rows, inputs, outputs, dtype)
        for given in (bias, None):
            out = torch.ops.gnnscript.linear(x, weight, given)
            exact = x.double() @ weight.double().t() + (0 if given is None else given.double())
            tolerance = TOLERANCES[dtype] * (1 + inputs)
            torch.testing.assert_close(
                out, exact.to(dtype), rtol=tolerance, atol=tolerance, msg=f"{rows} {inputs}"
            )


def test_rows_do_not_depend_on_each_other() -> None:
    x, weight, bias = layer(1000, 138, 100, torch.float32)
    out = torch.ops.gnnscript.linear(x, weight, bias)
    for first, last in ((0, 1), (3, 17), (400, 999)):
        assert torch.equal(torch.ops.gnnscript.linear(x[first:last], weight, bias), out[first:last])


def test_layouts() -> None:
    x, weight, bias = layer(200, 12, 20, torch.float32)
    wanted = torch.ops.gnnscript.linear(x, weight, bias)
    wide = torch.randn(200, 30)
    wide[:, 4:16] = x
    apart = torch.zeros(400, 12)
    apart[::2] = x
    columns = torch.randn(20, 40)
    columns[:, 8:20] = weight
    for given, w in (
        (wide[:, 4:16], weight),
        (apart[::2], columns[:, 8:20]),
        (x.t().contiguous().t(), weight.t().contiguous().t()),
    ):
        assert torch.equal(torch.ops.gnnscript.linear(given, w, bias), wanted)
    spread = torch.ops.gnnscript.linear(x[:1].expand(50, 12), weight, bias[:1].expand(20))
    assert torch.equal(
        spread, torch.ops.gnnscript.linear(x[:1], weight, bias[:1].repeat(20)).expand(50, 20)
    )


def test_nothing_to_sum() -> None:
    x, weight, bias = layer(40, 0, 5, torch.float32)
    assert torch.equal(torch.ops.gnnscript.linear(x, weight, bias), bias.expand(40, 5))
    assert torch.ops.gnnscript.linear(x, weight[:0], None).shape == (40, 0)


def test_other_devices_take_torchs() -> None:
    given = layer(40, 6, 7, torch.float32)
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    out = torch.ops.gnnscript.linear.default._op_dk(key, *given)
    assert torch.equal(out, functional.linear(*given))


def test_not_finite() -> None:
    x, weight, bias = layer(60, 20, 30, torch.float32)
    x[7, 3], x[9, 0] = float("nan"), float("inf")
    out = torch.ops.gnnscript.linear(x, weight, bias)
    wanted = functional.linear(x, weight, bias)
    assert torch.equal(out.isnan(), wanted.isnan())
    assert torch.equal(out.isinf(), wanted.isinf())


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients(with_bias: bool) -> None:
    x, weight, bias = (t.requires_grad_() for t in layer(5, 3, 4, torch.float64))
    inputs = (x, weight, bias if with_bias else None)
    assert torch.autograd.gradcheck(torch.ops.gnnscript.linear, inputs)
    assert torch.autograd.gradgradcheck(torch.ops.gnnscript.linear, inputs)


def test_as_torch_checks_ops() -> None:
    for dtype in TOLERANCES:
        inputs = tuple(t.requires_grad_() for t in layer(40, 6, 7, dtype))
        torch.library.opcheck(torch.ops.gnnscript.linear, inputs)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": torch.randn(3)}, "expected x of shape [E, K], got shape [3]"),
        (
            {"weight": torch.randn(4, 2)},
            "expected weight of shape [F, 3], with a column for each feature of x, got",
        ),
        ({"bias": torch.randn(3)}, "expected bias of shape [4], got shape [3]"),
        (
            {"weight": torch.randn(4, 3).double()},
            "expected weight of the dtype of x, Float, got Double",
        ),
        ({"x": torch.randn(5, 3).half()}, "expected x of dtype float32 or float64, got Half"),
    ],
)
def test_errors(change: dict[str, Tensor], error: str) -> None:
    given: dict[str, Any] = {
        "x": torch.randn(5, 3),
        "weight": torch.randn(4, 3),
        "bias": torch.randn(4),
    }
    with pytest.raises(ValueError, match=re.escape(error)):
        torch.ops.gnnscript.linear(*(given | change).values())


class TestChoice:
    """Where ``ops.linear`` takes the library's kernel: it is as if it had been torch's."""

    @pytest.fixture(autouse=True)
    def _linear(self) -> None:
        from gnnscript.ops.linear import linear  # loads the library

        self.linear = linear

    def ours(self, *args: Any) -> bool:
        """Whether it runs on the kernel, having compared the values."""
        with torch.profiler.profile() as profile:
            out = self.linear(*args)
            scripted = torch.jit.script(self.linear)(*args)
        called = sum(event.name == "gnnscript::linear" for event in profile.events())
        assert called in (0, 2)
        wanted = functional.linear(*args)
        for found in (out, scripted):
            assert (found.dtype, found.requires_grad) == (wanted.dtype, wanted.requires_grad)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        return called == 2

    @torch.no_grad()
    def test_matrices(self) -> None:
        x, weight, bias = layer(64, 6, 7, torch.float32)
        assert self.ours(x, weight, bias)
        assert self.ours(x, weight)
        assert self.ours(x, torch.nn.Parameter(weight), torch.nn.Parameter(bias))
        assert self.ours(x.double(), weight.double(), bias.double())
        assert not self.ours(x[:10], weight, bias)
        assert not self.ours(x.view(8, 8, 6), weight, bias)
        assert not self.ours(x[0], weight, bias)
        assert not self.ours(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
        assert not self.ours(torch.randn(40, 600), torch.randn(600, 600))

    def test_gradients_are_those_of_torch(self) -> None:
        x, weight, bias = layer(64, 6, 7, torch.float32)
        assert not self.ours(x, weight.requires_grad_(), bias)
        with torch.inference_mode():
            assert self.ours(x, weight, bias)

    def test_autocast(self) -> None:
        x, weight, bias = layer(64, 6, 7, torch.float32)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert self.linear(x, weight, bias).dtype == torch.bfloat16
            assert self.linear(x, weight).dtype == torch.bfloat16

    def test_errors_are_those_of_torch(self) -> None:
        x, weight, bias = layer(64, 6, 7, torch.float32)
        for args in ((x, weight[:, 1:], bias), (x, weight, bias[1:]), (x, weight.double())):
            with torch.no_grad(), pytest.raises(RuntimeError) as expected:
                functional.linear(*args)
            with torch.no_grad(), pytest.raises(RuntimeError) as found:
                self.linear(*args)
            assert str(found.value) == str(expected.value)

    def test_compiled(self) -> None:
        x, weight, bias = layer(64, 6, 7, torch.float32)
        compiled = torch.compile(self.linear, backend="aot_eager", fullgraph=True, dynamic=True)
        with torch.no_grad():
            for rows in (64, 5):
                given = x[:rows], weight, bias
                torch.testing.assert_close(compiled(*given), functional.linear(*given))
        weight.requires_grad_()
        compiled(x, weight, bias).sum().backward()
        torch.testing.assert_close(weight.grad, x.sum(0).expand(7, 6))

    def test_exported(self) -> None:
        op = self.linear

        class Layer(torch.nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return op(x, self.weight, self.bias)  # type: ignore[no-any-return]

        given, rows = Layer(6, 7), torch.export.Dim("rows")
        with torch.no_grad():
            program = torch.export.export(given, (torch.randn(64, 6),), dynamic_shapes=({0: rows},))
            assert "gnnscript.linear" in str(program.graph)
            for x in (torch.randn(5, 6), torch.randn(70, 6)):
                torch.testing.assert_close(program.module()(x), given(x))

"""Objects of Python that a model reads: global tensors, environment, loggers, its own dunders."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing

import gnnscript
from behaviour.conftest import Check
from conformance.forms import Plain
from conformance.graphs import IN

SIGNS = torch.tensor([1.0, -1.0]).repeat(IN // 2)
CUBE = torch.arange(8.0).view(2, 2, 2)
EVEN = torch.arange(IN) % 2 == 0
NOTHING = torch.zeros(0, IN, dtype=torch.float64)
TABLE = {"ones": torch.ones(IN), "pair": [torch.tensor(2), torch.eye(IN, dtype=torch.float64)]}
WAVE = torch.polar(torch.ones(IN), torch.arange(IN).float())
WEIGHTS = np.linspace(0.0, 1.0, IN)
HUGE = torch.zeros(10_000)

log = logging.getLogger(__name__)


HALF = torch.full((IN,), 0.5)


def shifted(x: Tensor, by: Tensor = HALF) -> Tensor:
    return x + by + CUBE.sum()


class Conv(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)


class GlobalTensors(MessagePassing):
    SCALE = torch.linspace(0, 1, IN)

    def forward(self, x, edge_index):
        x = shifted(x) * self.SCALE * SIGNS.to(x.device) + torch.from_numpy(WEIGHTS).to(x)
        x = torch.cat([x, NOTHING.to(x)]) * TABLE["ones"] @ TABLE["pair"][1].float()
        return self.propagate(edge_index, x=torch.where(EVEN, x, -x), by=TABLE["pair"][0])

    def message(self, x_j, by):
        return x_j * by - (WAVE.conj() * WAVE).real + CUBE[1, 0, 1]


@pytest.mark.usefixtures("auto")
def test_tensors_that_no_module_holds(check: Check) -> None:
    check(GlobalTensors())


COUNT = torch.zeros(1)


class ReadsCount(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j, x_i):
        return (x_j - x_i) * COUNT


@pytest.mark.usefixtures("auto")
def test_eager_calls_see_what_a_global_tensor_holds_now() -> None:
    x, edge_index = torch.rand(3, IN), torch.tensor([[0, 1], [1, 2]])
    conv = ReadsCount()
    with gnnscript.kernels("native" if gnnscript.ops.library.paths() else "portable"):
        before = conv(x, edge_index)
        COUNT.add_(1)
        try:
            after = conv(x, edge_index)
        finally:
            COUNT.zero_()
    assert not before.any()
    torch.testing.assert_close(after[1], x[0] - x[1])


class Large(Conv):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x * HUGE[0])


class SetsClass(Conv):
    turns = 0

    def forward(self, x, edge_index):
        type(self).turns += 1
        return self.propagate(edge_index, x=x)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(("conv", "remedy"), [(Large(), "buffer"), (SetsClass(), "attributes")])
def test_what_belongs_into_the_module_is_refused(conv: nn.Module, remedy: str) -> None:
    with pytest.raises(gnnscript.UnsupportedError, match=remedy) as caught:
        torch.jit.script(conv)
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


class Logs(Conv):
    def forward(self, x, edge_index):
        log.debug("nodes: %s", x.shape)
        logging.getLogger("gnnscript.tests").info("called")
        if os.environ.get("GNNSCRIPT_NO_SUCH_VARIABLE") or os.getenv("GNNSCRIPT_NONE"):
            x = -x
        return self.propagate(edge_index, x=x)


class Items(Conv):
    """A module that is a sequence of numbers to its own code."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, position: int) -> float:
        return 2.0 * position

    def forward(self, x, edge_index):
        for position in range(len(self)):
            x = x + self[position]
        return self.propagate(edge_index, x=x)


class Attributes(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({"scale": nn.Parameter(torch.rand(IN))})

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x * self.weights.scale)


class Called(Conv):
    def __call__(self, x: Tensor, edge_index: Tensor, factor: int = 2):
        return super().__call__(x * factor, edge_index), factor


class CalledWithAny(Conv):
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().__call__(*args, **kwargs) * 2


class Helper(Conv):
    def hop(self, x, edge_index, **options):
        return self.propagate(edge_index, x=x, **options)

    def forward(self, x, edge_index):
        x = self.hop(x, edge_index, scale=2.0)
        return self.hop((x, x), edge_index, scale=None, size=(x.size(0), x.size(0)))

    def message(self, x_j, scale):
        return x_j if scale is None else x_j * scale


class Lambdas(Conv):
    """Two on a line, told apart by where they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.functions = [lambda t: t * 2, lambda t: t * t]

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.functions[1](self.functions[0](x)))


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    "cls",
    [Attributes, Called, CalledWithAny, Helper, Items, Lambdas, Logs],
    ids=lambda c: c.__name__,
)
def test_runs_as_in_eager(cls: type[Conv], check: Check) -> None:
    check(cls())
    check(Plain(cls()))


class Masked(nn.Module):
    """Nothing of PyG's, and nothing that TorchScript takes: ``*`` with a default, no types."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(IN, IN)

    def forward(self, x, mask=None, *, scale: float = 1.0):
        y = self.lin(x) * scale
        return y if mask is None else y * mask


class UsesMasked(MessagePassing):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Masked()

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.inner(x))

    def message(self, x_j, index):
        return self.inner(x_j, mask=(index % 2).unsqueeze(-1), scale=2.0)


@pytest.mark.usefixtures("auto")
def test_plain_modules_that_torchscript_refuses_are_specialised(check: Check) -> None:
    check(UsesMasked())
    check(Plain(UsesMasked()))


class Images(MessagePassing):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.conv(x[:, None, None]).flatten(1))


@pytest.mark.usefixtures("auto")
def test_objects_in_the_place_of_freed_operators_are_no_operators() -> None:
    """TorchScript knows operators by ``id``, also those that are gone."""
    model = Images()
    known = torch.jit._builtins._get_builtin_table()
    padding = model.conv._reversed_padding_repeated_twice
    known[id(padding)] = "aten::relu"
    try:
        scripted = torch.jit.script(model)
    finally:
        known.pop(id(padding), None)
    x, edge_index = torch.rand(3, IN), torch.tensor([[0, 1], [1, 2]])
    torch.testing.assert_close(scripted(x, edge_index), model(x, edge_index))


class Listed(Conv):
    """What a module is made of, as lists of configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.lins = nn.ModuleList([nn.Linear(IN, IN), nn.Linear(IN, IN, bias=False)])
        self.extra = nn.ParameterList([nn.Parameter(torch.rand(IN)) for _ in range(2)])
        self.register_buffer("shift", torch.rand(IN))

    def forward(self, x, edge_index):
        weight = next(self.parameters())
        x = x.to(device=weight.device, dtype=weight.dtype) * next(iter(self.extra))
        penalty = sum(p.pow(2).sum() for p in self.parameters())
        penalty = penalty + sum(p.numel() for p in self.lins[0].parameters())
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                penalty = penalty + parameter.abs().sum() * len(name)
        for name, module in self.named_modules(prefix="model"):
            if isinstance(module, nn.Linear):
                penalty = penalty + module.weight.mean() * len(name)
        for buffer in self.buffers():
            x = x + buffer
        return self.propagate(edge_index, x=x), penalty


class Ordered(Conv):
    def forward(self, x, edge_index):
        numbers, table = [3, 1, 2], {"b": 1, "a": 2}
        factor = sorted(numbers, key=lambda v: -v)[1] + max(numbers, key=lambda v: v % 3)
        first = sorted(table.items(), key=lambda pair: pair[1])[0][1] + min(
            ["aaa", "b"], key=len
        ).count("b")
        found = next((v for v in numbers if v < 3), None)
        return self.propagate(edge_index, x=x * factor + first + (found or 0) + max([], default=2))


class Made(Conv):
    """Tensors made by methods and classes that only Python has."""

    def forward(self, x, edge_index):
        n = +x.size(0)
        x = (
            +x
            + x.new_tensor([1.0, 2.0]).sum()
            + (x * 2).new_tensor(n)
            + torch.Tensor([1.0, n]).sum()
        )
        x = x[:, torch.LongTensor([1, 0, *range(2, IN)])] + x.nelement() / x.ndimension() + ~n
        return self.propagate(edge_index, x=x)


class OrderedByValues(Conv):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=max(x.chunk(2, -1), key=lambda part: part.sum()))


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("cls", [Listed, Made, Ordered, OrderedByValues])
def test_lists_and_orders_of_configuration(cls: type[Conv], check: Check) -> None:
    check(cls())
    check(Plain(cls()))


@pytest.mark.usefixtures("auto")
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_hooks_of_old_are_refused_with_what_replaces_them(name: str) -> None:
    model = Plain(GCNConv(IN, IN))
    getattr(nn.utils, name)(model.conv.lin)
    with pytest.raises(gnnscript.UnsupportedError, match=f"parametrizations.{name}"):
        torch.jit.script(model)

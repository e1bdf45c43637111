"""Lists and dictionaries that a model builds and changes: known by their elements, as in Python."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from behaviour.conftest import Check
from conformance.graphs import IN, OUT


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(IN, OUT), GCNConv(OUT, OUT), GCNConv(OUT, OUT)])


class ArgumentsInAList(Model):
    """A list of values of several types, unpacked in a call."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        args = []
        args.append(x)
        args += [edge_index]
        args.extend([None])
        return self.convs[0](*args)


class DictionaryOfLists(Model):
    """As HeteroConv collects what it groups."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out_dict = {}
        for number, conv in enumerate(self.convs):
            x = conv(x, edge_index)
            kind = "even" if number % 2 == 0 else "odd"
            if kind not in out_dict:
                out_dict[kind] = [x]
            else:
                out_dict[kind].append(x)
        for kind, outs in out_dict.items():
            out_dict[kind] = torch.stack(outs).sum(0)
        return out_dict["even"] - out_dict.pop("odd") * len(out_dict)


class Shared(Model):
    """Two names for one list: a change by one is seen by the other."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = [x]
        second = first
        held = {"list": first}
        second.append(self.convs[0](x, edge_index))
        copied = list(first)
        copied.append(x)
        held["list"].insert(0, edge_index)
        return first[2] * len(second) + len(copied)


class Removed(Model):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        hidden = {"x": x, "size": x.size(0)}
        hidden["h"] = self.convs[0](hidden["x"], edge_index)
        del hidden["x"]
        hidden.update(scale=2.0)
        stack = [hidden.pop("h"), (x, 1)]
        pair = stack.pop()
        stack[-1] = stack[-1] * pair[1]
        stack[0] += hidden["size"]
        return stack[0] * hidden["scale"] + hidden.setdefault("more", 1)


class Grouped(Model):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        groups = defaultdict(list)
        for number in range(4):
            groups[number % 2].append(self.convs[0](x * number, edge_index))
        return sum(groups[0]) + groups[1][1]


class ChosenAtRunTime(Model):
    """Under a condition of run time the elements cannot be known: TorchScript keeps the list."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outs = [self.convs[0](x, edge_index)]
        if bool(x.sum() > 0):
            outs.append(outs[0] * 2)
        for row in range(x.size(0)):
            outs.append(outs[0] + row)
        return torch.stack(outs)


class PickedAtRunTime(Model):
    """Lists in a list, and a dictionary by numbers, that an index of run time picks or fills."""

    def forward(self, x: Tensor, edge_index: Tensor):
        buckets = [[] for _ in range(2)]
        means = {}
        for i in range(x.size(0)):
            buckets[i % 2].append(x[i])
            means[i] = x[i].mean()
        return torch.stack(buckets[0]), len(buckets[1]), sum(means.values())


class MeetingDictionaries(Model):
    """Each path has its own dictionary; behind them the entries are joined one by one."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.convs[0](x, edge_index)
        parts = {"h": h, "pair": (h, edge_index)}
        if bool(x.sum() > 0):
            parts = {"h": h * 2, "pair": (h + 1, edge_index)}
        return parts["h"] + self.convs[1](*parts["pair"])


class FromAMethod(Model):
    """A method returns a dictionary whose entries have several types."""

    def parts(self, x: Tensor, edge_index: Tensor):
        return {"x": self.convs[0](x, edge_index), "count": x.size(0), "nested": {"half": x / 2}}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        parts = self.parts(x, edge_index)
        return parts["x"] * parts["count"] + parts["nested"]["half"][:, :OUT]


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    "model",
    [
        ArgumentsInAList,
        DictionaryOfLists,
        Shared,
        Removed,
        Grouped,
        ChosenAtRunTime,
        PickedAtRunTime,
        MeetingDictionaries,
        FromAMethod,
    ],
)
def test_changed(model: type[Model], check: Check) -> None:
    check(model())

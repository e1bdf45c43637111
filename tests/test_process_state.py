"""The guard around every test sees each change that it promises to see."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
import torch_geometric.nn
from torch_geometric.nn import GCNConv, MessagePassing

from process_state import ProcessState, compare_attributes, pyg_classes


class Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Find nothing."""


def new_finder(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "meta_path", [Finder, *sys.meta_path])


def new_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "meta_path", sys.meta_path[::-1])


def replaced_module(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "torch_geometric.nn", ModuleType("torch_geometric.nn"))


def removed_module(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, "torch_geometric.nn")


def forged_module(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "gnnscript.forged", ModuleType("gnnscript.forged"))


def wrapped_script(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.jit, "script", lambda obj: obj)


def new_method(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessagePassing, "__prepare_scriptable__", lambda self: self, raising=False)


def other_method(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessagePassing, "propagate", lambda self: self)


def removed_method(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(MessagePassing, "propagate")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (new_finder, "sys.meta_path was"),
        (new_order, "sys.meta_path was"),
        (replaced_module, "sys.modules['torch_geometric.nn'] is another object"),
        (removed_module, "sys.modules['torch_geometric.nn'] disappeared"),
        (forged_module, "sys.modules['gnnscript.forged'] is new, and was not imported"),
        (wrapped_script, "torch.jit.script was"),
        (new_method, "MessagePassing.__prepare_scriptable__ is new"),
        (other_method, "MessagePassing.propagate was"),
        (removed_method, "MessagePassing.propagate disappeared"),
    ],
)
def test_a_change_is_seen_and_named(change, words) -> None:
    before = ProcessState.take()
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        differences = before.differences(ProcessState.take())
    assert len(differences) == 1
    assert differences[0].startswith(words)
    assert before.differences(ProcessState.take()) == []


def test_every_conv_of_pyg_is_watched() -> None:
    watched = pyg_classes()
    for name in torch_geometric.nn.conv.__all__:
        cls = getattr(torch_geometric.nn, name)
        if issubclass(cls, MessagePassing):
            assert f"{cls.__module__}.{cls.__qualname__}" in watched


def test_a_change_of_one_conv_is_seen() -> None:
    name = f"{GCNConv.__module__}.GCNConv"
    before = pyg_classes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GCNConv, "message", lambda self, x_j: x_j)
        after = pyg_classes()
    differences = compare_attributes("GCNConv", before[name], after[name])
    assert len(differences) == 1
    assert differences[0].startswith("GCNConv.message was")

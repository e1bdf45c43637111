"""What cannot be specialised is refused with the place, the code, the cause and the remedy."""

# Classes stand here as users write them.
# ruff: noqa: RUF036

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List, Union

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.utils import to_dense_batch

import gnnscript
from conformance.forms import Plain
from conformance.graphs import GRAPHS, IN, OUT

G = GRAPHS[0]


def places_of(cls: type, marker: str = "# here") -> list[str]:
    """The file and line of each marked line of a class."""
    lines, first = inspect.getsourcelines(cls)
    name = Path(inspect.getsourcefile(cls)).name
    return [f"{name}:{first + i}" for i, line in enumerate(lines) if marker in line]


def refused(module: nn.Module) -> gnnscript.UnsupportedError:
    """Scripts a module that must be refused and returns the error."""
    with pytest.raises(gnnscript.UnsupportedError) as caught:
        torch.jit.script(module)
    error = caught.value
    assert isinstance(error, gnnscript.GnnscriptError)
    assert error.cause
    assert error.remedy
    assert error.cause in str(error)
    assert error.remedy in str(error)
    return error


def check_refused(cls: type, code: str, *words: str) -> None:
    """A class is refused, as the root and inside of a model, at one of the marked places."""
    for module in (cls(), Plain(cls())):
        error = refused(module)
        text = str(error)
        assert error.location is not None
        place = f"{Path(error.location.file).name}:{error.location.line}"
        assert place in places_of(cls), text
        assert place in text
        assert code in text, text
        for word in words:
            assert word in text, text


class Kwargs(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor, **kwargs: Any) -> Tensor:
        return self.propagate(edge_index, x=x, **kwargs)  # here


class UnannotatedCount(MessagePassing):
    """Taken as a tensor, as nothing says otherwise; a tensor is no count of turns."""

    def forward(self, x: Tensor, edge_index: Tensor, turns) -> Tensor:
        for _ in range(turns):  # here
            x = self.propagate(edge_index, x=x)
        return x


class Missing(MessagePassing):
    """Nobody passes `weight`."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)  # here

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:  # here
        return weight * x_j


class Tries(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        try:  # here
            return self.propagate(edge_index, x=x)
        except RuntimeError:
            return x


class Numpy(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor) -> Tensor:
        scale = np.square(x_j.size(-1))  # here
        return x_j / float(scale)


class Yields(MessagePassing):
    def parts(self, x: Tensor):  # here
        sent = yield x  # here: parts
        yield 2 * x if sent is None else sent * x

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for part in self.parts(x):  # here
            x = x + self.propagate(edge_index, x=part)
        return x


class ArgsOfMessage(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor, *args: Tensor) -> Tensor:  # here
        return x_j


class UnionOfNumbers(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, scale=object())  # here

    def message(self, x_j: Tensor, scale: object) -> Tensor:  # here
        return x_j


class ChangesType(MessagePassing):
    """One name is a tensor in the first turn of a loop, and a list in those that follow."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        parts = x
        for _ in range(x.size(0)):
            if isinstance(parts, list):  # here
                parts = parts[0]
            parts = [parts, x]
        return self.propagate(edge_index, x=parts[0])


class SetsNewAttribute(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.last = {"input": x, 3: edge_index}  # here
        return self.propagate(edge_index, x=x)


class OtherSelf(nn.Module):
    """In the scripted module the module is ``self``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, IN)

    def forward(module, self: Tensor, edge_index: Tensor) -> Tensor:  # here
        return module.conv(self, edge_index)


class StoredSelf(OtherSelf):
    def forward(module, x: Tensor, edge_index: Tensor) -> Tensor:
        self = 2 * x  # here
        return module.conv(self, edge_index)


REFUSED = [
    (Kwargs, "**kwargs", "kwargs"),
    (Missing, "", "weight"),
    (Tries, "try"),
    (Numpy, "np.square"),
    (Yields, "parts"),
    (ArgsOfMessage, "*args"),
    (UnionOfNumbers, "scale"),
    (ChangesType, "", "parts"),
    (SetsNewAttribute, "self.last"),
    (OtherSelf, "self: Tensor", "calls the module 'module'"),
    (StoredSelf, "self = 2 * x", "calls the module 'module'"),
]


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(("cls", "code", "words"), [(c, code, w) for c, code, *w in REFUSED])
def test_refuses(cls, code, words):
    check_refused(cls, code, *words)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("cls", [c for c, *_ in REFUSED if c not in {Missing, ArgsOfMessage}])
def test_eager_still_runs_what_is_refused(cls):
    conv = cls()
    before = conv(G.x, G.edge_index)
    refused(conv)
    torch.testing.assert_close(conv(G.x, G.edge_index), before, rtol=0, atol=0)


@pytest.mark.usefixtures("auto")
def test_other_classes_are_not_affected():
    class Model(nn.Module):
        def __init__(self, second: nn.Module):
            super().__init__()
            self.first = GCNConv(IN, IN)
            self.second = second

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.second(self.first(x, edge_index), edge_index)

    bad = Model(Kwargs())
    modules = dict(bad.named_modules())
    refused(bad)
    assert dict(bad.named_modules()) == modules
    assert all(a is b for a, b in zip(bad.modules(), modules.values(), strict=True))
    good = Model(GCNConv(IN, OUT))
    scripted = torch.jit.script(good)
    torch.testing.assert_close(scripted(G.x, G.edge_index), good(G.x, G.edge_index))
    refused(bad)
    torch.testing.assert_close(
        torch.jit.script(bad.first)(G.x, G.edge_index), bad.first(G.x, G.edge_index)
    )


# -- source that is not available -----------------------------------------------------------------

TEXT = """
from torch import Tensor
from torch_geometric.nn import MessagePassing

class Sourceless(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_i - x_j
"""


@pytest.fixture
def sourceless(monkeypatch):
    """A class from exec, whose lines nobody kept."""
    module = type(sys)("sourceless_module")
    monkeypatch.setitem(sys.modules, "sourceless_module", module)
    exec(compile(TEXT, "<string>", "exec"), vars(module))
    return module.Sourceless


@pytest.mark.usefixtures("auto")
def test_refuses_a_class_without_source(sourceless):
    conv = sourceless()
    assert conv(G.x, G.edge_index).shape == G.x.shape
    for module in (conv, Plain(conv)):
        error = refused(module)
        assert "source" in error.cause
        assert "Sourceless" in str(error)


def test_decorator_refuses_a_class_without_source(sourceless):
    with pytest.raises(gnnscript.UnsupportedError, match="source"):
        gnnscript.scriptable(sourceless)


@pytest.mark.usefixtures("auto")
def test_source_function_refuses_too(sourceless):
    with pytest.raises(gnnscript.UnsupportedError, match="source"):
        gnnscript.source(sourceless())
    with pytest.raises(gnnscript.UnsupportedError, match=r"\*\*kwargs"):
        gnnscript.source(Kwargs())


# -- at decoration --------------------------------------------------------------------------------


def test_decorator_refuses_what_is_visible_in_the_class():
    with pytest.raises(gnnscript.UnsupportedError, match=r"\*\*kwargs") as caught:

        @gnnscript.scriptable
        class Visible(MessagePassing):
            def forward(self, x: Tensor, edge_index: Tensor, **kwargs: Any) -> Tensor:
                return self.propagate(edge_index, x=x, **kwargs)

    here = test_decorator_refuses_what_is_visible_in_the_class
    assert places_of(here, "x=x, **" + "kwargs)")[0] in str(caught.value)


@pytest.mark.parametrize("value", [nn.Linear, int, "GCNConv", GCNConv(IN, OUT), len])
def test_decorator_refuses_what_is_no_message_passing_class(value):
    with pytest.raises((TypeError, gnnscript.GnnscriptError), match="MessagePassing"):
        gnnscript.scriptable(value)


@pytest.mark.usefixtures("auto")
def test_unannotated_number_at_the_root():
    error = refused(UnannotatedCount())
    assert places_of(UnannotatedCount)[0] in str(error)
    assert "'turns'" in str(error)


def test_decorated_class_is_refused_when_scripted():
    @gnnscript.scriptable
    class Late(MessagePassing):
        """That `scale` is no tensor, only an instance knows."""

        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, scale=self.scale.factor)  # here

        def message(self, x_j, scale):
            return scale * x_j

    error = refused(Late(2.0))
    assert places_of(Late)[0] in str(error)
    good = Late(SimpleNamespace(factor=2.0))
    torch.testing.assert_close(torch.jit.script(good)(G.x, G.edge_index), good(G.x, G.edge_index))


# -- the error object -----------------------------------------------------------------------------


def test_error_has_its_parts():
    error = gnnscript.UnsupportedError("a cause", "a remedy", None)
    assert (error.cause, error.remedy, error.location) == ("a cause", "a remedy", None)
    assert "a cause" in str(error)
    assert "a remedy" in str(error)
    assert issubclass(gnnscript.UnsupportedError, gnnscript.GnnscriptError)


class Inherited(Kwargs):
    """The fault stands in the parent."""

    def message(self, x_j: Tensor) -> Tensor:
        return 2 * x_j


@pytest.mark.usefixtures("auto")
def test_place_is_where_the_code_stands():
    error = refused(Inherited())
    assert places_of(Kwargs)[0] in str(error)


def broken_helper(value: Tensor) -> Tensor:
    return value * id(value)  # it is another in each run


class InHelper(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=broken_helper(x))


@pytest.mark.usefixtures("auto")
def test_place_in_a_helper():
    error = refused(Plain(InHelper()))
    lines, first = inspect.getsourcelines(broken_helper)
    assert any(f"test_errors.py:{first + i}" in str(error) for i in range(len(lines)))


class Writes(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        text = json.dumps({"nodes": x.size(0)})  # here
        return self.propagate(edge_index, x=x) * len(text)


class Sized(MessagePassing):
    """What PyG's code makes of an argument that it cannot use."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return to_dense_batch(x, "batch")[0]  # here


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("cls", [Writes, Sized])
def test_the_line_that_leads_into_a_library_stands_first(cls):
    first, _, library, *_ = str(refused(cls())).split("\n")
    assert first.endswith(places_of(cls)[0])
    assert library.startswith("in ")
    assert "test_errors.py" not in library


class NotCallableForm(nn.Module):
    """Passes a pair to a conv that takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv((x, x), edge_index)


@pytest.mark.usefixtures("auto")
def test_a_call_that_the_conv_forbids_names_the_reason():
    with pytest.raises(ValueError, match="does not support bipartite"):
        NotCallableForm()(G.x, G.edge_index)
    with pytest.raises(Exception, match=r"(?i)bipartite|tuple"):
        torch.jit.script(NotCallableForm())(G.x, G.edge_index)


class ReturnsFunction(MessagePassing):
    def forward(self, x, edge_index):  # here
        return lambda: self.propagate(edge_index, x=x)


class MakesData(MessagePassing):
    def forward(self, x, edge_index):
        data = HeteroData(x=x, edge_index=edge_index)  # here
        return self.propagate(data.edge_index, x=data.x)


class TakesData(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = Constants()

    def forward(self, data):
        return self.conv(data.x, data.edge_index)  # here


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(
    ("cls", "cause", "remedy"),
    [
        (ReturnsFunction, "returns a function or module", "return tensors"),
        (MakesData, "a 'HeteroData' is made while the model runs", "named tuples"),
        (TakesData, "asked for 'x', which no tensor has", "tensor_inputs(model, data)"),
    ],
)
def test_objects_are_refused_where_they_stand(cls, cause, remedy):
    error = refused(cls())
    assert cause in error.cause
    assert remedy in error.remedy
    assert [Path(error.location.file).name + f":{error.location.line}"] == places_of(cls)


class Constants(MessagePassing):
    """A constant needs no annotation: its value is known."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, scale=2.0, dims=[0, 1])

    def message(self, x_j, scale, dims):
        return scale * x_j - x_j.sum(dims, keepdim=True)


@pytest.mark.usefixtures("auto")
def test_constants_need_no_annotation():
    for conv in (Constants(), Plain(Constants())):
        scripted = torch.jit.script(conv)
        for g in GRAPHS:
            torch.testing.assert_close(scripted(g.x, g.edge_index), conv(g.x, g.edge_index))


class Typed(MessagePassing):
    """What is refused without an annotation works with one."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        scale = float(x.size(0))
        return self.propagate(edge_index, x=x, scale=scale, dims=[x.dim() - 1], weight=None)

    def message(
        self, x_j: Tensor, scale: float, dims: List[int], weight: Union[None, Tensor]
    ) -> Tensor:
        out = scale * (x_j - x_j.mean(dims, keepdim=True))
        return out if weight is None else out * weight


@pytest.mark.usefixtures("auto")
def test_remedy_works():
    conv = Typed()
    torch.testing.assert_close(torch.jit.script(conv)(G.x, G.edge_index), conv(G.x, G.edge_index))

"""Scripting touches nothing but what it returns, and every class gets its own code."""

import copy
import io
import pickle
import sys
import threading
from typing import Any, Tuple

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, MessagePassing, SAGEConv

import gnnscript
from behaviour.models import Deep, Picklable, everything, same
from conformance.forms import Plain
from conformance.graphs import GRAPHS, IN, OUT

pytestmark = pytest.mark.usefixtures("auto")

G = GRAPHS[0]


# -- the eager model ------------------------------------------------------------------------------


def test_the_eager_model_is_the_same_objects():
    model = Deep()
    before = everything(model)
    expected = [model(g.x, g.edge_index) for g in GRAPHS]
    torch.jit.script(model)
    after = everything(model)
    assert [name for name, _ in before] == [name for name, _ in after]
    for (name, old), (_, new) in zip(before, after, strict=True):
        assert old is new, name
    for g, value in zip(GRAPHS, expected, strict=True):
        torch.testing.assert_close(model(g.x, g.edge_index), value, rtol=0, atol=0)


def test_the_eager_model_is_the_same_when_scripting_fails():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(IN, OUT)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index) + self.no_such_thing

    model = Broken()
    before = everything(model)
    with pytest.raises(Exception, match="no_such_thing"):
        torch.jit.script(model)
    for (name, old), (_, new) in zip(before, everything(model), strict=True):
        assert old is new, name
    same(torch.jit.script(Plain(model.conv)), model.conv, rtol=1e-6)


def test_hooks_of_the_eager_model_stay_and_fire():
    """A hook on messages would be lost in the script, so it is refused, and stays where it is."""
    fired = []
    model = Deep()
    handle = model.first.register_message_forward_hook(lambda *_: fired.append("message"))
    expected = model(G.x, G.edge_index)
    before = everything(model)
    with pytest.raises(gnnscript.UnsupportedError, match="hook"):
        torch.jit.script(model)
    fired.clear()
    torch.testing.assert_close(model(G.x, G.edge_index), expected)
    assert fired == ["message"] * 2
    for (name, old), (_, new) in zip(before, everything(model), strict=True):
        assert old is new, name
    handle.remove()
    same(torch.jit.script(model), model, rtol=1e-6)


class ForwardHooked(nn.Module):
    """TorchScript compiles the forward hooks of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(IN, OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


def double(self, inputs: Tuple[Tensor, Tensor], output: Tensor) -> Tensor:
    """A forward hook that TorchScript can compile."""
    return 2 * output


def test_forward_hooks_of_the_model():
    model = ForwardHooked()
    model.register_forward_hook(double)
    same(torch.jit.script(model), model, rtol=1e-6)
    assert list(model._forward_hooks.values()) == [double]


def test_classes_stay_the_same():
    conv = Picklable()
    conv(G.x, G.edge_index)
    attributes = {cls: dict(vars(cls)) for cls in (Picklable, GATConv, Deep, Plain)}
    torch.jit.script(Deep())
    for cls, before in attributes.items():
        ours = {k for k in vars(cls) if k != "__annotations__"}
        assert ours >= set(before) - {"__annotations__"}
        for name in ours & set(before):
            assert vars(cls)[name] is before[name], (cls, name)


# -- scripting more than once ---------------------------------------------------------------------


def test_twice():
    model = Deep()
    first, second = torch.jit.script(model), torch.jit.script(model)
    assert first is not second
    same(first, second)
    same(first, model, rtol=1e-6)


def test_a_part_and_then_the_whole():
    model = Deep()
    part = torch.jit.script(model.first)
    whole = torch.jit.script(model)
    same(part, model.first, rtol=1e-6)
    same(whole, model, rtol=1e-6)
    same(torch.jit.script(model.first), model.first, rtol=1e-6)


def test_two_configurations_of_a_class():
    makers = [
        lambda: GCNConv(IN, OUT),
        lambda: GCNConv(IN, OUT, normalize=False),
        lambda: GCNConv(IN, OUT, bias=False),
        lambda: GCNConv(IN, OUT, improved=True),
        lambda: GCNConv(IN, OUT, aggr="max"),
        lambda: GCNConv(IN, OUT, flow="target_to_source"),
        lambda: GCNConv(IN, OUT),
    ]
    convs = [make() for make in makers]
    scripted = [torch.jit.script(Plain(conv)) for conv in convs]
    for conv, script in zip(convs, scripted, strict=True):
        same(script, conv, rtol=1e-6)


def test_configuration_changed_after_the_first_scripting():
    conv = GCNConv(IN, OUT)
    model = Plain(conv)
    first = torch.jit.script(model)
    expected = model(G.x, G.edge_index)
    conv.normalize = conv.add_self_loops = False
    second = torch.jit.script(model)
    torch.testing.assert_close(first(G.x, G.edge_index), expected)
    same(second, model, rtol=1e-6)
    assert not torch.allclose(second(G.x, G.edge_index), expected)


def make_local(factor: float) -> type[MessagePassing]:
    """Classes of one name and one code object, that differ in what they close over."""

    class Local(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor) -> Tensor:
            return factor * x_j

    return Local


def make_other_local() -> type[MessagePassing]:
    """A class of the same name with another message."""

    class Local(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return x_i * x_j

    return Local


def test_local_classes_of_one_name():
    convs = [make_local(2.0)(), make_local(3.0)(), make_other_local()()]
    scripts = [torch.jit.script(Plain(conv)) for conv in convs]
    for conv, script in zip(convs, scripts, strict=True):
        same(script, conv, rtol=1e-6)
    out = [script(G.x, G.edge_index) for script in scripts]
    torch.testing.assert_close(1.5 * out[0], out[1])


def test_local_classes_of_one_name_in_one_model():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = make_local(2.0)()
            self.second = make_other_local()()
            self.third = make_local(-1.0)()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            x = self.first(x, edge_index) + self.third(x, edge_index)
            return self.second(x, edge_index)

    model = Both()
    same(torch.jit.script(model), model, rtol=1e-6)


def test_forgotten_classes_make_no_mistakes():
    """An address reused by a new class must not bring back the code of the old one."""
    for factor in range(1, 30):
        conv = make_local(float(factor))()
        script = torch.jit.script(conv)
        torch.testing.assert_close(script(G.x, G.edge_index), conv(G.x, G.edge_index))


# -- copies and pickles ---------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_copies_and_pickles(when):
    model = Deep()
    if when == "after":
        torch.jit.script(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model),
        copy.copy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ]
    for other in copies:
        same(other, model)
        assert type(other.first) is GATConv
        same(torch.jit.script(other), model, rtol=1e-6)


def test_a_copy_has_its_own_parameters():
    model = Deep()
    torch.jit.script(model)
    other = copy.deepcopy(model)
    scripted = torch.jit.script(other)
    with torch.no_grad():
        other.first.bias.add_(1)
    assert scripted.first.bias is other.first.bias
    assert model.first.bias is not other.first.bias
    same(scripted, other, rtol=1e-6)


# -- disk and threads -----------------------------------------------------------------------------

WRITES = """
import os, stat, sys
written = []

def audit(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        flags = args[2] or 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(args[0]) != os.devnull:
            written.append((event, str(args[0])))
    elif event in {"os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp"}:
        written.append((event, str(args[0])))

import torch
from torch import Tensor, nn
import gnnscript.auto
import torch_geometric
from torch_geometric.nn import GATConv, MessagePassing, SAGEConv

sys.addaudithook(audit)

class Own(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return x_i - x_j

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gat, self.sage, self.own = GATConv(4, 4), SAGEConv(4, 4), Own()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.sage(self.gat(x, edge_index), edge_index)
        return self.own(x, edge_index)

model = Model()
x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 2]])
expected = model(x, edge_index)
scripted = torch.jit.script(model)
torch.testing.assert_close(scripted(x, edge_index), expected)
assert gnnscript.source(model.own)
assert not written, written
gnnscript.uninstall()
print("ok")
"""


def test_nothing_is_written_to_disk(run_file, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o500)
    home = tmp_path / "home"
    home.mkdir()
    env = {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    try:
        assert run_file(WRITES, env={**env, "HOME": str(home)}).strip() == "ok"
        assert not list(scratch.iterdir())
        assert not list(home.iterdir())
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["program.py"]
    finally:
        scratch.chmod(0o700)


def test_first_use_from_many_threads():
    classes = [make_local(2.0), make_other_local()]
    convs = [GATConv(IN, OUT), SAGEConv(IN, OUT, aggr="max"), Picklable()]
    convs += [cls() for cls in classes for _ in range(2)]
    barrier = threading.Barrier(len(convs))
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        try:
            barrier.wait(timeout=60)
            scripted = torch.jit.script(Plain(convs[number]))
            results[number] = [scripted(g.x, g.edge_index) for g in GRAPHS]
        except BaseException as error:  # the thread would swallow it
            results[number] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(convs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(results) == len(convs)
    for number, conv in enumerate(convs):
        value = results[number]
        assert isinstance(value, list), repr(value)
        for g, out in zip(GRAPHS, value, strict=True):
            torch.testing.assert_close(out, conv(g.x, g.edge_index))


def test_source_from_many_threads():
    conv = GATConv(IN, OUT, heads=5)
    barrier = threading.Barrier(8)
    texts: list[str] = []

    def work() -> None:
        barrier.wait(timeout=60)
        texts.append(gnnscript.source(conv))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(texts) == 8
    assert len(set(texts)) == 1


def test_generated_modules_do_not_pile_up():
    """Scripting one class again makes no new module."""
    conv = Picklable()
    torch.jit.script(Plain(conv))
    before = set(sys.modules)
    for _ in range(3):
        torch.jit.script(Plain(conv))
        torch.jit.script(Plain(Picklable()))
    assert set(sys.modules) == before

"""The assertions themselves: each difference they promise to find is found and named."""

import sys
from typing import Dict, List, Optional, Tuple

import pytest
import torch
from torch import Tensor, nn

from gnnscript.testing import BareProcess, assert_scripts_like_eager, run_bare

INPUTS = [(torch.randn(5, 3),), (torch.randn(8, 3),)]


class Block(nn.Module):
    """A module of plain torch with parameters, buffers and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return nn.functional.dropout(self.norm(self.lin(x)), 0.5, self.training) * scale


class Differs(nn.Module):
    """Computes something else once scripted; `kind` says what differs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.lin = nn.Linear(3, 4)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        out = self.lin(x)
        if torch.jit.is_scripting():
            if self.kind == "output":
                out = out + 0.1
            elif self.kind == "gradient":
                out = out.detach() + 0.5 * (out - out.detach())
            elif self.kind == "input gradient":
                out = self.lin(x.detach())
            elif self.kind == "train":
                out = out * (2.0 if self.training else 1.0)
            elif self.kind == "size":
                out = out * (1.0 if x.size(0) == 5 else 2.0)
            elif self.kind == "buffer":
                self.steps.add_(1)
            elif self.kind == "shape":
                out = out.unsqueeze(0)
            elif self.kind == "dtype":
                out = out.double()
        return out


class Nested(nn.Module):
    """Returns every container TorchScript has."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(
        self, pair: Tuple[Tensor, Optional[Tensor]], more: Dict[str, List[Tensor]]
    ) -> Tuple[Tensor, Dict[str, List[Tensor]], Optional[Tensor], int]:
        first = more["a"][0]
        if torch.jit.is_scripting() and self.wrong:
            first = first + 1.0
        return pair[0] * 2, {"a": [first, pair[0]]}, pair[1], pair[0].size(0)


@pytest.fixture(scope="module")
def bare():
    with BareProcess() as process:
        yield process


def test_accepts_a_module_that_scripts(bare):
    model = Block()
    model.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    scripted = assert_scripts_like_eager(model, *INPUTS, reload=bare)
    assert isinstance(scripted, torch.jit.ScriptModule)
    assert not any(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_accepts_keyword_arguments(bare):
    assert_scripts_like_eager(Block(), *[{"x": x, "scale": 2.0} for (x,) in INPUTS], reload=bare)


def test_accepts_nested_values(bare):
    inputs = [((x, None if i else x), {"a": [x, 2 * x]}) for i, (x,) in enumerate(INPUTS)]
    assert_scripts_like_eager(Nested(), *inputs, reload=bare)
    with pytest.raises(AssertionError, match=r"output\[1\]\['a'\]\[0\]"):
        assert_scripts_like_eager(Nested(wrong=True), *inputs, reload=False)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("output", r"differs from eager in eval mode, input 0, round 0: output"),
        ("gradient", r"gradient\['lin\.weight'\]|gradient\['input\[0\]'\]"),
        ("input gradient", r"gradient\['input\[0\]'\]"),
        ("train", r"in train mode, input 0"),
        ("size", r"in eval mode, input 1"),
        ("buffer", r"buffer\['steps'\]"),
        ("shape", r"shape"),
        ("dtype", r"dtype"),
    ],
)
def test_finds(kind, message):
    with pytest.raises(AssertionError, match=message):
        assert_scripts_like_eager(Differs(kind), *INPUTS, reload=False)


@pytest.mark.parametrize("kind", ["gradient", "input gradient"])
def test_gradients_may_be_left_out(kind):
    assert_scripts_like_eager(Differs(kind), *INPUTS, gradients=False, reload=False)


def test_modes_are_chosen():
    assert_scripts_like_eager(Differs("train"), *INPUTS, modes=("eval",), reload=False)


class Replaces(nn.Module):
    """Prepares itself for scripting as `change` says."""

    def __init__(self, change) -> None:
        super().__init__()
        self.child = Block()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x)

    def __prepare_scriptable__(self):
        self.change(self)
        return self


def _hook(module, args, output):
    return None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model, "child", Block()), "replaced submodule 'child'"),
        (lambda model: setattr(model, "other", Block()), "added submodule 'other'"),
        (lambda model: setattr(model.child, "norm", None), "removed submodule 'child.norm'"),
        (
            lambda model: setattr(model.child, "__class__", type("Other", (Block,), {})),
            "changed the type of submodule 'child' of the eager module from Block to Other",
        ),
        (
            lambda model: model.child._forward_hooks.update({0: _hook}),
            "changed the hooks of submodule 'child'",
        ),
        (
            lambda model: setattr(model.child.lin, "weight", nn.Parameter(torch.ones(4, 3))),
            "replaced tensor 'child.lin.weight'",
        ),
    ],
)
def test_finds_a_changed_eager_module(change, message, monkeypatch):
    model = Replaces(change)
    stand_in = torch.jit.script(nn.Identity())

    def script(module):
        module.__prepare_scriptable__()
        return stand_in

    monkeypatch.setattr(torch.jit, "script", script)
    with pytest.raises(AssertionError, match=message):
        assert_scripts_like_eager(model, *INPUTS, reload=False)


def test_finds_copied_parameters(monkeypatch):
    stand_in = torch.jit.script(Block())
    monkeypatch.setattr(torch.jit, "script", lambda module: stand_in)
    with pytest.raises(AssertionError, match=r"copy of 'lin\.weight'"):
        assert_scripts_like_eager(Block(), *INPUTS, reload=False)


def test_finds_other_state_dict_keys(monkeypatch):
    stand_in = torch.jit.script(nn.Linear(3, 4))
    monkeypatch.setattr(torch.jit, "script", lambda module: stand_in)
    with pytest.raises(AssertionError, match=r"missing \['lin\.bias'.*unexpected \['bias'"):
        assert_scripts_like_eager(Block(), *INPUTS, reload=False)


class Scratch(nn.Module):
    """Has a buffer that is not part of its state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scratch", torch.ones(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scratch


def test_accepts_buffers_that_are_not_persistent():
    assert_scripts_like_eager(Scratch(), *INPUTS, reload=False)


class Stateful(nn.Module):
    """Keeps a count that scripting by mistake advances."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 1

    def forward(self, x: Tensor) -> Tensor:
        return x * self.count


def test_finds_changed_eager_outputs(monkeypatch):
    stand_in = torch.jit.script(Stateful())

    def script(module):
        module.count += 1
        return stand_in

    monkeypatch.setattr(torch.jit, "script", script)
    with pytest.raises(AssertionError, match="scripting changed the eager module"):
        assert_scripts_like_eager(Stateful(), *INPUTS, reload=False)


def test_rejects_one_input():
    with pytest.raises(ValueError, match="two or more inputs, got 1"):
        assert_scripts_like_eager(Block(), INPUTS[0])


def test_rejects_an_unknown_mode():
    with pytest.raises(ValueError, match="'test'"):
        assert_scripts_like_eager(Block(), *INPUTS, modes=("test",))


def test_rejects_a_bare_tensor():
    with pytest.raises(TypeError, match=r"write \(x,\)"):
        assert_scripts_like_eager(Block(), INPUTS[0][0], INPUTS[1][0], reload=False)


class Asks(nn.Module):
    """Raises where it is told to."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) == 8:
            raise ValueError("no eight nodes")
        return x


def test_bare_process_reports_the_traceback_and_goes_on(bare):
    with pytest.raises(AssertionError, match="no eight nodes"):
        bare.run(torch.jit.script(Asks()), list(INPUTS))
    (output,) = bare.run(torch.jit.script(Asks()), [INPUTS[0]])
    torch.testing.assert_close(output, INPUTS[0][0], rtol=0, atol=0)


def test_bare_process_reports_a_file_that_does_not_load(bare, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"no model")
    with pytest.raises(AssertionError, match="imports only torch"):
        bare.run(path, [])


def test_bare_process_imports_only_torch(bare, monkeypatch, tmp_path):
    assert "gnnscript" in sys.modules
    (tmp_path / "sitecustomize.py").write_text("import gnnscript\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with BareProcess() as process:
        process.run(torch.jit.script(Block()), [INPUTS[0]])


def test_bare_process_gives_up(monkeypatch):
    with (
        BareProcess(timeout=0.01) as process,
        pytest.raises(AssertionError, match=r"did not answer within 0\.01 s"),
    ):
        process.run(torch.jit.script(Block()), [INPUTS[0]])


def test_run_bare_serves_many_models(tmp_path):
    path = tmp_path / "block.pt"
    block = Block().eval()
    torch.jit.save(torch.jit.script(block), path)
    results = run_bare([(path, [INPUTS[0]]), (torch.jit.script(Asks()), list(INPUTS)[:1])])
    torch.testing.assert_close(results[0][0], block(*INPUTS[0]))
    torch.testing.assert_close(results[1][0], INPUTS[0][0])
    with pytest.raises(AssertionError, match="job 1: "):
        run_bare([(path, [INPUTS[0]]), (torch.jit.script(Asks()), list(INPUTS))])


def test_does_not_touch_the_random_state():
    block = Block()
    before = torch.random.get_rng_state()
    assert_scripts_like_eager(block, *INPUTS, reload=False)
    assert torch.equal(before, torch.random.get_rng_state())

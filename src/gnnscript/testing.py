"""Assertions that a scripted model is the eager model, for this project's tests and for yours.

Only torch is imported here: a model is compared with itself, whatever library it is made of.

Example::

    from gnnscript.testing import assert_scripts_like_eager

    assert_scripts_like_eager(model, (x, edge_index), (other_x, other_edge_index))
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gnnscript._bare import SEED, BareProcess, Call, arguments, run_bare

__all__ = ["BareProcess", "Call", "assert_scripts_like_eager", "run_bare"]

# The profiling executor records types in the first run of a graph and optimises from the second
# run on, so every input is run once before and once after.
_ROUNDS = 2


def assert_scripts_like_eager(
    module: nn.Module,
    *inputs: Call,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    gradients: bool = True,
    modes: Sequence[str] = ("eval", "train"),
    reload: bool | BareProcess = True,
) -> torch.jit.ScriptModule:
    """Scripts a module and asserts that nothing but speed tells it from the eager one.

    Compared are, for every input, in each mode, before and after TorchScript has optimised: the
    outputs, the gradients of all parameters and of all floating inputs, and the buffers. The
    scripted module must share its parameters and buffers with the eager one under the same
    ``state_dict`` keys. The eager module must consist of the same objects as before and compute
    the same as before. Saved, the scripted module must give the same outputs in a fresh process
    that imports only torch. Random numbers are seeded alike before each call; a dropout of
    probability zero draws some in TorchScript and none in eager mode, so a model with another
    dropout after it can be compared in ``"eval"`` mode only.

    The training flags and buffers of ``module`` are put back at the end.

    Args:
        module: The eager module; it must be possible to deep-copy it. Lazy parameters must be
            initialised.
        inputs: Two or more calls, of different graph sizes, each a tuple of positional or a dict
            of keyword arguments. Tensors may be nested in tuples, lists and dicts.
        rtol: Relative tolerance; the default allows for float32 rounding.
        atol: Absolute tolerance; the default allows for float32 rounding.
        gradients: Whether to compare gradients.
        modes: ``"eval"``, ``"train"`` or both, in the order to run them.
        reload: Whether to save and run in a fresh process; pass a :class:`BareProcess` to use
            one that is already running.

    Returns:
        The scripted module.

    Raises:
        AssertionError: They differ; the message names mode, input and value.
        ValueError: Fewer than two inputs, or an unknown mode.
    """
    if len(inputs) < 2:
        raise ValueError(
            f"expected two or more inputs, got {len(inputs)}: with a single one, code that "
            "hard-codes the size of the graph would pass"
        )
    if not modes or not set(modes) <= {"eval", "train"}:
        raise ValueError(f"expected modes out of 'eval' and 'train', got {modes!r}")

    structure = _structure(module)
    buffers = _buffers(module)
    training = {submodule: submodule.training for submodule in module.modules()}
    reference = copy.deepcopy(module)
    scripted: torch.jit.ScriptModule = torch.jit.script(module)
    _assert_same_structure(structure, _structure(module))
    _assert_shared_state(module, scripted)

    expected: dict[str, list[Any]] = {}
    saved: dict[str, bytes] = {}
    try:
        for mode in modes:
            scripted.train(mode == "train")
            file = io.BytesIO()
            torch.jit.save(scripted, file)
            saved[mode] = file.getvalue()
        for mode in modes:
            for one in (module, reference, scripted):
                one.train(mode == "train")
                _restore(one, buffers)
            outputs = [
                _compare_call(
                    module, reference, scripted, call, gradients, rtol, atol,
                    f"in {mode} mode, input {number}, round {round_}",
                )
                for round_ in range(_ROUNDS)
                for number, call in enumerate(inputs)
            ]  # fmt: skip
            expected[mode] = outputs[: len(inputs)]
    finally:
        _restore(module, buffers)
        for submodule, flag in training.items():
            submodule.training = flag

    if reload is not False:
        with contextlib.ExitStack() as stack:
            bare = stack.enter_context(BareProcess()) if reload is True else reload
            for mode in modes:
                outputs = bare.run(saved[mode], inputs)
                for number, (want, got) in enumerate(zip(expected[mode], outputs, strict=True)):
                    _assert_close(
                        want, got, rtol, atol,
                        f"reloaded differs from eager in {mode} mode, input {number}: output",
                    )  # fmt: skip
    return scripted


def _compare_call(
    module: nn.Module,
    reference: nn.Module,
    scripted: nn.Module,
    call: Call,
    gradients: bool,
    rtol: float,
    atol: float,
    where: str,
) -> Any:
    """Compares the three modules on one call and returns the eager output."""
    buffers = _buffers(module)
    eager = _evaluate(module, call, gradients)
    eager_buffers = _buffers(module)
    before = _evaluate(reference, call, gradients)
    # A buffer that forward assigns anew, instead of changing it, is each module's own from then on.
    for one in (module, scripted):
        _restore(one, buffers)
    got = _evaluate(scripted, call, gradients)
    scripted_buffers = _buffers(scripted)
    _restore(module, eager_buffers)
    for name, old, new, scripted_value in zip(
        ("output", "gradient"), before, eager, got, strict=True
    ):
        _assert_close(old, new, rtol, atol, f"scripting changed the eager module {where}: {name}")
        _assert_close(
            new, scripted_value, rtol, atol, f"scripted differs from eager {where}: {name}"
        )
    _assert_close(
        eager_buffers,
        {name: scripted_buffers[name] for name in eager_buffers},
        rtol, atol, f"scripted differs from eager {where}: buffer",
    )  # fmt: skip
    return eager[0]


def _evaluate(module: nn.Module, call: Call, gradients: bool) -> tuple[Any, dict[str, Tensor]]:
    """Returns the output and, by name, the gradients of parameters and floating inputs."""
    leaves: dict[str, Tensor] = {}

    def leaf(value: Tensor, path: str) -> Tensor:
        if not gradients or not value.is_floating_point():
            return value
        return leaves.setdefault(path, value.detach().clone().requires_grad_())

    args, kwargs = arguments(call)
    args = tuple(_map(arg, leaf, f"input[{i}]") for i, arg in enumerate(args))
    kwargs = {name: _map(value, leaf, f"input {name!r}") for name, value in kwargs.items()}
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(gradients):
        torch.manual_seed(SEED)
        output = module(*args, **kwargs)

    # A plain sum would hide errors (a softmax sums to one whatever its arguments are).
    generator = torch.Generator().manual_seed(SEED)
    terms: list[Tensor] = []

    def contract(value: Tensor, _path: str) -> Tensor:
        if value.requires_grad:
            weights = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            terms.append((value * weights.to(value)).sum().double())
        return value.detach()

    output = _map(output, contract, "output")
    parameters = module.named_parameters(remove_duplicate=False)
    leaves.update((name, value) for name, value in parameters if value.requires_grad)
    if not terms or not leaves:
        return output, {}
    # Zeros where there is no path to the output: TorchScript's autodiff gives zeros there too.
    found = torch.autograd.grad(
        torch.stack(terms).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return output, dict(zip(leaves, found, strict=True))


def _map(value: Any, function: Callable[[Tensor, str], Tensor], path: str) -> Any:
    """Applies a function to each tensor of nested tuples, lists and dicts, with its path."""
    if isinstance(value, Tensor):
        return function(value, path)
    if isinstance(value, (tuple, list)):
        items = [_map(item, function, f"{path}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {k: _map(item, function, f"{path}[{k!r}]") for k, item in value.items()}
    return value


def _assert_close(expected: Any, actual: Any, rtol: float, atol: float, where: str) -> None:
    if isinstance(expected, Tensor) and isinstance(actual, Tensor):
        try:
            torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from None
    elif isinstance(expected, (tuple, list)) and isinstance(actual, (tuple, list)):
        same = isinstance(expected, tuple) == isinstance(actual, tuple)
        if not same or len(expected) != len(actual):
            raise AssertionError(
                f"{where}: expected a {type(expected).__name__} of {len(expected)}, got a "
                f"{type(actual).__name__} of {len(actual)}"
            )
        for i, (want, got) in enumerate(zip(expected, actual, strict=True)):
            _assert_close(want, got, rtol, atol, f"{where}[{i}]")
    elif isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if set(expected) != set(actual):
            raise AssertionError(f"{where}: expected the keys {list(expected)}, got {list(actual)}")
        for key, want in expected.items():
            _assert_close(want, actual[key], rtol, atol, f"{where}[{key!r}]")
    elif type(expected) is not type(actual) or expected != actual:
        raise AssertionError(f"{where}: expected {expected!r}, got {actual!r}")


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def _restore(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in module.named_buffers():
            if name in buffers:  # TorchScript makes attributes buffers that are tensors
                value.copy_(buffers[name])


def _structure(module: nn.Module) -> dict[str, tuple[object, type, object]]:
    """Returns, by path, the objects a module consists of, their types and their hooks."""
    found: dict[str, tuple[object, type, object]] = {}
    for path, submodule in module.named_modules(remove_duplicate=False):
        hooks = {
            name: dict(value)
            for name, value in vars(submodule).items()
            if name.endswith("_hooks") and isinstance(value, dict)
        }
        found[f"submodule {path!r}"] = (submodule, type(submodule), hooks)
    for path, tensor in [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]:
        found[f"tensor {path!r}"] = (tensor, type(tensor), None)
    return found


def _assert_same_structure(
    before: Mapping[str, tuple[object, type, object]],
    after: Mapping[str, tuple[object, type, object]],
) -> None:
    for name in [*before, *after]:
        if name not in after or name not in before:
            change = "removed" if name in before else "added"
            raise AssertionError(f"torch.jit.script {change} {name} of the eager module")
        old, kind, hooks = before[name]
        new, new_kind, new_hooks = after[name]
        if old is not new:
            raise AssertionError(f"torch.jit.script replaced {name} of the eager module")
        if kind is not new_kind:
            raise AssertionError(
                f"torch.jit.script changed the type of {name} of the eager module from "
                f"{kind.__name__} to {new_kind.__name__}"
            )
        if hooks != new_hooks:
            raise AssertionError(f"torch.jit.script changed the hooks of {name}")


def _assert_shared_state(module: nn.Module, scripted: torch.jit.ScriptModule) -> None:
    eager, state = module.state_dict(), scripted.state_dict()
    missing = set(eager) - set(state)
    # TorchScript knows no buffers that are not persistent: it saves them all.
    unexpected = set(state) - set(eager) - {name for name, _ in module.named_buffers()}
    if missing or unexpected:
        raise AssertionError(
            "the state_dict of the scripted module has other keys than the eager one: missing "
            f"{sorted(missing)}, unexpected {sorted(unexpected)}"
        )
    for name, value in eager.items():
        if isinstance(value, Tensor) and value.data_ptr() != state[name].data_ptr():
            raise AssertionError(
                f"the scripted module has a copy of {name!r}; expected it to share the tensor "
                "with the eager module"
            )

"""Gradients of edge programs, first and second, equal those of ATen calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import edge_cases
from edge_cases import NUM_NODES, PROGRAMS, graph, operands
from gnnscript.ops import evaluate

edge_cases.require_library()
from gnnscript.ops import native  # noqa: E402

SHAPES = (((),), ((2, 1), (2, 3), (3,)))


def gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """The gradients of an uneven sum, and those of the sum of their squares."""
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    first = torch.autograd.grad(
        out, leaves, weight, create_graph=True, allow_unused=True, materialize_grads=True
    )
    energy = sum((grad.square().sum() for grad in first), out.new_zeros([]))
    second = [torch.zeros_like(leaf) for leaf in leaves]
    if energy.requires_grad:
        second = torch.autograd.grad(energy, leaves, allow_unused=True, materialize_grads=True)
    return [grad.detach() for grad in (*first, *second)]


def assert_same_gradients(actual: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    if not expected.requires_grad:
        return
    for a, b in zip(gradients(actual, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_gradients_equal_aten(program: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    given = [operand.requires_grad_() for operand in operands(program, shapes)]
    for reduce in ("sum", "mean", "min", "max", "mul"):
        out = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
        expected = evaluate.edge_reduce(program, given, index, other, NUM_NODES, reduce)
        if reduce == "mul" and "relu(j0" in program:
            continue  # ATen has no second derivative of a product with zeros
        assert_same_gradients(out, expected, given)
    for sum_dims in range(expected.dim()):
        out = native.edge_map(program, given, index, other, sum_dims)
        assert_same_gradients(out, evaluate.edge_map(program, given, index, other, sum_dims), given)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_gradcheck(reduce: str) -> None:
    index, other = graph(torch.int32)
    ptr, perm = native.csr(index, NUM_NODES)
    given = [x.requires_grad_() for x in operands("i0 + j1 + e2 + s3", ((2, 1), (2, 2), (), (2,)))]

    def run(*tensors: Tensor) -> Tensor:
        program = "tanh(i0 + j1) * e2 * exp(s3)"
        return native.edge_reduce(program, list(tensors), index, other, ptr, perm, reduce)

    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


PROFILED = [torch.profiler.ProfilerActivity.CPU]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_gradient_that_edges_store_is_summed_for_nodes(reduce: str) -> None:
    """Of nodes and what is shared, where it is the same or its negative; it is computed once."""
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    program = "tanh(j0 + e1 - i2 + s3)"
    given = [x.requires_grad_() for x in operands(program, ((3,), (2, 3), (1, 3), (3,)))]
    out = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
    with torch.profiler.profile(activities=PROFILED) as profile:
        torch.autograd.grad(out, given, torch.ones_like(out), retain_graph=True)
    ran = [event.name for event in profile.events() or ()]
    ties = int(reduce == "max")
    assert ran.count("gnnscript::edge_map") == 1
    assert ran.count("gnnscript::edge_reduce") == ties
    expected = evaluate.edge_reduce(program, given, index, other, NUM_NODES, reduce)
    assert_same_gradients(out, expected, given)

    given[1] = given[1].detach()  # edges that need no gradient store none
    out = native.edge_reduce(program, given, index, other, ptr, perm, reduce)
    with torch.profiler.profile(activities=PROFILED) as profile:
        out.sum().backward()
    assert "gnnscript::edge_map" not in [event.name for event in profile.events() or ()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduce", ["min", "max"])
def test_ties_share_the_gradient(dtype: torch.dtype, reduce: str) -> None:
    """Also where values tie only once they are rounded to a half."""
    index = torch.tensor([0, 0, 0, 1, 1])
    e = torch.tensor([1.0, 1.0, 0.5, 2.0, 3.0]).to(dtype)
    e = (e if reduce == "max" else -e).requires_grad_()
    s = torch.tensor(1 / 3).to(dtype)
    ptr, perm = native.csr(index, 2)
    out = native.edge_reduce("e0 * s1", [e, s], index, index, ptr, perm, reduce)
    out.sum().backward()
    assert torch.equal(e.grad, s * torch.tensor([0.5, 0.5, 0, 0, 1]).to(dtype))


def test_forces_from_energies_train() -> None:
    """The gradient of a force, as interatomic potentials need it."""
    torch.manual_seed(0)
    index, other = torch.randint(6, (30,)), torch.randint(6, (30,))
    ptr, perm = native.csr(index, 6)
    program = "s2 * exp(-square(i0 - j1))"
    results = []
    for run in (
        lambda given: native.edge_reduce(program, given, index, other, ptr, perm, "sum"),
        lambda given: evaluate.edge_reduce(program, given, index, other, 6, "sum"),
    ):
        torch.manual_seed(1)
        position = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        scale = torch.randn(3, dtype=torch.float64, requires_grad=True)
        energy = run([position, position, scale]).sum()
        (force,) = torch.autograd.grad(-energy, position, create_graph=True)
        force.square().sum().backward()
        results.append((force.detach(), position.grad, scale.grad))
    torch.testing.assert_close(results[0], results[1])


def test_second_derivative_of_a_deep_program_stays_short() -> None:
    """Text that repeats what it uses twice would grow exponentially."""
    program = "silu(" * 12 + "i0 * j1" + ")" * 12
    index, other = graph()
    ptr, perm = native.csr(index, NUM_NODES)
    given = [operand.requires_grad_() for operand in operands(program, ((3,),))]
    out = native.edge_reduce(program, given, index, other, ptr, perm, "sum")
    expected = evaluate.edge_reduce(program, given, index, other, NUM_NODES)
    assert_same_gradients(out, expected, given)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_derivatives_of_elu_at_zero_are_those_of_torch(alpha: float) -> None:
    """As nodes have it that are compared with themselves."""
    values = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    index = torch.arange(3)
    found = []
    for compute in (
        lambda x: native.edge_map(f"elu(j0, {alpha})", [x], index, index),
        lambda x: torch.nn.functional.elu(x, alpha),
    ):
        x = values.clone().requires_grad_()
        (first,) = torch.autograd.grad(compute(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * (values + 3)).sum(), x)
        found.append((first.detach(), second))
    torch.testing.assert_close(found[0], found[1])

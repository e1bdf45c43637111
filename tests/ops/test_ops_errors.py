"""Bad arguments raise errors that say what was expected and what was found, scripted or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gnnscript.ops import portable
from ops_cases import assert_identical

Ops = dict[str, Callable[..., Any]]
SRC = torch.ones(4, 2)
INDEX = torch.tensor([0, 1, 1, 0])
PTR = torch.tensor([0, 2, 4])

# op, arguments, error of the eager op, pattern
CASES = [
    ("scatter", (SRC, INDEX.view(1, -1)), ValueError, "one-dimensional index, got 2 dimensions"),
    ("scatter", (SRC, INDEX[0]), ValueError, "one-dimensional index, got 0 dimensions"),
    ("scatter", (SRC, INDEX, 2), ValueError, r"dim to lie within \[-2, 1\], got 2"),
    ("scatter", (SRC, INDEX, -3), ValueError, r"dim to lie within \[-2, 1\], got -3"),
    ("scatter", (SRC[0, 0], INDEX, 0), ValueError, "expected dim to lie within"),
    ("scatter", (SRC, INDEX, 0, 2, "median"), ValueError, "reduce to be one of .* got 'median'"),
    ("scatter", (SRC, INDEX, 0, 1), RuntimeError, "out of bounds"),
    ("scatter", (SRC, -INDEX, 0, 2), RuntimeError, "out of bounds"),
    ("scatter", (SRC, INDEX.float(), 0, 2), RuntimeError, "index"),
    ("scatter", (SRC, INDEX[:3], 0, 2), RuntimeError, "size"),
    ("segment", (SRC, PTR[0]), ValueError, "expected ptr of shape"),
    ("segment", (SRC, PTR[:0]), ValueError, r"expected ptr of shape .* got shape \[0\]"),
    (
        "segment",
        (SRC, PTR.view(1, 1, 3)),
        ValueError,
        r"at most 1 leading ones, got shape \[1, 1, 3\]",
    ),
    ("segment", (SRC, PTR.expand(2, 3)), ValueError, r"leading ones, got shape \[2, 3\]"),
    ("segment", (SRC, PTR + 1), ValueError, r"ptr never to decrease and to lie within \[0, 4\]"),
    ("segment", (SRC, PTR - 1), ValueError, r"ptr never to decrease and to lie within \[0, 4\]"),
    ("segment", (SRC, torch.tensor([0, 3, 1, 4])), ValueError, "ptr never to decrease"),
    ("segment", (SRC, torch.tensor([0, 9, 4])), ValueError, "ptr never to decrease"),
    ("segment", (SRC, PTR, "mul"), ValueError, "reduce to be one of .* got 'mul'"),
    ("softmax", (SRC,), NotImplementedError, "index or ptr"),
    ("softmax", (SRC, INDEX, None, None, 2), ValueError, r"dim to lie within \[-2, 1\], got 2"),
    ("softmax", (SRC, None, PTR, None, -3), ValueError, r"dim to lie within \[-2, 1\], got -3"),
    ("softmax", (SRC, INDEX.view(1, -1)), ValueError, "one-dimensional index, got 2 dimensions"),
    ("softmax", (SRC, INDEX, None, 1), RuntimeError, "out of bounds"),
    ("softmax", (SRC, None, PTR + 1), ValueError, "ptr never to decrease"),
    ("csr", (INDEX.view(2, 2), 2), ValueError, "one-dimensional index, got 2 dimensions"),
    ("csr", (INDEX, -1), ValueError, "number of nodes, got size -1"),
    ("csr", (INDEX, 1), RuntimeError, "out of bounds"),
    ("csr", (-INDEX, 2), RuntimeError, "out of bounds"),
    ("csr", (INDEX.float(), 2), RuntimeError, "index"),
    ("gather", (SRC, INDEX + 4, 0), IndexError, "out of range"),
    ("gather", (SRC, INDEX - 1, 0), IndexError, "out of range"),
    ("gather", (SRC, INDEX, 2), IndexError, "Dimension out of range"),
    ("check_edge_index", (torch.ones(2, 3),), ValueError, r"integer .* \[2, E\], got a floating"),
    ("check_edge_index", (torch.ones(2, 3).bool(),), ValueError, "got a boolean tensor"),
    (
        "check_edge_index",
        (torch.eye(3).to_sparse_coo(),),
        ValueError,
        "layout torch.sparse_coo:.*flip",
    ),
    ("check_edge_index", (INDEX,), ValueError, "two-dimensional, .* got 1 dimensions"),
    ("check_edge_index", (INDEX.view(4, 1),), ValueError, r"size 2 .* got shape \[4, 1\]"),
]

OUT_OF_RANGE = (
    r"index\[\d\] is -?\d, expected a value in \[0, \d\) \(the (number of nodes|rows of src)\)"
)
# Where native ops say it themselves, in place of ATen.
NATIVE = {
    "out of bounds": (IndexError, OUT_OF_RANGE),
    "out of range": (IndexError, OUT_OF_RANGE),
    "index": (ValueError, "index of dtype int64 or int32, got Float"),
    "size": (ValueError, "index of size 4, that of src at 0, got 3"),
}


@pytest.mark.parametrize(
    ("op", "arguments", "error", "pattern"),
    CASES,
    ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)],
)
def test_bad_arguments(
    op: str,
    arguments: tuple[Any, ...],
    error: type[Exception],
    pattern: str,
    each_form: Ops,
    implementation: Any,
) -> None:
    if implementation is not portable:
        error, pattern = NATIVE.get(pattern, (error, pattern))
    # TorchScript turns every Python error it raises into torch.jit.Error.
    with pytest.raises((error, torch.jit.Error, RuntimeError), match=pattern) as raised:
        each_form[op](*arguments)
    if not isinstance(each_form[op], torch.jit.ScriptFunction):
        assert isinstance(raised.value, error)


def test_a_ptr_that_leaves_edges_out_is_obeyed(each_form: Ops) -> None:
    out = each_form["segment"](torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1, 2, 3]))
    assert_identical(out, torch.tensor([2.0, 4.0]))


def test_ops_leave_their_arguments_as_they_were(each_form: Ops) -> None:
    src, index, ptr = SRC.clone(), INDEX.clone(), PTR.clone()
    for reduce in ("sum", "mean", "mul", "min", "max", "any"):
        each_form["scatter"](src, index, 0, 2, reduce)
    each_form["segment"](src, ptr, "max")
    each_form["softmax"](src, index)
    each_form["csr"](index, 2)
    assert_identical(src, SRC)
    assert_identical(index, INDEX)
    assert_identical(ptr, PTR)

"""Functions of Python that TorchScript lacks, written with those that it has.

They are specialised like functions of the user's, so each call keeps what eager mode computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, List, Tuple  # noqa: UP035

import torch
from torch import Tensor

from gnnscript.specialize.sparse_matrix import make

__all__ = ["SUBSTITUTES"]


def log2(x: float) -> float:
    """Exact for powers of two, as Python's is: only the fraction's logarithm is rounded."""
    fraction, exponent = math.frexp(float(x))
    return exponent + math.log(fraction) / math.log(2.0)


def exp2(x: float) -> float:
    return math.pow(2.0, x)


def cbrt(x: float) -> float:
    return math.copysign(math.pow(math.fabs(x), 1.0 / 3.0), x)


def hypot(x: float, y: float) -> float:
    return math.sqrt(x * x + y * y)


def isqrt(n: int) -> int:
    assert n >= 0, "isqrt() argument must be nonnegative"
    root = int(math.sqrt(n))
    while root * root > n:
        root -= 1
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


def lcm(a: int, b: int) -> int:
    common = math.gcd(a, b)
    if common == 0:
        return 0
    return abs(a // common * b)


def comb(n: int, k: int) -> int:
    result = 1
    for i in range(k):
        result = result * (n - i) // (i + 1)
    return result


def perm(n: int, k: int) -> int:
    result = 1
    for i in range(k):
        result = result * (n - i)
    return result


def trunc(x: float) -> int:
    return int(x)


def isclose(a: float, b: float, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> bool:
    return a == b or abs(a - b) <= max(rel_tol * max(abs(a), abs(b)), abs_tol)


def int_pow(base: int, exponent: int) -> int:
    """``base ** exponent``, which is no float as in TorchScript."""
    assert exponent >= 0, "a negative power of an integer: make the base a float"
    result, square = 1, base
    while exponent > 0:
        if exponent % 2 == 1:
            result = result * square
        square = square * square
        exponent = exponent // 2
    return result


def round_to(x: float, digits: int) -> float:
    """``round(x, digits)``: the nearer of two neighbours, of equally near ones the even."""
    scale = math.pow(10.0, float(digits))
    below = math.floor(x * scale)
    low, high = below / scale, (below + 1) / scale
    if x - low == high - x:
        return low if below % 2 == 0 else high
    return low if x - low < high - x else high


def leaf_copy(x: Tensor) -> Tensor:
    """``copy.deepcopy(x)``: no gradient of what is computed with it reaches ``x``."""
    return x.detach().clone().requires_grad_(x.requires_grad)


def total(iterable: Any, start: Any = 0) -> Any:
    """``sum``, which TorchScript has for lists of numbers only."""
    result = start
    for value in iterable:
        result = result + value
    return result


def int_prod(values: List[int]) -> int:  # noqa: UP006
    product = 1
    for value in values:
        product = product * value
    return product


def prod(iterable: Any, *, start: Any = 1) -> Any:
    result = start
    for value in iterable:
        result = result * value
    return result


def fsum(seq: Any) -> float:
    """Without rounding in between: what each addition loses is kept (Neumaier)."""
    result, lost = 0.0, 0.0
    for value in seq:
        term = float(value)
        new = result + term
        if abs(result) >= abs(term):
            lost += (result - new) + term
        else:
            lost += (term - new) + result
        result = new
    return result + lost


def dist(p: Any, q: Any) -> float:
    result = 0.0
    for a, b in zip(p, q, strict=True):
        result += (a - b) * (a - b)
    return math.sqrt(result)


def sorted_order(keys: Any, dtype: torch.dtype, reverse: bool) -> List[int]:  # noqa: UP006
    """The positions of keys in ascending or descending order, equal ones as they stand."""
    found = torch.tensor(keys, dtype=dtype)
    if not reverse:
        return int_list(torch.argsort(found, dim=0, stable=True))
    return int_list(torch.argsort(found, dim=0, descending=True, stable=True))


def key_dtype(*, whole: bool) -> torch.dtype:
    """The type in which keys are compared: exact for what Python's numbers hold."""
    return torch.int64 if whole else torch.float64


def ranks(keys: List[str]) -> List[int]:  # noqa: UP006
    """For each string the place that it has among them in ascending order."""
    ordered = sorted(keys)
    return [ordered.index(key) for key in keys]


def least(key: Any, sequence: Any) -> Any:
    """``min(sequence, key=key)`` of a list whose length only the run knows."""
    assert len(sequence) > 0, "min() arg is an empty sequence"
    found = sequence[0]
    smallest = key(found)
    for value in sequence[1:]:
        by = key(value)
        if by < smallest:
            found = value
            smallest = by
    return found


def greatest(key: Any, sequence: Any) -> Any:
    """``max(sequence, key=key)`` of a list whose length only the run knows."""
    assert len(sequence) > 0, "max() arg is an empty sequence"
    found = sequence[0]
    largest = key(found)
    for value in sequence[1:]:
        by = key(value)
        if by > largest:
            found = value
            largest = by
    return found


def with_slice(values: Any, start: Any, stop: Any, given: Any) -> Any:
    """``values`` after ``values[start:stop] = given``."""
    count = len(values)
    first = 0
    if start is not None:
        first = min(max(start + count if start < 0 else start, 0), count)
    behind = count
    if stop is not None:
        behind = min(max(stop + count if stop < 0 else stop, first), count)
    return values[:first] + list(given) + values[max(first, behind) :]


def counted(values: Any) -> Any:
    """``collections.Counter(values)`` of a list of run time."""
    found = {}  # type: ignore[var-annotated]
    for value in values:
        found[value] = found[value] + 1 if value in found else 1
    return found


def lexsort(keys: List[Tensor]) -> Tensor:  # noqa: UP006
    """``numpy.lexsort(keys)``: by the last of them, equal ones by the one before, and so on."""
    order = torch.argsort(keys[0], stable=True)
    for key in keys[1:]:
        order = order[torch.argsort(key[order], stable=True)]
    return order


def seconds() -> float:
    """``time.perf_counter()``."""
    return float(torch.ops.prim.TimePoint()) * 1e-9


def reduced(function: Any, sequence: Any) -> Any:
    """``functools.reduce`` of a list whose length only the run knows."""
    assert len(sequence) > 0, "reduce() of empty iterable with no initial value"
    result = sequence[0]
    for value in sequence[1:]:
        result = function(result, value)
    return result


def reduced_from(function: Any, sequence: Any, initial: Any) -> Any:
    """The same, from a first value on."""
    result = initial
    for value in sequence:
        result = function(result, value)
    return result


def int_list(x: Tensor) -> List[int]:  # noqa: UP006
    """``x.tolist()``; a list must have one type, and sizes are what lists are made for."""
    assert not x.is_floating_point(), "tolist() of floats: index the tensor, or use float(x[i])"
    assert x.dim() == 1, "tolist() of a tensor that is no vector: take its rows one by one"
    values: List[int] = []  # noqa: UP006
    for i in range(x.size(0)):
        values.append(int(x[i]))  # noqa: PERF401
    return values


def int_rows(x: Tensor) -> List[List[int]]:  # noqa: UP006
    """The same of a matrix, of which each row is unpacked."""
    assert not x.is_floating_point(), "tolist() of floats: index the tensor, or use float(x[i])"
    assert x.dim() == 2, "a row of tolist() is unpacked, and there are no rows"
    rows: List[List[int]] = []  # noqa: UP006
    for i in range(x.size(0)):
        rows.append(int_list(x[i]))  # noqa: PERF401
    return rows


def int_hash(n: int) -> int:
    """``hash(n)``: the remainder modulo ``2**61 - 1``, with the sign of ``n``."""
    modulus = 2305843009213693951
    if n >= 0:
        return n % modulus
    rest = ((-(n + 1)) % modulus + 1) % modulus  # -n may be no integer of 64 bits
    return -2 if rest == 1 else -rest


def _times(high: int, low: int, by_high: int, by_low: int) -> Tuple[int, int]:  # noqa: UP006
    """The product of two numbers of 64 bits, in halves; nothing in between needs a 64th bit."""
    mask = 4294967295
    first, second = (low & 65535) * by_low, (low >> 16) * by_low
    total = first + ((second & 65535) << 16)
    carry = (total >> 32) + (second >> 16)
    crossed = (high & 65535) * by_low + ((((high >> 16) * by_low) & 65535) << 16)
    other = (by_high & 65535) * low + ((((by_high >> 16) * low) & 65535) << 16)
    return (carry + crossed + other) & mask, total & mask


def tuple_hash(hashes: List[int]) -> int:  # noqa: UP006
    """``hash`` of a tuple, of the hashes of its elements: CPython's, which is xxHash's core.

    The state of 64 bits is kept in halves, as TorchScript has signed integers only.
    """
    mask = 4294967295
    high, low = 668265263, 374761413  # 2870177450012600261
    for lane in hashes:
        # + lane * 14029467366897019727, rotated by 31, * 11400714785074694791
        by_high, by_low = _times((lane >> 32) & mask, lane & mask, 3266489917, 668265295)
        low += by_low
        high = (high + by_high + (low >> 32)) & mask
        low &= mask
        turned = ((high << 31) & mask) | (low >> 1)
        low = ((low << 31) & mask) | (high >> 1)
        high = turned
        high, low = _times(high, low, 2654435761, 2246822535)
    low += len(hashes) ^ 375633078  # 2870177450012600261 ^ 3527539 in halves
    high = (high + 668265263 + (low >> 32)) & mask
    low &= mask
    if high == mask and low == mask:
        return 1546275796
    if high > 2147483647:
        high -= 4294967296
    return high * 4294967296 + low


def ints_hash(values: List[int]) -> int:  # noqa: UP006
    """``hash(tuple(values))``."""
    return tuple_hash([int_hash(value) for value in values])


def sample(population: List[int], k: int) -> List[int]:  # noqa: UP006
    """``random.sample``: ``k`` of the elements, none twice, in random order.

    Drawn by torch's generator, so ``torch.manual_seed`` decides, not Python's seed.
    """
    assert k <= len(population), "Sample larger than population or is negative"
    order = int_list(torch.randperm(len(population))[:k])
    return [population[i] for i in order]


def sample_range(n: int, k: int) -> List[int]:  # noqa: UP006
    """``random.sample(range(n), k)`` in memory O(k), as in Python."""
    assert k <= n, "Sample larger than population or is negative"
    if n <= 4 * k:
        return int_list(torch.randperm(n)[:k])
    drawn = torch.unique(torch.randint(0, n, [k]))
    while drawn.size(0) < k:
        more = torch.randint(0, n, [k - drawn.size(0)])
        drawn = torch.unique(torch.cat([drawn, more]))
    return int_list(drawn[torch.randperm(drawn.size(0))])


def random_float() -> float:
    """``random.random()``."""
    return float(torch.rand([1], dtype=torch.float64))


def random_between(a: float, b: float) -> float:
    """``random.uniform(a, b)``."""
    return a + (b - a) * random_float()


def random_int(a: int, b: int) -> int:
    """``random.randint(a, b)``, which may be ``b``."""
    return int(torch.randint(a, b + 1, [1]))


def map_index(
    src: Tensor,
    index: Tensor,
    max_index: int | None = None,  # noqa: ARG001
    inclusive: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``torch_geometric.utils.map.map_index`` by a search in the sorted index.

    Unlike PyG's own there is no table over all indices, hence no limit from which on it would
    need pandas or cuDF; where an index occurs twice, its last position counts, as there.
    """
    if src.is_floating_point() or index.is_floating_point():
        raise ValueError("expected 'src' and 'index' to be indices")
    if index.numel() == 0:
        found = torch.zeros_like(src, dtype=torch.bool)
        position = torch.zeros_like(src)
    else:
        ordered, perm = torch.sort(index, stable=True)
        place = torch.searchsorted(ordered, src, right=True) - 1
        place = place.clamp(min=0)
        found = ordered[place] == src
        position = perm[place].to(src.dtype)
    if inclusive:
        if not bool(found.all()):
            raise ValueError("found entries in 'src' that 'index' does not have")
        return position, None
    return position[found], found


def scipy_matrix(
    edge_index: Tensor, edge_attr: Tensor | None = None, num_nodes: int | None = None
) -> Any:
    """``torch_geometric.utils.to_scipy_sparse_matrix``: the matrix by its entries."""
    sizes = None if num_nodes is None else (num_nodes, num_nodes)
    return make(edge_index[0], None, edge_index[1], edge_attr, sizes)


def sort_aggregation(
    self: Any,
    x: Tensor,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    dim_size: int | None = None,
    dim: int = -2,
    max_num_elements: int | None = None,
) -> Tensor:
    """``SortAggregation.forward``: the first `k` of each set are taken, and no others are moved.

    Whether the largest set has as many decides nothing here: only values may tell its size.
    """
    fill_value = x.detach().min() - 1
    dense, _ = self.to_dense_batch(
        x, index, ptr, dim_size, dim, fill_value=fill_value, max_num_elements=max_num_elements
    )
    sets, size, channels = dense.size()
    _, perm = dense[:, :, -1].sort(dim=-1, descending=True)
    place = torch.arange(self.k, device=x.device)
    first = torch.arange(sets, device=x.device).view(-1, 1) * size
    taken = perm[:, place.clamp(max=size - 1)] + first
    found = dense.view(sets * size, channels)[taken]
    found = found.masked_fill((place >= size).view(1, -1, 1) | (found == fill_value), 0.0)
    out: Tensor = found.view(sets, self.k * channels)
    return out


SUBSTITUTES: dict[Any, Callable[..., Any]] = {
    math.log2: log2,
    math.hypot: hypot,
    math.isqrt: isqrt,
    math.lcm: lcm,
    math.comb: comb,
    math.perm: perm,
    math.trunc: trunc,
    math.isclose: isclose,
    math.prod: prod,
    math.fsum: fsum,
    math.dist: dist,
}
for _function in (cbrt, exp2):  # since Python 3.11
    if hasattr(math, _function.__name__):
        SUBSTITUTES[getattr(math, _function.__name__)] = _function

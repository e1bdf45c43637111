"""B-spline kernels over pseudo-coordinates, in ATen calls that TorchScript compiles.

Each op has the signature of the op of the same name in ``pyg_lib``; autograd differentiates both.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spline_basis(
    pseudo: Tensor, kernel_size: Tensor, is_open_spline: Tensor, degree: int
) -> tuple[Tensor, Tensor]:
    """Evaluate the products of B-spline basis functions that are not zero at each edge.

    Args:
        pseudo: Pseudo-coordinates, `[E, D]`, in `[0, 1]`; floating-point.
        kernel_size: Number of kernels in each dimension, `[D]`, int64.
        is_open_spline: Whether the spline is open in a dimension, `[D]`, uint8 or bool; else it
            is periodic.
        degree: Degree of the basis functions: 1, 2 or 3.

    Returns:
        basis: The values, `[E, S]` with `S = (degree + 1) ** D`, of the dtype of `pseudo`.
        weight_index: The kernel each belongs to, `[E, S]`, int64.

    Raises:
        ValueError: If `pseudo` is not two-dimensional or `degree` another.

    Source: "SplineCNN: Fast Geometric Deep Learning with Continuous B-Spline Kernels";
        ``pyg_lib.ops.spline_basis``.
    """
    if pseudo.dim() != 2:
        raise ValueError(f"expected pseudo of shape [E, D], got shape {list(pseudo.size())}")
    edges = pseudo.size(0)
    position = pseudo * (kernel_size - degree * is_open_spline.to(torch.int64))
    whole = position.detach().trunc().to(torch.int64)
    values = _basis(position - position.detach().floor(), degree)
    basis = pseudo.new_ones([edges, 1])
    index = torch.zeros([edges, 1], dtype=torch.int64, device=pseudo.device)
    stride = torch.ones_like(kernel_size[:1])
    shift = torch.arange(degree + 1, device=pseudo.device)
    for dim in range(pseudo.size(1)):  # the first dimension counts fastest
        kernel = torch.remainder(whole[:, dim : dim + 1] + shift, kernel_size[dim])
        basis = (values[:, dim].unsqueeze(2) * basis.unsqueeze(1)).flatten(1)
        index = ((kernel * stride).unsqueeze(2) + index.unsqueeze(1)).flatten(1)
        stride = stride * kernel_size[dim]
    return basis, index


def spline_weighting(x: Tensor, weight: Tensor, basis: Tensor, weight_index: Tensor) -> Tensor:
    """Transform the values of each edge by the kernels that are not zero there.

    Args:
        x: Edge values, `[E, F_in]`; floating-point.
        weight: Kernels, `[K, F_in, F_out]`, of the dtype of `x`.
        basis: From `spline_basis`, `[E, S]`, of the dtype of `x`.
        weight_index: From `spline_basis`, `[E, S]`, int64, values in `[0, K)`.

    Returns:
        `[E, F_out]`: the sum over `s` of ``basis[:, s] * (x @ weight[weight_index[:, s]])``.

    Source: ``pyg_lib.ops.spline_weighting``.
    """
    out = x.new_zeros([x.size(0), weight.size(2)])
    for kernel in range(weight.size(0)):  # no kernel per edge is ever held in memory
        edge, term = (weight_index == kernel).nonzero().unbind(1)
        part = x.index_select(0, edge) @ weight[kernel]
        out = out.index_add(0, edge, part * basis[edge, term].unsqueeze(1))
    return out


def _basis(v: Tensor, degree: int) -> Tensor:
    """Return the basis functions that are not zero at `v` within its interval, last dimension."""
    if degree == 1:
        return torch.stack([1 - v, v], dim=-1)
    if degree == 2:
        return torch.stack([(1 - v) ** 2 / 2, 0.5 + v - v * v, v * v / 2], dim=-1)
    if degree == 3:
        terms = [
            (1 - v) ** 3 / 6,
            (3 * v**3 - 6 * v * v + 4) / 6,
            (-3 * v**3 + 3 * v * v + 3 * v + 1) / 6,
            v**3 / 6,
        ]
        return torch.stack(terms, dim=-1)
    raise ValueError(f"expected degree to be 1, 2 or 3, got {degree}")

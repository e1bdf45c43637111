"""Operations over edges: the only place where gnnscript gathers and reduces tensors by node.

Each op is a pure function of tensors, compiles under ``torch.jit.script``, is differentiable by
autograd, and needs no PyG. ``docs/ops.md`` is the reference.

There are two implementations of the same signatures: ``ops.portable``, made of ATen calls, and
``ops.native``, made of our library's kernels, where it loads. Called from here, an op runs on the
one that :func:`gnnscript.kernels` has chosen, and compiles to the portable one.
"""

from gnnscript.ops.chosen import (
    csr,
    edge_softmax,
    fps,
    gather,
    gspmm,
    knn,
    nearest,
    radius,
    scatter,
    sddmm,
    segment,
    segment_reduce,
    segment_reduces,
    softmax,
)
from gnnscript.ops.clusters import graclus_cluster, grid_cluster
from gnnscript.ops.portable import as_bool, as_int, check_edge_index
from gnnscript.ops.splines import spline_basis, spline_weighting

__all__ = [
    "as_bool",
    "as_int",
    "check_edge_index",
    "csr",
    "edge_softmax",
    "fps",
    "gather",
    "graclus_cluster",
    "grid_cluster",
    "gspmm",
    "knn",
    "nearest",
    "radius",
    "scatter",
    "sddmm",
    "segment",
    "segment_reduce",
    "segment_reduces",
    "softmax",
    "spline_basis",
    "spline_weighting",
]

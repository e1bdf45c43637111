"""Operations over edges: the only place where gnnscript gathers and reduces tensors by node.

Each op is a pure function of tensors, compiles under ``torch.jit.script``, is differentiable by
autograd, and needs neither PyG nor a compiled library. ``docs/ops.md`` is the reference.
"""

from gnnscript.ops.clusters import fps, graclus_cluster, grid_cluster
from gnnscript.ops.neighbors import knn, nearest, radius
from gnnscript.ops.portable import (
    as_bool,
    as_int,
    check_edge_index,
    csr,
    gather,
    scatter,
    segment,
    softmax,
)
from gnnscript.ops.splines import spline_basis, spline_weighting

__all__ = [
    "as_bool",
    "as_int",
    "check_edge_index",
    "csr",
    "fps",
    "gather",
    "graclus_cluster",
    "grid_cluster",
    "knn",
    "nearest",
    "radius",
    "scatter",
    "segment",
    "softmax",
    "spline_basis",
    "spline_weighting",
]

"""Operations over edges: the only place where gnnscript gathers and reduces tensors by node.

Each op is a pure function of tensors, compiles under ``torch.jit.script``, is differentiable by
autograd, and needs neither PyG nor a compiled library. ``docs/ops.md`` is the reference.
"""

from gnnscript.ops.portable import check_edge_index, csr, gather, scatter, segment, softmax

__all__ = ["check_edge_index", "csr", "gather", "scatter", "segment", "softmax"]

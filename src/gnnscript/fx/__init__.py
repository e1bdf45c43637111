"""A model as a ``torch.fx`` graph: gather, message and reduction are nodes of it.

Stock ``torch.fx.symbolic_trace`` meets Python code that looks into tensors before it computes
with them, and gives up. Here the specialised code is traced, in which hardly any of that is left;
what is left is decided by example inputs, and asserted in the graph.
"""

from gnnscript.fx.trace import symbolic_trace

__all__ = ["symbolic_trace"]

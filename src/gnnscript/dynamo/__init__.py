"""Meeting ``torch.export`` and ``torch.compile``: they are given the specialised model."""

from gnnscript.dynamo.compiled import compile_
from gnnscript.dynamo.exported import REMEDY, export

__all__ = ["REMEDY", "compile_", "export"]

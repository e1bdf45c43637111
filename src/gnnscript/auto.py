"""Importing this module makes every PyG ``MessagePassing`` class scriptable.

Undo it with :func:`gnnscript.uninstall`.
"""

from gnnscript.intercept import install

install()

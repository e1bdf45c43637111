"""Sees ``MessagePassing`` classes when they are defined, and those that exist already."""

from gnnscript.intercept.decorator import scriptable
from gnnscript.intercept.hook import install, installed, uninstall

__all__ = ["install", "installed", "scriptable", "uninstall"]

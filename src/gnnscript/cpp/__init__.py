"""The C++ side: headers and a CMake package, which lie beside this file."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cmake_prefix"]


def cmake_prefix() -> str:
    """The ``CMAKE_PREFIX_PATH`` for C++ programs that use ``gnnscript/model.h``.

    It names this package and the libtorch in Python's torch, separated by a semicolon.
    """
    import torch

    return f"{Path(__file__).parent};{torch.utils.cmake_prefix_path}"

"""The CUDA kernels, on a GPU, or emulated on the CPU: see `make emulate`.

Where there is neither, every test is skipped and says so. `tests/ops` runs on a GPU, too, with
`GNNSCRIPT_TEST_DEVICE=cuda`, as `benchmarks/gpu.sh test` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import gnnscript
from gnnscript.ops import library

EMULATED = os.environ.get("GNNSCRIPT_EMULATED") == "1"


@pytest.fixture(autouse=True)
def _native_kernels() -> Iterator[None]:
    if EMULATED or torch.cuda.is_available():
        with gnnscript.kernels("native"):
            yield
    else:
        yield


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run."""
    if EMULATED:
        library.load()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no GPU, and GNNSCRIPT_EMULATED is not set")
    library.load()
    assert library.has_kernels("cuda"), "libgnnscript_cuda.so was not built: make native CUDA=on"
    return torch.device("cuda")


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """A real GPU."""
    if device.type != "cuda":
        pytest.skip("the emulator has no streams, graphs or devices")
    return device


@pytest.fixture(scope="session")
def native(device: torch.device) -> Any:
    """The module of native ops."""
    from gnnscript.ops import native

    return native

"""Builds the package as anybody would, for tests of what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# An editable installation finds the package before the path is asked.
IGNORE_EDITABLE = """
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
"""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def build_and_install(folder: Path, *options: str, **environment: str) -> tuple[Path, Path]:
    """Build a wheel as anybody would, and unpack it into an empty folder, without the network."""
    pytest.importorskip("scikit_build_core")
    bin_ = Path(sys.executable).parent  # cmake and ninja may stand there
    environment["PATH"] = f"{os.environ['PATH']}{os.pathsep}{bin_}"
    if shutil.which("cmake", path=environment["PATH"]) is None:
        pytest.skip("no cmake")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder,
        "-C", f"build-dir={folder / 'build'}", *options, ".", **environment,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel)
    return wheel, site

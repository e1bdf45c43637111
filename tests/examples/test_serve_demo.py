"""`make serve-demo`, from its result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnnscript.deploy import ServerError, find_server


def test_the_demo_serves_a_client_without_torch(examples: Path) -> None:
    try:
        find_server()
    except ServerError as error:
        pytest.skip(str(error))
    completed = subprocess.run(
        [sys.executable, str(examples / "serve_demo.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    lines = completed.stdout.splitlines()
    assert lines[0].startswith("model repository: README.md, config.pbtxt, ")
    assert lines[1].startswith("Triton ready after ")
    assert [line.split()[:3] for line in lines[2:4]] == [
        ["http", "10", "events,"],
        ["grpc", "10", "events,"],
    ]
    assert lines[4] == "client without torch: True"

"""The application end to end, on the real server: briefly trained, served, and compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnnscript.deploy.installation import ServerError, find_server


def run(examples: Path, folder: Path, *options: str) -> str:
    command = [sys.executable, str(examples / "hgcal_service.py"), "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--threads", "1", "--rounds", "1", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"MPLCONFIGDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(autouse=True)
def _server() -> None:
    try:
        find_server()
    except ServerError as error:
        pytest.skip(f"no inference server: {error}")


@pytest.mark.slow
def test_all_four_networks_are_served_and_agree_with_their_eager_models(
    examples: Path, tmp_path: Path
) -> None:
    output = run(examples, tmp_path, "--steps", "6")
    for name in ("edgenet", "hitgat", "energynet", "tracknet"):
        assert f"== {name}:" in output
        assert (tmp_path / f"{name}.checkpoint").is_file()
        assert (tmp_path / "repository" / name / "config.pbtxt").is_file()
    assert "events/min" in output
    assert (tmp_path / "event.png").stat().st_size > 10_000
    assert (tmp_path / "throughput.png").stat().st_size > 5_000


@pytest.mark.slow
def test_real_events_are_served(examples: Path, tmp_path: Path, hgcal_file: Path) -> None:
    options = ("--events", str(hgcal_file), "--only", "edgenet", "--steps", "6")
    output = run(examples, tmp_path, *options)
    assert "3 endcaps to train on; 15,743 hits and 467,718 edges" in output
    assert "hits in another one" in output

"""The experiment's side: a C++ program without torch sends events and takes clusters."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deploy.conftest import build
from gnnscript.deploy import Installation, Server
from serving.served_models import graph

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "cpp_client"
SIZES = [(8, 20), (60, 300), (5, 0), (1, 1), (30, 90), (2, 3), (700, 4000), (12, 12), (9, 30)]


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Path:
    """The program."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "cpp_client.lock"):
        folder = build(
            SOURCE,
            shared / "cpp_client",
            *curl_of(installation),
            f"-Dnlohmann_json_DIR={Path(__file__).parent / 'cpp'}",
            f"-DJSON_HEADERS={json_headers()}",
            packages="libcurl4-openssl-dev",
        )
    return folder / "events"


def json_headers() -> Path:
    """Where pip has put them."""
    found = importlib.util.find_spec("nlohmann_json")  # its own __init__ needs another package
    assert found is not None, "pip install nlohmann_json"
    assert found.origin is not None
    return Path(found.origin).parent / "include"


def curl_of(installation: Installation) -> list[str]:
    """Options for CMake where the machine has no libcurl to build with: the server's is used."""
    found = [file for folder in installation.libraries for file in folder.glob("libcurl*.so.4*")]
    if shutil.which("curl-config") is not None or not found:
        return []
    # The libraries that it needs itself lie beside it.
    return [
        "-DCURL_NO_CURL_CMAKE=ON",
        f"-DCURL_LIBRARY={found[0]}",
        f"-DCURL_INCLUDE_DIR={Path(__file__).parent / 'cpp'}",
        f"-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags,-rpath,{found[0].parent}",
    ]


def write_graph(path: Path, x: Tensor, edge_index: Tensor) -> Path:
    lines = [f"{x.size(0)} {x.size(1)} {edge_index.size(1)}"]
    lines += [" ".join(map(str, row)) for row in x.tolist()]
    lines += [" ".join(map(str, pair)) for pair in edge_index.t().tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(
    program: Path, url: str, model: str, folder: Path, graphs: Sequence[Path]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program, url, model, folder, *graphs],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_links_no_ml_framework(events: Path) -> None:
    listed = subprocess.run(["ldd", events], capture_output=True, text=True, check=True).stdout
    # Folders and addresses stand beside the names.
    libraries = [Path(line.split()[0]).name for line in listed.splitlines()]
    assert any("libcurl" in library for library in libraries)
    for name in ("torch", "c10", "python", "onnx", "triton"):
        assert not any(name in library for library in libraries)


def test_clusters_are_those_of_the_eager_model(
    events: Path, server: Server, models: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    graphs = [graph(*size) for size in SIZES]
    files = [write_graph(tmp_path / f"{i}.txt", *pair) for i, pair in enumerate(graphs)]
    completed = run(events, server.http_url, "edges", tmp_path, files)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith(f"{len(files)} events written, 0 failed")
    assert "up to 1 under way" not in completed.stdout
    for file, (x, edge_index) in zip(files, graphs, strict=True):
        with torch.no_grad():
            kept = edge_index[:, models["edges"](x, edge_index).argmax(dim=1) != 0]
        found = list(map(int, file.with_suffix(".clusters").read_text().split()))
        matrix = coo_matrix((torch.ones(kept.size(1)), kept.tolist()), shape=[x.size(0)] * 2)
        count, labels = connected_components(matrix, directed=False)
        first_seen = dict.fromkeys(labels.tolist())
        assert found == [list(first_seen).index(label) for label in labels.tolist()]
        assert len(set(found)) == count


def test_a_wrong_event_is_named_and_the_others_arrive(
    events: Path, server: Server, tmp_path: Path
) -> None:
    x, edge_index = graph(8, 20)
    files = [
        write_graph(tmp_path / "good.txt", x, edge_index),
        write_graph(tmp_path / "beyond.txt", x, edge_index + 5),
        write_graph(tmp_path / "features.txt", x[:, :3], edge_index),
        write_graph(tmp_path / "later.txt", x, edge_index),
    ]
    (tmp_path / "cut.txt").write_text("3 2 1\n0.5", encoding="utf-8")
    completed = run(events, server.http_url, "edges", tmp_path, [*files, tmp_path / "cut.txt"])
    assert completed.returncode == 1
    assert completed.stdout.startswith("2 events written, 3 failed")
    errors = dict(line.split(": ", 1) for line in completed.stderr.splitlines() if ": " in line)
    assert "answers 400" in errors["beyond"]
    assert "answers 400" in errors["features"]
    assert "is no graph file" in errors["cut"]
    assert (tmp_path / "good.clusters").read_text() == (tmp_path / "later.clusters").read_text()


def test_unknown_models_and_absent_servers_are_reported(
    events: Path, server: Server, tmp_path: Path
) -> None:
    file = write_graph(tmp_path / "event.txt", *graph(8, 20))
    completed = run(events, server.http_url, "absent", tmp_path, [file])
    assert completed.returncode == 1
    assert "unknown model" in completed.stderr
    completed = run(events, "http://127.0.0.1:9", "edges", tmp_path, [file])
    assert completed.returncode == 1
    assert "http://127.0.0.1:9: " in completed.stderr

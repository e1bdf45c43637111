"""Several versions of a model: a new one, one taken back, on a server that goes on answering."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from typing_extensions import Self

from gnnscript.cli import main
from gnnscript.client import Client, UnknownModelError
from gnnscript.deploy import (
    DeployError,
    Installation,
    Server,
    ServerError,
    read_manifest,
    serve_versions,
    triton,
)
from gnnscript.deploy.revival import Mirror
from gnnscript.deploy.versions import served_versions, versions_of
from serving.served_models import Centred, graph

TWO = [graph(8, 20), graph(6, 11)]
X, EDGES = graph(9, 25)


class Scaled(nn.Module):
    """Nodes one by one, so that requests can be merged."""

    def __init__(self, factor: float, channels: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = GCNConv(channels, 4)
        self.factor = factor

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.factor * self.conv(x, edge_index)


def write(folder: Path, factor: float, **options: object) -> Path:
    return triton(Scaled(factor).eval(), TWO, folder, "model", threads=1, **options)


EXPECTED = {factor: Scaled(factor)(X, EDGES).detach() for factor in (1.0, 2.0)}


def soon(condition: Callable[[], bool]) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(client: Client, *factors: float) -> bool:
    """Whether one of these models has answered."""
    found = torch.from_numpy(client(X, EDGES))
    return any(torch.allclose(found, EXPECTED[f], rtol=1e-4, atol=1e-5) for f in factors)


@pytest.mark.parametrize("backend", ["python", "libtorch"])
def test_what_lies_in_the_repository(tmp_path: Path, backend: str) -> None:
    folder = write(tmp_path, 1.0, backend=backend)
    before = (folder / "config.pbtxt").read_text()
    with pytest.raises(DeployError, match="1' exists; give another version, or pass overwrite"):
        write(tmp_path, 2.0, backend=backend, version=1)
    assert write(tmp_path, 2.0, backend=backend, version=2) == folder
    assert versions_of(folder) == [1, 2]
    assert served_versions(folder) == [2]
    assert (folder / "2" / "model.py").exists() == (backend == "python")
    after = (folder / "config.pbtxt").read_text()
    assert re.sub(r'_file: "2_', '_file: "', after) == before
    named = set(re.findall(r'input_data_file: "([^"]*)"', after))
    assert named <= {file.name for file in (folder / "warmup").iterdir()}
    # Those that the configuration before named are left until the next version comes.
    write(tmp_path, 3.0, backend=backend, version=2, overwrite=True)
    write(tmp_path, 3.0, backend=backend, version=10)
    assert versions_of(folder) == [1, 2, 10]
    assert served_versions(folder) == [10]
    kept = {file.name.split("_")[0] for file in (folder / "warmup").iterdir()}
    assert kept == {"2", "10"}
    assert not list(tmp_path.glob(".*"))

    serve_versions(tmp_path, "model", [1, 2])
    assert served_versions(folder) == [1, 2]
    write(tmp_path, 4.0, backend=backend, version=11)
    assert served_versions(folder) == [1, 2]  # until it is told otherwise
    serve_versions(tmp_path, "model", "all")
    assert served_versions(folder) == [1, 2, 10, 11]
    serve_versions(tmp_path, "model", "latest")
    assert served_versions(folder) == [11]
    assert (folder / "config.pbtxt").read_text().count("version_policy") == 1
    with pytest.raises(DeployError, match="'model' has no version 3; it has 1, 2, 10, 11"):
        serve_versions(tmp_path, "model", [3, 1])
    with pytest.raises(DeployError, match="there is no model 'other'"):
        serve_versions(tmp_path, "other", "all")
    with pytest.raises(ValueError, match="expected 'latest', 'all' or numbers of versions"):
        serve_versions(tmp_path, "model", "newest")
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace("{ latest {", "{\n latest {"))
    with pytest.raises(DeployError, match="has to stand on one line"):
        serve_versions(tmp_path, "model", "all")


def test_versions_that_do_not_fit(tmp_path: Path) -> None:
    folder = write(tmp_path, 1.0)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    wide = [(torch.randn(n, 6), edges) for n, edges in ((8, TWO[0][1]), (6, TWO[1][1]))]
    with pytest.raises(DeployError, match=r"float32 \[-1, 5\], .* the new version x: float32 \[-1"):
        triton(Scaled(1.0, 6), wide, tmp_path, "model", version=2)
    with pytest.raises(DeployError, match=r"has the outputs output: .* new version output_0"):
        triton(Centred(), TWO, tmp_path, "model", version=2)
    with pytest.raises(DeployError, match="is for backend='python', and a model has one backend"):
        write(tmp_path, 2.0, version=2, backend="libtorch")
    with pytest.raises(DeployError, match="do not run requests on their own"):
        write(tmp_path, 2.0, version=2, merge=False)
    with pytest.raises(ValueError, match="expected version to be at least 1, got 0"):
        write(tmp_path, 2.0, version=0)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    (folder / "config.pbtxt").unlink()
    with pytest.raises(DeployError, match="holds no model that a version could be added to"):
        write(tmp_path, 2.0, version=2)


def test_a_first_version_may_have_any_number(tmp_path: Path) -> None:
    folder = write(tmp_path, 1.0, version=7)
    assert versions_of(folder) == [7]
    assert read_manifest(folder / "7" / "model.pt").model == "Scaled"


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from serving.test_versions import TWO, Scaled\nmodel = Scaled(2.0)\nexamples = TWO\n"
    )
    models = tmp_path / "models"
    write(models, 1.0)
    export = ["export", f"{program}:model", "--inputs", f"{program}:examples", "--name", "model"]
    assert main([*export, "--triton", str(models), "--version", "2", "--threads", "1"]) == 0
    capsys.readouterr()
    assert main(["versions", str(models), "model"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in listed] == ["1", "2, served"]
    assert listed[0].startswith("1: Scaled, portable ops; made with gnnscript")
    assert main(["versions", str(models), "model", "--serve", "1"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "1, served",
        "2",
    ]
    assert main(["versions", str(models), "model", "--serve", "1,5"]) == 2
    assert "'model' has no version 5; it has 1, 2" in capsys.readouterr().err
    assert main(["versions", str(models), "model", "--serve", "newest"]) == 2
    assert "expected 'latest', 'all' or numbers" in capsys.readouterr().err
    assert main(["versions", str(models), "model", "--serve", "all"]) == 0
    assert served_versions(models / "model") == [1, 2]


class Load:
    """Asks a server again and again, and notes every answer that no version gives."""

    def __init__(self, url: str, factors: tuple[float, ...]) -> None:
        self.wrong: list[object] = []
        self.count = 0
        self._url, self._factors = url, factors
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def _run(self) -> None:
        with Client(self._url, "model", retries=0) as client:
            while not self._stop.is_set():
                try:
                    if not answers(client, *self._factors):
                        self.wrong.append("values")
                except Exception as error:  # any is one too many
                    self.wrong.append(error)
                self.count += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["python", "libtorch"])
def test_a_server_takes_versions_up_and_back(
    request: pytest.FixtureRequest, installation: Installation, tmp_path: Path, backend: str
) -> None:
    if backend == "libtorch":
        request.getfixturevalue("libtorch")
    write(tmp_path, 1.0, backend=backend)
    with Server(tmp_path, installation=installation) as server:
        client = Client(server.http_url, "model")
        assert answers(client, 1.0)
        with Load(server.http_url, (1.0, 2.0)) as load:
            write(tmp_path, 2.0, backend=backend, version=2)
            soon(lambda: answers(client, 2.0))
            serve_versions(tmp_path, "model", [1])
            soon(lambda: answers(client, 1.0))
            serve_versions(tmp_path, "model", "all")
            soon(Client(server.grpc_url, "model", version=2, retries=0).ready)
        assert load.wrong == []
        assert load.count > 10
        for url in (server.http_url, server.grpc_url):
            for version, factor in ((1, 1.0), (2, 2.0)):
                with Client(url, "model", version=version) as one:
                    assert answers(one, factor)
            with (
                Client(url, "model", version=3, retries=0) as none,
                pytest.raises(UnknownModelError),
            ):
                none(X, EDGES)
        # What is deleted is unloaded; another model is taken up.
        shutil.rmtree(tmp_path / "model" / "2")
        soon(lambda: not Client(server.http_url, "model", version=2).ready())
        assert answers(client, 1.0)
        triton(Scaled(5.0).eval(), TWO, tmp_path, "other", backend=backend, threads=1)
        soon(Client(server.http_url, "other").ready)
        shutil.rmtree(tmp_path / "other")
        soon(lambda: not Client(server.http_url, "other").ready())
        client.close()


def test_a_version_that_does_not_load_leaves_the_one_before(
    installation: Installation, tmp_path: Path
) -> None:
    folder = write(tmp_path, 1.0)
    with (
        Server(tmp_path, installation=installation) as server,
        Client(server.http_url, "model") as client,
        Load(server.http_url, (1.0,)) as load,
    ):
        made = write(tmp_path / "elsewhere", 2.0, version=2) / "2"
        content = (made / "model.pt").read_bytes()
        (made / "model.pt").write_bytes(content[: len(content) // 2])
        made.rename(folder / "2")

        def states() -> dict[str, str]:
            question = urllib.request.Request(
                f"{server.http_url}/v2/repository/index", data=b"{}", method="POST"
            )
            with urllib.request.urlopen(question, timeout=5) as answer:
                return {m.get("version", ""): m.get("state", "") for m in json.load(answer)}

        soon(lambda: states().get("2") == "UNAVAILABLE")
        assert states()["1"] == "READY"
        assert answers(client, 1.0)
        (folder / "2" / "model.pt").write_bytes(content)  # mended: it is tried again
        load._factors = (1.0, 2.0)
        soon(lambda: answers(client, 2.0))
    assert load.wrong == []


def test_a_server_that_is_killed_while_it_loads(installation: Installation, tmp_path: Path) -> None:
    folder = write(tmp_path, 1.0)
    with (folder / "1" / "model.py").open("a") as code:
        code.write("\nimport time\n\ntime.sleep(3)\n")
    server = Server(tmp_path, installation=installation)
    errors: list[Exception] = []

    def start() -> None:
        try:
            server.start()
        except ServerError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    soon(lambda: server.pid is not None and "loading: model:1" in server.log())
    process = server.pid
    assert process is not None
    os.kill(process, signal.SIGKILL)
    thread.join()
    assert "the server ended with exit code -9" in str(errors[0])

    def ended() -> bool:
        try:
            os.killpg(process, 0)
        except ProcessLookupError:
            return True
        return False

    soon(ended)  # the process of the model, too
    assert not list(Path("/dev/shm").glob(f"gnnscript-{os.getpid()}-{server.http_url[-5:]}*"))
    with server, Client(server.http_url, "model") as client:  # once more, and to the end
        assert answers(client, 1.0)


def test_the_mirror_follows_its_repository_and_rests_otherwise(tmp_path: Path) -> None:
    repository, hidden = tmp_path / "models", tmp_path / "models" / ".made"
    for file in ("a/config.pbtxt", "a/1/model.pt", "a/1/model.py", "a/2/model.pt", ".made/b/1/m"):
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).write_text(file)
    mirror = Mirror(repository, tmp_path / "mirror")

    def seen() -> dict[str, str]:
        files = (file for file in mirror.models.rglob("*") if file.name != "__pycache__")
        return {str(f.relative_to(mirror.models)): f.read_text() for f in files if f.is_file()}

    def times() -> dict[Path, int]:
        return {path: path.lstat().st_mtime_ns for path in mirror.models.rglob("*")}

    first = {"a/config.pbtxt", "a/1/model.pt", "a/1/model.py", "a/2/model.pt"}
    assert set(seen()) == first
    before = times()
    (repository / "a" / "1" / "__pycache__").mkdir()
    mirror.update()
    assert times() == before  # each of which would have the server load the model again
    (repository / "a" / "1" / "model.py").unlink()
    (repository / "a" / "1" / "library.so").write_text("new")
    (repository / "a" / "1" / "model.pt").write_text("changed")
    shutil.rmtree(repository / "a" / "2")
    (hidden / "b").rename(repository / "b")
    mirror.update()
    assert set(seen()) == {"a/config.pbtxt", "a/1/model.pt", "a/1/library.so", "b/1/m"}
    assert seen()["a/1/model.pt"] == "changed"
    shutil.rmtree(repository / "a")
    mirror.update()
    assert set(seen()) == {"b/1/m"}
    repository.rename(tmp_path / "away")
    with pytest.raises(OSError, match="models"):  # a disk that is away takes no model along
        mirror.update()
    assert sorted(path.name for path in mirror.models.iterdir()) == ["b"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be written to at `writable` alone, as an image or a shared disk is."""
    folder, writable = tmp_path / "read_only", tmp_path / "writable"
    folder.mkdir()
    writable.mkdir()
    for command in (
        ["mount", "--bind", str(writable), str(folder)],
        ["mount", "-o", "remount,ro,bind", str(folder)],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this process may not mount a folder read-only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_repository_that_cannot_be_written_to(
    installation: Installation, tmp_path: Path, read_only: Path
) -> None:
    write(tmp_path / "writable", 1.0)
    before = sorted(read_only.rglob("*"))
    with pytest.raises(OSError, match="Read-only file system"):
        write(read_only, 2.0, version=2)
    with pytest.raises(OSError, match="Read-only file system"):
        serve_versions(read_only, "model", "all")
    assert main(["versions", str(read_only), "model", "--serve", "all"]) == 2
    with (
        Server(read_only, installation=installation) as server,
        Client(server.http_url, "model") as client,
    ):
        assert answers(client, 1.0)
    assert sorted(read_only.rglob("*")) == before

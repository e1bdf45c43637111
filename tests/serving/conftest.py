"""Fixtures of the serving tests: one real server for all of them, with its models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gnnscript.client import Client
from gnnscript.deploy import Installation, Server, ServerError, find_server, triton
from serving.served_models import (
    Bipartite,
    Centred,
    Edges,
    Graphs,
    Kinds,
    Settings,
    Typed,
    graph,
    kinds,
    typed_graph,
)

BATCHES = [torch.tensor([0] * 5 + [1] * 3), torch.tensor([0] * 4 + [1, 2])]
PAIRS = [
    ((torch.randn(7, 5), torch.randn(4, 5)), torch.randint(4, (2, 9)), torch.rand(9)),
    ((torch.randn(6, 5), torch.randn(5, 5)), torch.randint(5, (2, 8)), torch.rand(8)),
]


@dataclass
class Served:
    """A model and its eager original."""

    model: torch.nn.Module
    folder: Path


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The real server; `gnnscript serve --install` puts one into this Python environment."""
    try:
        return find_server()
    except ServerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def libtorch(installation: Installation) -> Installation:
    """The real server with the libtorch backend, which the wheel does not have."""
    if installation.backend("pytorch") is None:
        pytest.skip(
            "there is no libtorch backend: make libtorch-backend, or name a folder with "
            "pytorch/libtriton_pytorch.so by GNNSCRIPT_TRITON_BACKENDS"
        )
    return installation


@pytest.fixture(scope="session")
def models() -> dict[str, torch.nn.Module]:
    """The eager models, by the names that they are served by."""
    torch.manual_seed(7)
    made = {
        "edges": Edges(),
        "graphs": Graphs(),
        "centred": Centred(),
        "bipartite": Bipartite(),
        "typed": Typed(),
        "settings": Settings(),
        "kinds": Kinds(),
    }
    return {name: model.eval() for name, model in made.items()}


@pytest.fixture(scope="session")
def repository(
    models: dict[str, torch.nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model repository with all models."""
    folder = tmp_path_factory.mktemp("models")
    two = [graph(8, 20), graph(6, 11)]
    triton(models["edges"], two, folder, "edges", threads=1, limits={"N": 50_000, "E": 500_000})
    triton(
        models["graphs"],
        [(*g, batch) for g, batch in zip(two, BATCHES, strict=True)],
        folder,
        "graphs",
        threads=1,
    )
    triton(models["centred"], two, folder, "centred", threads=1)
    triton(models["bipartite"], PAIRS, folder, "bipartite", threads=1)
    typed = [typed_graph(8, 7, 20), typed_graph(6, 9, 11)]
    triton(models["typed"], typed, folder, "typed", threads=1)
    triton(models["settings"], [(*g, 2, True) for g in two], folder, "settings", threads=1)
    calls = [(*kinds(8, 20), 2, 0.5), (*kinds(6, 11), 2, 0.5)]
    triton(models["kinds"], calls, folder, "kinds", threads=1, merge=True)
    return folder


@pytest.fixture(scope="session")
def server(installation: Installation, repository: Path) -> Iterator[Server]:
    """The server that all tests share; those that end one start their own."""
    with Server(repository, installation=installation) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, server: Server) -> str:
    """The shared server, over each protocol."""
    return server.http_url if request.param == "http" else server.grpc_url


@pytest.fixture
def edges(server: Server) -> Iterator[Client]:
    """A client of the model `edges`, over HTTP."""
    with Client(server.http_url, "edges", timeout=30) as client:
        yield client

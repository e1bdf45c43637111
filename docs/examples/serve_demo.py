"""Serves EdgeNet and calls it from a process that has no torch, as `make serve-demo` runs it.

This file is both sides: with `--client` it is the experiment's side, which imports numpy and
`gnnscript.client` alone, and sends events over HTTP and gRPC.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

EVENTS = 10


def call(urls: list[str], folder: Path) -> None:
    """The client: calls the model on each event, and compares with the results of the eager one."""
    from gnnscript.client import Client

    assert "torch" not in sys.modules
    data = np.load(folder / "events.npz")
    for url in urls:
        with Client(url, "edgenet") as client:
            took, difference = [], 0.0
            for number in range(EVENTS):
                start = time.perf_counter()
                scores = client(data[f"x{number}"], data[f"edge_index{number}"])
                took.append(1e3 * (time.perf_counter() - start))
                difference = max(difference, float(abs(scores - data[f"scores{number}"]).max()))
        assert difference < 1e-3, difference
        print(
            f"{url.partition(':')[0]}  {EVENTS} events, {np.median(took):5.1f} ms each (median), "
            f"max difference to the eager model {difference:.1e}"
        )
    print(f"client without torch: {'torch' not in sys.modules}")


def serve() -> None:
    """The service: makes events, exports the model, starts the server and the client."""
    import torch

    from gnnscript.deploy import Server, triton
    from hgcal.edgenet import EdgeNet
    from hgcal.generator import generate_hits
    from hgcal.graph import build_graph, wedges

    # torch announces the retirement of TorchScript at each use; here it would only be noise.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
    torch.manual_seed(0)
    model = EdgeNet().eval()
    events = wedges(build_graph(generate_hits(0)), 200)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        arrays = {}
        with torch.no_grad():
            for number, event in enumerate(events[:EVENTS]):
                arrays[f"x{number}"] = event.x.numpy()
                arrays[f"edge_index{number}"] = event.edge_index.numpy()
                arrays[f"scores{number}"] = model(event.x, event.edge_index).numpy()
        np.savez(folder / "events.npz", **arrays)
        examples = [(e.x, e.edge_index) for e in wedges(build_graph(generate_hits(1)), 400)[:2]]
        made = triton(model, examples, folder / "models", "edgenet")
        print(f"model repository: {', '.join(sorted(f.name for f in made.rglob('*.*')))}")
        start = time.perf_counter()
        with Server(folder / "models") as server:
            print(f"Triton ready after {time.perf_counter() - start:.1f} s, models warmed up")
            command = [sys.executable, __file__, "--client", str(folder)]
            subprocess.run([*command, server.http_url, server.grpc_url], check=True, env=os.environ)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        call(sys.argv[3:], Path(sys.argv[2]))
    else:
        serve()

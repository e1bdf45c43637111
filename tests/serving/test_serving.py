"""Models on a real Triton server, called by the client."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnscript.client import Client, InvalidInputError
from gnnscript.deploy import Server, triton
from serving.served_models import Ends, Lists, graph, kinds, typed_graph

Models = dict[str, torch.nn.Module]


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-4, atol=1e-5)


def test_results_are_those_of_the_eager_model(url: str, models: Models) -> None:
    with Client(url, "edges") as client:
        for size in ((3, 4), (40, 300), (17, 1), (1, 1)):
            x, edge_index = graph(*size)
            found = client(x.numpy(), edge_index.numpy())
            assert found.dtype == np.float32
            close(found, models["edges"](x, edge_index))
            close(client(edge_index=edge_index, x=x), models["edges"](x, edge_index))


@pytest.mark.parametrize("size", [(5, 0), (0, 0), (1, 0)])
def test_empty_graphs(url: str, models: Models, size: tuple[int, int]) -> None:
    x, edge_index = graph(*size)
    with Client(url, "edges") as client:
        found = client(x.numpy(), edge_index.numpy())
    assert found.shape == (0, 4)
    with Client(url, "centred") as client:
        nodes, total = client(x.numpy(), edge_index.numpy())
    assert nodes.shape == (size[0], 4)
    expected_nodes, expected_total = models["centred"](x, edge_index)
    close(nodes, expected_nodes)
    close(total, expected_total.reshape(1))


def test_many_graphs_run_as_one(server: Server, models: Models) -> None:
    """Waiting requests are merged; each gets its own results, empty graphs included."""
    sizes = [(n, e) for n in (1, 4, 0, 9, 30) for e in (0, 3, 50) if n or not e] * 6
    with ThreadPoolExecutor(16) as pool, Client(server.http_url, "edges", workers=16) as client:
        graphs = list(pool.map(lambda item: graph(*item[1], seed=item[0]), enumerate(sizes)))
        before = executions(server, "edges")
        futures = [client.submit(x.numpy(), e.numpy()) for x, e in graphs]
        for (x, edge_index), future in zip(graphs, futures, strict=True):
            close(future.result(), models["edges"](x, edge_index))
        inferences, runs = (
            after - old for after, old in zip(executions(server, "edges"), before, strict=True)
        )
    assert inferences == len(sizes)
    assert runs < len(sizes)


def executions(server: Server, model: str) -> tuple[int, int]:
    """How many requests the server has answered, and in how many executions."""
    with urllib.request.urlopen(f"{server.http_url}/v2/models/{model}/stats") as answer:
        stats = json.load(answer)["model_stats"][0]
    return stats["inference_count"], stats["execution_count"]


def test_results_per_graph(url: str, models: Models) -> None:
    """A request may hold several graphs, and a batch of requests mixes them."""
    calls = []
    for graphs_in_request in (1, 2, 5):
        x, edge_index = graph(12, 30, seed=graphs_in_request)
        batch = torch.arange(12) * graphs_in_request // 12
        calls.append((x, edge_index, batch))
    with Client(url, "graphs", workers=8) as client:
        futures = [(call, client.submit(*call)) for call in calls * 8]
        for call, future in futures:
            found = future.result()
            assert found.shape == (int(call[2].max()) + 1, 3)
            close(found, models["graphs"](*call))


def test_models_that_look_at_all_nodes_run_alone(url: str, models: Models) -> None:
    with Client(url, "centred", workers=8) as client:
        graphs = [graph(n, 3 * n) for n in (2, 5, 11)] * 4
        for call, future in [(g, client.submit(*g)) for g in graphs]:
            nodes, total = future.result()
            expected_nodes, expected_total = models["centred"](*call)
            close(nodes, expected_nodes)
            close(total, expected_total.reshape(1))


def test_pairs_go_in_and_dictionaries_come_out(url: str, models: Models) -> None:
    x = (torch.randn(30, 5), torch.randn(3, 5))
    edge_index = torch.stack([torch.randint(30, (40,)), torch.randint(3, (40,))])
    weight = torch.rand(40)
    expected = models["bipartite"](x, edge_index, weight)
    with Client(url, "bipartite") as client:
        found = client((x[0].numpy(), x[1].numpy()), edge_index.numpy(), weight.numpy())
        assert list(found) == ["sums", "weights"]
        close(found["sums"], expected["sums"])
        close(found["weights"], weight)
        named = client(x=x, edge_index=edge_index, edge_weight=weight)
        close(named["sums"], expected["sums"])


def test_edge_types_are_given_as_the_model_takes_them(url: str, models: Models) -> None:
    with Client(url, "typed") as client, ThreadPoolExecutor(4) as pool:
        calls = [typed_graph(n, n + 2, 3 * n) for n in range(1, 9)]
        for call, found in zip(calls, pool.map(lambda call: client(*call), calls), strict=True):
            expected = models["typed"](*call)
            assert set(found) == set(expected) == {"user", "item"}
            for name, tensor in expected.items():
                close(found[name], tensor)


def test_numbers_go_in_and_what_is_nested_comes_out(url: str, models: Models) -> None:
    x, edge_index = graph(9, 30)
    with Client(url, "settings") as client:
        for hops, relu in ((0, True), (3, False)):
            found = client(x, edge_index, hops, relu)
            total, parts, number = models["settings"](x, edge_index, hops, relu)
            close(found["output_0"], total.reshape(1))
            close(found["output_1_nodes"], parts["nodes"])
            close(found["output_1_norms"], parts["norms"])
            assert found["output_2"].tolist() == [number]
        close(
            client(x, edge_index, 1, True, "mean")["output_1_nodes"],
            models["settings"](x, edge_index, 1, True, "mean")[1]["nodes"],
        )
        close(
            client(x, edge_index, relu=True, mode="mean", hops=1)["output_0"],
            models["settings"](x, edge_index, 1)[0].reshape(1),
        )
        for call in ({"mode": "sum"}, {"hops": "mean"}, {"no": "mean"}):
            with pytest.raises(InvalidInputError, match=r"expected .*: texts stay as they were"):
                client(x, edge_index, **{"hops": 1, "relu": True, **call})


def test_lists_go_in_part_by_part(tmp_path: Path) -> None:
    model = Lists().eval()
    examples = []
    for n in (8, 6):
        (x, edge_index), (other, _) = graph(n, 3 * n), graph(n, 1)
        examples.append((edge_index, [x, other], [2], [0.5, 3.0], Ends(torch.rand(n))))
    triton(model, examples, tmp_path, "lists")
    with Server(tmp_path) as server, Client(server.http_url, "lists") as client:
        for call in examples:
            found = client(*call)
            for one, other in zip(found, model(*call), strict=True):
                close(one, other)
            edge_index, xs, factors, powers, ends = call
            flat = client(edge_index, *xs, *factors, *powers, ends.weight)  # one by one
            np.testing.assert_array_equal(flat[0], found[0])
            named = client(edge_index=edge_index, xs=xs, factors=[2], powers=[0.5, 3], ends=ends)
            np.testing.assert_array_equal(named[0], found[0])


def test_all_dtypes_go_in_and_come_out(url: str, models: Models) -> None:
    """Graphs of different settings wait together, and each gets the results of its own."""
    calls = [
        (*kinds(n, 3 * n, seed), number, factor)
        for seed, n in enumerate((2, 5, 11))
        for number in (1, 3)
        for factor in (0.5, -2.0)
    ] * 2
    with Client(url, "kinds", workers=12) as client:
        numpy = [(x.numpy(), e.numpy(), w.float().numpy(), *rest) for x, e, w, *rest in calls]
        futures = [client.submit(*call) for call in numpy]
        for (x, *rest), future in zip(calls, futures, strict=True):
            expected = models["kinds"](x.clone(), *rest)
            found = future.result()
            assert list(found) == list(expected)
            for name, tensor in expected.items():
                want = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
                torch.testing.assert_close(
                    torch.from_numpy(found[name]), want.detach(), rtol=1e-2, atol=1e-4
                )


def test_the_server_has_metrics(server: Server, edges: Client) -> None:
    edges(*graph(3, 3))
    with urllib.request.urlopen(server.metrics_url) as answer:
        text = answer.read().decode()
    assert 'nv_inference_request_success{model="edges"' in text


def test_other_clients_are_told_the_shapes(server: Server) -> None:
    """What any client of the protocol sees: names, dtypes and shapes, the sizes that vary as -1."""
    with urllib.request.urlopen(f"{server.http_url}/v2/models/centred") as answer:
        metadata = json.load(answer)
    assert metadata["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 5]},
        {"name": "edge_index", "datatype": "INT64", "shape": [2, -1]},
    ]
    assert metadata["outputs"] == [
        {"name": "output_0", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "output_1", "datatype": "FP32", "shape": [1]},
    ]

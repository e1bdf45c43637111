"""What else lives in the house of an eager model behaves under auto as it does without."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.explain import (
    AttentionExplainer,
    CaptumExplainer,
    Explainer,
    GNNExplainer,
)
from torch_geometric.explain.algorithm import ExplainerAlgorithm
from torch_geometric.nn import (
    GAT,
    GCN,
    GATConv,
    GCNConv,
    MessagePassing,
    SAGEConv,
    summary,
    to_hetero,
)

import gnnscript
from behaviour.conftest import RunFile
from behaviour.models import Deep, everything
from conformance.graphs import GRAPHS, IN, OUT

CALL = (GRAPHS[0].x, GRAPHS[0].edge_index)


def both(run: Callable[[], Any]) -> tuple[Any, Any]:
    """What ``run`` gives without gnnscript, and with it after a model was scripted.

    On native ops, where they are there: then gnnscript has a hand in eager calls as well.
    """
    torch.manual_seed(1)
    without = run()
    gnnscript.install()
    try:
        with gnnscript.kernels(None):
            torch.jit.script(GCNConv(IN, OUT))
            torch.manual_seed(1)
            within = run()
    finally:
        gnnscript.uninstall()
    return without, within


def explainer(model: nn.Module, algorithm: ExplainerAlgorithm, nodes: bool = True) -> Explainer:
    return Explainer(
        model,
        algorithm=algorithm,
        explanation_type="model",
        node_mask_type="attributes" if nodes else None,
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )


def masks(algorithm: ExplainerAlgorithm) -> tuple[Tensor, Tensor]:
    explanation = explainer(GCN(IN, 8, 2, OUT), algorithm)(*CALL, index=1)
    return explanation.node_mask, explanation.edge_mask


def test_explanations_are_the_same() -> None:
    torch.testing.assert_close(*both(lambda: masks(GNNExplainer(epochs=5))))


def test_explanations_by_attention_are_the_same() -> None:
    def explain() -> Tensor:
        attention = explainer(GAT(IN, 8, 2, OUT), AttentionExplainer(), nodes=False)
        return attention(*CALL, index=1).edge_mask

    without, within = both(explain)
    assert within.max() > 0
    torch.testing.assert_close(within, without)


def test_explanations_by_captum_are_the_same() -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    torch.testing.assert_close(*both(lambda: masks(CaptumExplainer("IntegratedGradients"))))


def test_summaries_are_the_same() -> None:
    without, within = both(lambda: summary(GAT(IN, 8, 2, OUT), *CALL))
    assert without == within
    assert "GATConv" in within


def test_hooks_see_the_same() -> None:
    def watch() -> list[Any]:
        seen: list[Any] = []
        conv = SAGEConv(IN, OUT)
        conv.register_propagate_forward_pre_hook(lambda m, given: seen.append(sorted(given[-1])))
        conv.register_message_forward_hook(lambda m, given, out: seen.append(out.sum()))
        conv.register_aggregate_forward_hook(lambda m, given, out: seen.append(out.sum()))
        conv.register_forward_hook(lambda m, given, out: seen.append(type(m).__name__))
        conv.register_full_backward_hook(lambda m, given, out: seen.append(out[0].sum()))
        conv(CALL[0].clone().requires_grad_(), CALL[1]).sum().backward()
        return seen

    without, within = both(watch)
    assert len(within) == 5
    for first, second in zip(without, within, strict=True):
        assert first == second or torch.allclose(first, second)


def test_hooks_change_what_is_computed_as_without() -> None:
    def change() -> tuple[Tensor, Tensor, Tensor]:
        conv = GATConv(IN, OUT).eval()
        plain = conv(*CALL)
        handles = [
            conv.register_message_forward_hook(lambda m, given, out: out * 2),
            conv.register_aggregate_forward_pre_hook(lambda m, given: given),
            conv.register_propagate_forward_hook(lambda m, given, out: out + 1),
            conv.register_edge_update_forward_hook(lambda m, given, out: out.flip(0)),
        ]
        hooked = conv(*CALL)
        for handle in handles:
            handle.remove()
        return plain, hooked, conv(*CALL)

    without, within = both(change)
    torch.testing.assert_close(within, without)
    assert not torch.allclose(within[0], within[1])
    torch.testing.assert_close(within[0], within[2])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = SAGEConv((IN, IN), 8)
        self.conv2 = SAGEConv((8, 8), OUT)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def test_to_hetero_gives_the_same() -> None:
    g = GRAPHS[0]
    types = [("a", "to", "b"), ("b", "rev", "a")]
    x = {"a": g.x, "b": g.x_dst}
    edges = {types[0]: g.bipartite, types[1]: g.bipartite.flip([0])}
    without, within = both(lambda: to_hetero(Encoder(), (["a", "b"], types))(x, edges))
    torch.testing.assert_close(dict(within), dict(without))


@pytest.mark.usefixtures("auto")
def test_data_parallel_falls_through_on_the_cpu() -> None:
    model = GAT(IN, 8, 2, OUT).eval()
    parallel = nn.DataParallel(model)
    torch.testing.assert_close(parallel(*CALL), model(*CALL))
    torch.testing.assert_close(torch.jit.script(parallel.module)(*CALL), model(*CALL))


@pytest.mark.usefixtures("auto")
def test_checkpoints_hold_what_they_did() -> None:
    model = GAT(IN, 8, 2, OUT, norm="BatchNorm")
    optimizer = torch.optim.Adam(model.parameters())

    def step(network: nn.Module) -> None:
        optimizer.zero_grad()
        network(*CALL).square().sum().backward()
        optimizer.step()

    step(model)
    scripted = torch.jit.script(model)  # trains the same parameters
    step(scripted)
    file = io.BytesIO()
    hyper = {"in_channels": IN, "hidden_channels": 8, "num_layers": 2, "out_channels": OUT}
    kept = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "hyper": hyper}
    torch.save(kept, file)
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    again = GAT(**checkpoint["hyper"], norm="BatchNorm")
    again.load_state_dict(checkpoint["state_dict"], strict=True)
    torch.optim.Adam(again.parameters()).load_state_dict(checkpoint["optimizer"])
    torch.testing.assert_close(again.eval()(*CALL), model.eval()(*CALL))
    torch.testing.assert_close(torch.jit.script(again)(*CALL), scripted.eval()(*CALL))


@pytest.mark.usefixtures("auto")
def test_whole_models_are_saved_and_loaded(tmp_path: Path) -> None:
    model = GAT(IN, 8, 2, OUT, norm="BatchNorm").eval()
    torch.jit.script(model)
    expected = model(*CALL)
    torch.save(model, tmp_path / "model.ckpt")
    again = torch.load(tmp_path / "model.ckpt", weights_only=False)
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    torch.testing.assert_close(again(*CALL), expected)
    torch.testing.assert_close(torch.jit.script(again)(*CALL), expected)
    assert pickle.loads(pickle.dumps(GATConv)) is GATConv


@pytest.mark.usefixtures("auto")
def test_copies_are_whole_and_independent() -> None:
    model = Deep().eval()
    torch.jit.script(model)
    before = everything(model)
    expected = model(*CALL)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [type(m) for m in copied.modules()] == [type(m) for m in model.modules()]
        assert copied.again is copied.first
        torch.testing.assert_close(copied(*CALL), expected)
        torch.testing.assert_close(torch.jit.script(copied)(*CALL), expected)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
    torch.testing.assert_close(model(*CALL), expected)
    for (name, old), (_, new) in zip(before, everything(model), strict=True):
        assert old is new, name


@pytest.mark.usefixtures("auto")
def test_classes_made_under_auto_are_message_passing_classes() -> None:
    class Late(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x)

    assert Late.__mro__[1] is MessagePassing
    assert isinstance(Late(), MessagePassing)
    assert repr(Late()) == "Late()"


PROCESSES = """
    import os
    import sys

    # The loopback alone: a machine's own name need not lead to it.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp

    import gnnscript.auto
    from torch_geometric.nn import GATConv

    torch.set_num_threads(1)

    def call(seed):
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(9, 8, generator=random)
        return x, torch.randint(9, (2, 30), generator=random)

    def infer(model, queue):
        queue.put(torch.jit.script(model)(*call(0)).sum().item())

    def train(rank, folder):
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
        )
        torch.manual_seed(rank)  # DDP hands out the parameters of the first
        model = torch.nn.parallel.DistributedDataParallel(GATConv(8, 4))
        model(*call(rank)).square().sum().backward()
        if rank == 0:
            grads = [parameter.grad for parameter in model.parameters()]
            scripted = torch.jit.script(model.module)
            torch.testing.assert_close(scripted(*call(0)), model.module(*call(0)))
            torch.save(grads, f"{folder}/grads.pt")
        dist.destroy_process_group()

    if __name__ == "__main__":
        torch.manual_seed(0)
        model = GATConv(8, 4).eval().share_memory()
        context = mp.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=infer, args=(model, queue))
        process.start()
        folder = os.path.dirname(os.path.abspath(__file__))
        mp.spawn(train, args=(folder,), nprocs=2)
        torch.testing.assert_close(queue.get(timeout=120), model(*call(0)).sum().item())
        process.join()
"""


@pytest.mark.slow
def test_processes_train_and_infer_alike(run_file: RunFile, tmp_path: Path) -> None:
    run_file(PROCESSES)
    torch.manual_seed(0)
    conv = GATConv(8, 4)
    for seed in range(2):
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(9, 8, generator=random)
        edge_index = torch.randint(9, (2, 30), generator=random)
        (conv(x, edge_index).square().sum() / 2).backward()  # DDP takes the mean
    found = torch.load(tmp_path / "grads.pt")
    torch.testing.assert_close(found, [parameter.grad for parameter in conv.parameters()])

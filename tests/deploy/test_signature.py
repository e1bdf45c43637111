"""Shapes are found by running a model, and are those that its code has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, PointNetConv, SAGEConv, global_mean_pool

from deploy.deploy_models import (
    Edge,
    Graph,
    Hetero,
    Node,
    edge_call,
    edges,
    graph_call,
    hetero_call,
    node_call,
)
from gnnscript import DeployError, save
from gnnscript.deploy import Signature, derive


def signature(model: nn.Module, *calls: Any) -> Signature:
    return derive(torch.jit.script(model.eval()), calls)


def shown(found: Signature) -> list[str]:
    return [str(spec) for spec in (*found.inputs, *found.outputs)]


@pytest.mark.usefixtures("auto")
class TestShapes:
    @pytest.mark.parametrize("sizes", [(10, 30), (10, 10), (4, 4), (30, 10)])
    def test_nodes_and_edges_are_told_apart(self, sizes: tuple[int, int]) -> None:
        found = signature(Edge(), edge_call(*sizes))
        assert shown(found) == [
            "x: float32 [N, 4]",
            "edge_index: int64 [2, E]",
            "edge_attr: float32 [E, 1]",
            "output: float32 [E]",
        ]
        assert [spec.index for spec in found.inputs] == [(), ("N", "N"), ()]
        assert found.symbols == {"N": "x.size(0)", "E": "edge_index.size(1)"}

    def test_node_types_have_sizes_of_their_own(self) -> None:
        x = torch.randn(5, 4), torch.randn(7, 6)
        found = signature(SAGEConv((4, 6), 3), (x, edges(5, 7, 20)))
        assert shown(found) == [
            "x_0: float32 [N, 4]",
            "x_1: float32 [N2, 6]",
            "edge_index: int64 [2, E]",
            "output: float32 [N2, 3]",
        ]
        assert found.inputs[2].index == ("N", "N2")

    def test_a_second_example_parts_what_is_equal_in_the_first(self) -> None:
        conv = SAGEConv((4, 6), 3)
        equal = (torch.randn(5, 4), torch.randn(5, 6)), edges(5, 5, 20)
        other = (torch.randn(5, 4), torch.randn(8, 6)), edges(5, 8, 11)
        assert signature(conv, equal).inputs[1].shape == ("N", 6)
        assert signature(conv, equal, other).inputs[1].shape == ("N2", 6)

    def test_sizes_that_depend_on_values_are_unknown(self) -> None:
        found = signature(Graph(), graph_call(9, 20))
        assert [spec.shape for spec in found.outputs] == [("?", 1), ()]
        assert found.inputs[2].shape == ("N",)

    def test_feature_sizes_vary_where_the_code_lets_them(self) -> None:
        call = torch.randn(5, 4), torch.randn(5, 3), edges(5, 5, 12)
        assert shown(signature(PointNetConv(), call)) == [
            "x: float32 [N, F]",
            "pos: float32 [N, F2]",
            "edge_index: int64 [2, E]",
            "output: float32 [N, F + F2]",
        ]

    def test_square_inputs_and_selections(self) -> None:
        class Embedded(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(10, 4)
                self.conv = GCNConv(4, 4)

            def forward(self, z: Tensor, edge_index: Tensor, adj: Tensor) -> tuple[Tensor, ...]:
                h = adj @ self.conv(self.table(z), edge_index)
                return h, torch.cat([z, z, edge_index[0]]), h[z > 4]

        z = torch.tensor([1, 7, 3, 9, 5, 2])
        found = signature(Embedded(), (z, edges(6, 6, 20), torch.randn(6, 6)))
        assert shown(found) == [
            "z: int64 [N]",
            "edge_index: int64 [2, E]",
            "adj: float32 [N, N]",
            "output_0: float32 [N, 4]",
            "output_1: int64 [2*N + E]",
            "output_2: float32 [?, 4]",
        ]
        assert found.inputs[0].index == ()  # bounded by the table, not by a size of the inputs

    @pytest.mark.parametrize("count", [20, 5])
    def test_a_width_that_is_the_number_of_nodes_stays_a_number(self, count: int) -> None:
        call = hetero_call(5, 7, count)  # and so is the width of the scales
        inputs = signature(Hetero(), call).inputs
        shapes = {spec.name: spec.shape for spec in inputs}
        assert shapes == {
            "x_dict_source": ("N", 4),
            "x_dict_target": ("N2", 6),
            "edge_index": (2, "E"),
            "scales_0": (5,),
            "scales_1": (1, 5),
        }
        assert inputs[2].index == ("N", "N2")

    def test_a_size_that_the_code_fixes_is_a_number(self) -> None:
        class Fixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.position = nn.Parameter(torch.randn(6, 4))

            def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
                return x + self.position

        assert shown(signature(Fixed(), (torch.randn(6, 4),))) == [
            "x: float32 [6, 4]",
            "output: float32 [6, 4]",
        ]

    def test_sizes_that_vary_with_values_of_the_inputs(self) -> None:
        """`ptr` ends with the number of nodes, so that neither grows alone."""

        class Segments(nn.Module):
            def forward(self, x: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
                return torch.segment_reduce(x, "sum", lengths=ptr.diff()), x * 2

        calls = [
            (torch.randn(6, 4), torch.tensor([0, 2, 6])),
            (torch.randn(9, 4), torch.tensor([0, 2, 3, 9])),
        ]
        assert shown(signature(Segments(), *calls)) == [
            "x: float32 [N, F]",
            "ptr: int64 [N2]",
            "output_0: float32 [N2 - 1, F]",
            "output_1: float32 [N, F]",
        ]

    def test_indices_that_may_be_negative_have_no_bound(self) -> None:
        class Parents(nn.Module):
            def forward(self, x: Tensor, parent: Tensor) -> Tensor:
                return x + x[parent.clamp(min=0)] * (parent >= 0).view(-1, 1)

        call = torch.randn(4, 3), torch.tensor([-1, 0, 0, 2])
        assert signature(Parents(), call).inputs[1].index == ()
        call[1][0] = 0
        assert signature(Parents(), call).inputs[1].index == ("N",)

    def test_sizes_that_depend_on_two_vectors_or_rarely_change(self) -> None:
        class Selected(nn.Module):
            def forward(
                self, x: Tensor, batch: Tensor, y: Tensor, y_batch: Tensor, mask: Tensor
            ) -> tuple[Tensor, ...]:
                both = global_mean_pool(x, batch) + global_mean_pool(y, y_batch)
                return both, x[x[:, 0] > 50], x[mask]

        call = (
            torch.rand(6, 4),
            torch.arange(6) // 3,
            torch.rand(5, 4),
            torch.arange(5) // 3,
            torch.ones(6, dtype=torch.bool),
        )
        outputs = signature(Selected(), call).outputs
        assert [spec.shape for spec in outputs] == [("?", "F"), ("?", "F"), ("?", "F")]

    def test_caches_do_not_reach_from_run_to_run(self) -> None:
        found = signature(GCNConv(4, 3, cached=True), node_call(6, 17), node_call(8, 20))
        assert [spec.shape for spec in found.inputs] == [("N", 4), (2, "E")]
        assert found.inputs[1].index == ("N", "N")

    def test_the_model_is_not_changed(self, tmp_path: Path) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("runs", torch.zeros(1))

            def forward(self, x: Tensor) -> Tensor:
                self.runs += 1
                return x * 2

        model = Counting()
        state = torch.random.get_rng_state()
        example = torch.ones(3, 2)
        save(model, tmp_path / "model.pt", example_inputs=(example,))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert model.training
        assert torch.equal(model.runs, torch.zeros(1))
        assert torch.equal(torch.jit.load(tmp_path / "model.pt").runs, torch.zeros(1))


@pytest.mark.usefixtures("auto")
class TestErrors:
    def test_wrong_arguments(self) -> None:
        with pytest.raises(DeployError, match=r"do not fit forward\(x, edge_index, edge_weight\)"):
            signature(Node(), {"x": torch.randn(3, 4), "edges": edges(3, 3, 4)})
        with pytest.raises(DeployError, match="takes 3 arguments"):
            signature(Node(), (*node_call(3, 4), None, None))

    def test_empty_and_differing_examples(self) -> None:
        with pytest.raises(DeployError, match=r"example for 'edge_index' is empty \(\[2, 0\]\)"):
            signature(Node(), (torch.randn(3, 4), torch.empty(2, 0, dtype=torch.int64)))
        with pytest.raises(DeployError, match="one dtype"):
            signature(Node(), node_call(3, 5), (torch.randn(3, 4).double(), edges(3, 3, 4)))
        with pytest.raises(DeployError, match="same tensors"):
            signature(Node(), node_call(3, 5), (*node_call(4, 6), torch.rand(6)))

    def test_sparse_tensors_are_refused(self) -> None:
        class Sparse(nn.Module):
            def forward(self, x: Tensor, adj: Tensor) -> Tensor:
                return adj @ x

        with pytest.raises(DeployError, match=r"'adj' in the layout torch\.sparse_coo"):
            signature(Sparse(), (torch.randn(3, 2), torch.eye(3).to_sparse()))

    def test_dictionaries_of_another_form(self) -> None:
        call = hetero_call(4, 5, 9)
        del call["power"]
        with pytest.raises(DeployError, match="missing: power"):
            signature(Hetero(), call)

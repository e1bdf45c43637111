"""Installing and uninstalling, in programs of their own."""

import pytest

from behaviour.programs import IMPORTS, MODEL, SCRIPT, STATE, program

# -- when auto is imported ------------------------------------------------------------------------

AUTO = "import gnnscript.auto"
USE = "scripts(Model())"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((AUTO, IMPORTS, MODEL, SCRIPT, USE), id="before-pyg"),
        pytest.param((IMPORTS, AUTO, MODEL, SCRIPT, USE), id="after-pyg"),
        pytest.param((IMPORTS, MODEL, AUTO, SCRIPT, USE), id="after-the-classes"),
        pytest.param(
            (IMPORTS, MODEL, "model = Model()", AUTO, SCRIPT, "scripts(model)"),
            id="after-the-instances",
        ),
        pytest.param(
            ("import torch", AUTO, IMPORTS, MODEL, SCRIPT, USE), id="between-torch-and-pyg"
        ),
        pytest.param(
            (IMPORTS, MODEL, "Model()(torch.randn(2, 4), torch.tensor([[0], [1]]))", AUTO, SCRIPT,
             USE), id="after-eager-use",
        ),
        pytest.param(
            ("from torch.jit import script", IMPORTS, MODEL, AUTO, SCRIPT,
             "scripts(Model(), script)"), id="script-captured-before",
        ),
        pytest.param(
            (AUTO, "from torch.jit import script", IMPORTS, MODEL, SCRIPT,
             "scripts(Model(), script)"), id="script-captured-after",
        ),
        pytest.param(
            (AUTO, IMPORTS, "from torch_geometric.nn.conv.message_passing import MessagePassing",
             MODEL, SCRIPT, USE), id="by-the-long-name",
        ),
        pytest.param(
            ("import gnnscript; gnnscript.install()", IMPORTS, MODEL, SCRIPT, USE), id="install",
        ),
        pytest.param(
            ("from torch_geometric import nn as pyg", AUTO, IMPORTS, MODEL, SCRIPT,
             "import importlib, torch_geometric; importlib.import_module('torch_geometric.nn')",
             USE), id="imported-again",
        ),
    ],
)  # fmt: skip
def test_order_of_imports(parts, run_file):
    assert run_file(program(*parts)).split() == ["scripts"]


def test_decorator_without_auto(run_file):
    output = run_file(
        program(
            IMPORTS,
            STATE,
            "before = state()",
            """
            import gnnscript
            from torch_geometric.nn import GCNConv
            """,
            MODEL.replace("class Own", "@gnnscript.scriptable\nclass Own"),
            SCRIPT,
            """
            assert isinstance(Own, type) and Own.__name__ == "Own" and Own.__module__ == "__main__"
            after = state()
            assert_same({"classes": before["classes"]}, after)
            GAT = gnnscript.scriptable(GATConv)
            assert GAT is GATConv, "the decorator returns the class itself"
            scripts(Model())
            try:
                torch.jit.script(GCNConv(4, 4)).save("gcn.pt")
                torch.jit.load("gcn.pt")
            except Exception:
                print("others are as before")
            """,
        )
    )
    assert output.split("\n")[:2] == ["scripts", "others are as before"]


def test_decorated_twice(run_file):
    code = program(
        IMPORTS, "import gnnscript", MODEL, SCRIPT,
        """
        for _ in range(2):
            assert gnnscript.scriptable(Own) is Own
            gnnscript.scriptable(GATConv)
        scripts(Model())
        import gnnscript.auto
        scripts(Model())
        gnnscript.uninstall()
        scripts(Model())
        """,
    )  # fmt: skip
    assert run_file(code).split() == ["scripts"] * 3


# -- what importing does --------------------------------------------------------------------------


def test_importing_the_package_does_nothing(run_file):
    code = program(
        STATE,
        """
        before = state(pyg=False)
        import gnnscript
        assert "torch_geometric" not in sys.modules
        assert "gnnscript.auto" not in sys.modules
        assert_same(before, state(pyg=False))
        for name in gnnscript.__all__:
            getattr(gnnscript, name)
        assert "torch_geometric" not in sys.modules
        assert_same(before, state(pyg=False))
        print("ok")
        """,
    )
    assert run_file(code).strip() == "ok"


def test_submodules_need_no_import_of_their_own(run_file):
    code = """
        import sys
        import gnnscript
        assert not hasattr(gnnscript, "auto")
        assert callable(gnnscript.client.Client) and "torch" not in sys.modules
        assert callable(gnnscript.deploy.triton) and callable(gnnscript.fx.symbolic_trace)
        assert callable(gnnscript.ops.scatter)
        assert callable(gnnscript.testing.assert_scripts_like_eager)
        assert {"client", "deploy", "fx", "ops", "testing"} <= set(dir(gnnscript))
        print("ok")
    """
    assert run_file(code).strip() == "ok"


def test_auto_does_not_import_pyg(run_file):
    code = """
        import sys
        import gnnscript.auto
        assert "torch_geometric" not in sys.modules
        import torch
        f = torch.jit.script(torch.nn.Linear(2, 2))
        assert "torch_geometric" not in sys.modules
        print("ok")
    """
    assert run_file(code).strip() == "ok"


def test_testing_does_not_import_pyg(run_file):
    code = """
        import sys
        import gnnscript.testing
        assert "torch_geometric" not in sys.modules
        print("ok")
    """
    assert run_file(code).strip() == "ok"


# -- uninstall ------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("times", [1, 2])
def test_uninstall_restores_everything(use, times, run_file):
    code = program(
        IMPORTS, MODEL, SCRIPT, STATE,
        f"""
        import gnnscript
        before = state()
        for _ in range({times}):
            gnnscript.install()
        assert state() != before, "install changes nothing?"
        if {use}:
            scripts(Model())
        for _ in range({times}):
            gnnscript.uninstall()
        assert_same(before, state())
        gnnscript.uninstall()
        assert_same(before, state())
        print("ok")
        """,
    )  # fmt: skip
    assert run_file(code).split()[-1] == "ok"


def test_install_twice_is_undone_by_one_uninstall(run_file):
    code = program(
        IMPORTS, STATE,
        """
        import gnnscript
        before = state()
        gnnscript.install()
        once = state()
        gnnscript.install()
        assert_same(once, state())
        gnnscript.uninstall()
        assert_same(before, state())
        print("ok")
        """,
    )  # fmt: skip
    assert run_file(code).strip() == "ok"


def test_uninstall_before_pyg_is_imported(run_file):
    code = program(
        STATE,
        """
        before = state(pyg=False)
        import gnnscript.auto
        gnnscript.uninstall()
        assert_same(before, state(pyg=False))
        """,
        IMPORTS,
        """
        import gc
        clean = {k: v for k, v in vars(MessagePassing).items()}
        assert not [k for k, v in clean.items() if "gnnscript" in str(getattr(v, "__module__", ""))]
        assert not [k for k in clean if "gnnscript" in k]
        assert "__prepare_scriptable__" not in clean
        assert not hasattr(MessagePassing, "__prepare_scriptable__")
        assert_same(before, state(pyg=False))
        print("ok")
        """,
    )
    assert run_file(code).strip() == "ok"


def test_uninstall_when_never_installed(run_file):
    code = program(
        IMPORTS, STATE,
        """
        before = state()
        import gnnscript
        gnnscript.uninstall()
        gnnscript.uninstall()
        assert_same(before, state())
        print("ok")
        """,
    )  # fmt: skip
    assert run_file(code).strip() == "ok"


def test_in_and_out_again(run_file):
    code = program(
        IMPORTS, MODEL, SCRIPT, STATE,
        """
        import gnnscript
        before = state()
        model = Model()
        for _ in range(3):
            gnnscript.install()
            scripts(model)
            scripts(Model())
            gnnscript.uninstall()
            assert_same(before, state())
            model(torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]))
        """,
    )  # fmt: skip
    assert run_file(code).split() == ["scripts"] * 6


def test_classes_defined_under_auto_outlive_it(run_file):
    code = program(
        AUTO, IMPORTS, MODEL, SCRIPT,
        """
        import copy, pickle
        model = Model()
        x, edge_index = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
        expected = model(x, edge_index)
        scripted = torch.jit.script(model)
        gnnscript.uninstall()
        for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), scripted):
            torch.testing.assert_close(other(x, edge_index), expected)
        fresh = Model()
        fresh.load_state_dict(model.state_dict())
        torch.testing.assert_close(fresh(x, edge_index), expected)
        assert "gnnscript" not in torch.jit.script.__module__
        gnnscript.install()
        scripts(model)
        """,
    )  # fmt: skip
    assert run_file(code).split() == ["scripts"]


def test_a_pickle_made_under_auto_loads_without_it(run_file, tmp_path):
    save = program(
        AUTO, IMPORTS,
        """
        import sys
        model = nn.ModuleList([GATConv(4, 4)])
        torch.jit.script(model[0])
        torch.save(model, "eager.pt")
        torch.save(model[0](torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]])), "out.pt")
        """,
    )  # fmt: skip
    run_file(save, name="save.py")
    load = """
        import sys, torch
        model = torch.load("eager.pt", weights_only=False)
        expected = torch.load("out.pt")
        out = model[0](torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]]))
        torch.testing.assert_close(out, expected)
        assert "gnnscript" not in sys.modules
        print("ok")
    """
    assert run_file(load, name="load.py").strip() == "ok"


# -- torch.jit.script itself ----------------------------------------------------------------------


def test_other_uses_of_torch_jit_script(run_file):
    code = program(
        AUTO, IMPORTS,
        """
        import inspect
        from typing import List

        assert torch.jit.script.__name__ == "script"
        assert "TorchScript" in torch.jit.script.__doc__
        assert "obj" in inspect.signature(torch.jit.script).parameters

        def local_scope():
            def double(x: Tensor) -> Tensor:
                return 2 * x

            @torch.jit.script
            def function(x: Tensor) -> Tensor:
                return double(x) + 1

            class Plain:
                def __init__(self, x: Tensor):
                    self.x = x

                def get(self) -> Tensor:
                    return double(self.x)

            # Names in a class are looked up in the frame that calls torch.jit.script.
            Scripted = torch.jit.script(Plain)

            @torch.jit.script
            def use(x: Tensor) -> Tensor:
                return Scripted(x).get()

            return function, use

        function, use = local_scope()
        one = torch.ones(2)
        torch.testing.assert_close(function(one), 3 * one)
        torch.testing.assert_close(use(one), 2 * one)

        linear = nn.Linear(2, 2)
        for scripted in (
            torch.jit.script(linear), torch.jit.script(obj=linear),
            torch.jit.script(torch.jit.script(linear)),
            torch.jit.script(nn.Sequential(linear, nn.ReLU()))[0],
        ):
            torch.testing.assert_close(scripted(one), linear(one))
        assert torch.jit.script(linear).weight is linear.weight
        assert isinstance(torch.jit.script([1, 2]), torch._C.ScriptList)
        try:
            torch.jit.script(nn.Linear)
        except RuntimeError as error:
            assert "pass an instance instead" in str(error)
            print("ok")
        """,
    )  # fmt: skip
    assert run_file(code).strip() == "ok"


def test_models_without_convs_are_left_to_torch(run_file):
    code = program(
        AUTO, IMPORTS,
        """
        class Prepares(nn.Module):
            prepared = 0

            def __init__(self):
                super().__init__()
                self.lin = nn.Linear(2, 2)

            def __prepare_scriptable__(self):
                Prepares.prepared += 1
                return self.lin

            def forward(self, x):
                raise AssertionError("not this one")

        class Host(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Prepares()
                self.gat = GATConv(2, 2)

            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                return self.gat(self.part(x), edge_index)

        host = Host()
        scripted = torch.jit.script(host)
        assert Prepares.prepared == 1
        x, edge_index = torch.ones(2, 2), torch.tensor([[0, 1], [1, 0]])
        torch.testing.assert_close(
            scripted(x, edge_index), host.gat(host.part.lin(x), edge_index))
        assert isinstance(host.part, Prepares)
        print("ok")
        """,
    )  # fmt: skip
    assert run_file(code).strip() == "ok"

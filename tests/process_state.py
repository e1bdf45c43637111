"""The global state of a process that gnnscript promises to leave, or to restore."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import torch
from torch_geometric.nn import MessagePassing

# Modules in which an entry that vanishes, or becomes another object, is a test's broken promise.
WATCHED_PACKAGES = ("gnnscript", "torch", "torch_geometric")

# What PyG itself sets on a class when its first instance is made, gnnscript installed or not.
PYG_OWN_ATTRIBUTES = frozenset(
    {
        "_jinja_edge_updater",
        "_jinja_propagate",
        "_orig_edge_updater",
        "_orig_propagate",
        "collect",
        "edge_collect",
        "edge_updater",
        "propagate",
    }
)


# What torch.compile patches for good when it runs first.
DYNAMO_OWN_ATTRIBUTES = frozenset(
    {
        "___needs_generation_tag_patch",
        "__init__",
        "__setstate__",
        "_get_trace_graph",
        "trace",
        "trace_module",
    }
)


def _functions(module: ModuleType) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and name not in DYNAMO_OWN_ATTRIBUTES
        # A class that ``scriptable`` has marked stays scriptable: so does what looks for the mark.
        # That ``uninstall`` restores it after ``install`` is tested in programs of their own.
        and name != "_script_impl"
    }


@dataclass(frozen=True)
class ProcessState:
    """The global state that gnnscript promises to leave, or to restore.

    Attributes:
        meta_path: The finders in ``sys.meta_path``, in order.
        modules: The watched entries of ``sys.modules``.
        attributes: Per class or module, its attributes by name. TorchScript's entry points are
            among them.
    """

    meta_path: list[object]
    modules: dict[str, ModuleType]
    attributes: dict[str, dict[str, object]]

    @classmethod
    def take(cls) -> ProcessState:
        """Read the state of this process."""
        modules = {
            name: module
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in WATCHED_PACKAGES
        }
        return cls(
            meta_path=list(sys.meta_path),
            modules=modules,
            attributes={
                "torch.jit": _functions(torch.jit),
                "torch.jit._script": _functions(torch.jit._script),
                "torch.jit._recursive": _functions(torch.jit._recursive),
                "torch.nn.Module": {
                    name: value
                    for name, value in vars(torch.nn.Module).items()
                    if name not in DYNAMO_OWN_ATTRIBUTES
                },
                "MessagePassing": dict(vars(MessagePassing)),
            },
        )

    def differences(self, later: ProcessState) -> list[str]:
        """Say what is no longer as it was.

        Args:
            later: The state to compare with.

        Returns:
            One line per difference; empty where there is none.
        """
        found = []
        if not _same_objects(self.meta_path, later.meta_path):
            found.append(f"sys.meta_path was {self.meta_path}, is {later.meta_path}")
        for name, module in self.modules.items():
            if name not in later.modules:
                found.append(f"sys.modules[{name!r}] disappeared")
            elif later.modules[name] is not module:
                found.append(f"sys.modules[{name!r}] is another object")
        for name in later.modules.keys() - self.modules.keys():
            spec = getattr(later.modules[name], "__spec__", None)
            if spec is None and name.partition(".")[0] != "torch":  # torch has synthetic ones
                found.append(f"sys.modules[{name!r}] is new, and was not imported")
        for owner, before in self.attributes.items():
            found += compare_attributes(owner, before, later.attributes[owner])
        return found


def _same_objects(first: list[object], second: list[object]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def compare_attributes(
    owner: str, before: dict[str, object], after: dict[str, object]
) -> list[str]:
    """Say which attributes came, went, or are another object, one line each."""
    lines = [f"{owner}.{name} is new" for name in after.keys() - before.keys()]
    lines += [f"{owner}.{name} disappeared" for name in before.keys() - after.keys()]
    lines += [
        f"{owner}.{name} was {before[name]!r}, is {after[name]!r}"
        for name in before.keys() & after.keys()
        if before[name] is not after[name]
    ]
    return sorted(lines)


def pyg_classes() -> dict[str, dict[str, object]]:
    """The attributes of every message passing class that PyG defines, by qualified name."""
    classes: dict[str, dict[str, object]] = {}
    pending: list[type] = [MessagePassing]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls.__module__.startswith("torch_geometric."):
            classes[f"{cls.__module__}.{cls.__qualname__}"] = {
                name: value for name, value in vars(cls).items() if name not in PYG_OWN_ATTRIBUTES
            }
    return classes

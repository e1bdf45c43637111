"""Writes a specialised class as source text; a pure function from trees to text."""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gnnscript.specialize.helpers import Import
from gnnscript.specialize.tree import free_name

__all__ = ["ClassText", "Method", "emit_class"]

Origin = tuple[str, int]
_TYPING = ("Any", "Dict", "List", "Optional", "Tuple", "Union")
_WIDTH = 100


@dataclass(frozen=True)
class ClassText:
    """The text of a specialised class.

    Args:
        name: Name of the class in the text.
        text: The source of its module.
        origins: For each line that came from the user's code, the file and line it came from.
        captured: Objects that the text uses by name and that cannot be imported.
        empty: Whether the class has neither methods nor attributes of its own.
    """

    name: str
    text: str
    origins: dict[int, Origin]
    captured: dict[str, Any] = field(hash=False)
    empty: bool = False


@dataclass(frozen=True)
class Method:
    """A function of the text: its tree and where it came from."""

    node: ast.FunctionDef
    origin: Origin
    exported: bool = False


class _Page:
    """Lines, each with its origin."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.origins: dict[int, Origin] = {}

    def add(self, text: str, origin: Origin | None = None) -> None:
        for line in text.split("\n"):
            self.lines.append(line.rstrip())
            if origin is not None:
                self.origins[len(self.lines)] = origin


def emit_class(
    name: str,
    docstring: str,
    methods: list[Method],
    helpers: list[tuple[Any, Method]],
    attributes: dict[str, ast.expr],
) -> ClassText:
    """Writes one module: imports, helper functions, the class.

    Args:
        name: The class's name.
        docstring: The module's docstring: which class, which configuration, from where.
        methods: The methods of the class.
        helpers: The functions they call, each with the object that calls refer to it by.
        attributes: Annotations of attributes that are assigned while the model runs.
    """
    functions = [m.node for m in methods] + [m.node for _, m in helpers]
    names = _Names(functions, name)
    for key, method in helpers:
        method.node.name = names.function(key, key.name)
    for function in functions:
        names.resolve(function)
    for annotation in attributes.values():
        names.resolve(annotation)
    page = _Page()
    page.add('"""' + docstring + '\n"""\n')
    for line in names.imports(
        [*functions, *attributes.values()], exports=any(m.exported for m in methods)
    ):
        page.add(line)
    for _, method in helpers:
        page.add("\n")
        _write_function(page, method, 0)
    page.add("\n")
    page.add(f"class {name}(Lowered):")
    for attribute, annotation in attributes.items():
        page.add(f"    {attribute}: {ast.unparse(annotation)}")
    if not methods and not attributes:
        page.add("    pass")
    for method in methods:
        if page.lines[-1] != f"class {name}(Lowered):":
            page.add("")
        _write_function(page, method, 4)
    empty = not methods and not attributes
    return ClassText(name, "\n".join(page.lines) + "\n", page.origins, names.captured, empty)


class _Names:
    """Gives imports and helper functions names that no local variable has."""

    def __init__(self, functions: list[ast.FunctionDef], class_name: str) -> None:
        # A builtin's name means the builtin in TorchScript, whatever the module has.
        self.taken = {class_name, "self", "Lowered", "Tensor", *_TYPING, *dir(builtins)}
        for function in functions:
            self.taken |= {a.arg for a in function.args.args}
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and not hasattr(node, "target_"):
                    self.taken.add(node.id)
        self.given: dict[Any, str] = {}
        self.modules: list[tuple[Import, str]] = []
        self.captured: dict[str, Any] = {}

    def function(self, key: Any, wish: str) -> str:
        """The final name of a helper function."""
        wish = wish.strip("_") or "function"
        self.given[id(key)] = free_name("_" + wish if not wish.isidentifier() else wish, self.taken)
        return self.given[id(key)]

    def resolve(self, tree: ast.AST) -> None:
        """Spells every reference in a tree."""
        for node in ast.walk(tree):
            if not isinstance(node, ast.Name) or not hasattr(node, "target_"):
                continue
            target = node.target_
            if not isinstance(target, Import):
                node.id = self.given[id(target)]
                continue
            key = (target.module, target.name, id(target.value) if target.value else 0)
            if key not in self.given:
                self.given[key] = free_name(target.alias, self.taken)
                if target.module:
                    self.modules.append((target, self.given[key]))
                else:
                    self.captured[self.given[key]] = target.value
            node.id = self.given[key]

    def imports(self, trees: Iterable[ast.AST], *, exports: bool) -> Iterator[str]:
        """The import lines."""
        used = {n.id for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Name)}
        typing = [name for name in _TYPING if name in used]
        if typing:
            yield f"from typing import {', '.join(typing)}\n"
        whole = sorted((i.module, alias) for i, alias in self.modules if not i.name)
        if exports and ("torch", "torch") not in whole:
            whole = sorted([*whole, ("torch", "torch")])
        for module, alias in whole:
            yield f"import {module}" + (f" as {alias}" if alias != module else "")
        if "Tensor" in used:
            yield "from torch import Tensor"
        yield ""
        named: dict[str, list[str]] = {"gnnscript.script": ["Lowered"]}
        for item, alias in self.modules:
            if item.name:
                spelled = item.name if alias == item.name else f"{item.name} as {alias}"
                named.setdefault(item.module, []).append(spelled)
        for module in sorted(named):
            yield f"from {module} import {', '.join(sorted(named[module]))}"
        for name in sorted(self.captured):
            yield f"# {name}: taken from the scope of the class"


def _write_function(page: _Page, method: Method, indent: int) -> None:
    pad = " " * indent
    node = method.node
    if method.exported:
        page.add(f"{pad}@torch.jit.export")
    file, line = method.origin
    page.add(f"{pad}# {file}:{line}")
    page.add(_signature(node, pad), method.origin)
    _write_block(page, node.body, indent + 4)


def _signature(node: ast.FunctionDef, pad: str) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    defaults: list[ast.expr | None] = [None] * (len(node.args.args) - len(node.args.defaults))
    args = []
    for arg, default in zip(node.args.args, [*defaults, *node.args.defaults], strict=True):
        text = arg.arg if arg.annotation is None else f"{arg.arg}: {ast.unparse(arg.annotation)}"
        if default is not None:
            text += f" = {ast.unparse(default)}"
        args.append(text)
    line = f"{pad}def {node.name}({', '.join(args)}){returns}:"
    if len(line) <= _WIDTH:
        return line
    inner = "".join(f"{pad}    {arg},\n" for arg in args)
    return f"{pad}def {node.name}(\n{inner}{pad}){returns}:"


def _write_block(page: _Page, body: list[ast.stmt], indent: int) -> None:
    for statement in body:
        _write_statement(page, statement, indent)


def _write_statement(page: _Page, node: ast.stmt, indent: int, keyword: str = "if") -> None:
    pad = " " * indent
    origin = getattr(node, "origin", None)
    if isinstance(node, ast.If):
        page.add(f"{pad}{keyword} {ast.unparse(node.test)}:", origin)
        _write_block(page, node.body, indent + 4)
        if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            _write_statement(page, node.orelse[0], indent, "elif")
        elif node.orelse:
            page.add(f"{pad}else:", origin)
            _write_block(page, node.orelse, indent + 4)
        return
    if isinstance(node, (ast.For, ast.While, ast.With)):
        if isinstance(node, ast.For):
            head = f"for {_bare(node.target)} in {ast.unparse(node.iter)}:"
        elif isinstance(node, ast.While):
            head = f"while {ast.unparse(node.test)}:"
        else:
            head = f"with {', '.join(ast.unparse(i.context_expr) for i in node.items)}:"
        page.add(pad + head, origin)
        _write_block(page, node.body, indent + 4)
        return
    page.add(textwrap.indent(_simple(node), pad), origin)


def _simple(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign):
        target = _bare(node.targets[0])
        annotation = getattr(node, "annotation_", None)
        if annotation is not None:
            target += f": {ast.unparse(annotation)}"
        text = f"{target} = {_bare(node.value)}"
    elif isinstance(node, ast.Return) and node.value is not None:
        text = f"return {_bare(node.value)}"
    else:
        text = ast.unparse(ast.fix_missing_locations(node))
    comment = getattr(node, "comment_", None)
    return text if comment is None else f"{text}  # {comment}"


def _bare(node: ast.expr) -> str:
    """A tuple without its parentheses."""
    if isinstance(node, ast.Tuple) and len(node.elts) > 1:
        return ", ".join(ast.unparse(element) for element in node.elts)
    return ast.unparse(node)

"""The syntax tree of a function, found by its code object and checked against it."""

from __future__ import annotations

import ast
import inspect
import itertools
import linecache
import textwrap
import threading
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gnnscript._errors import Location, UnsupportedError

__all__ = ["FunctionSource", "class_location", "function_source"]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class FunctionSource:
    """A function as text and tree.

    Args:
        function: The function; a decorated one is its decorator's wrapper.
        node: Its definition; line numbers are those of the file.
        file: The file name of its code object.
        lines: All lines of that file, as they were when first read.
    """

    function: types.FunctionType
    node: FunctionNode
    file: str
    lines: tuple[str, ...]

    def location(self, node: ast.AST | None = None) -> Location:
        """Where ``node`` (by default the whole function) stands in the user's file."""
        line = getattr(node if node is not None else self.node, "lineno", self.node.lineno)
        code = self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""
        return Location(self.file, line, code)

    def resolve(self, name: str) -> Any:
        """The object that a free ``name`` means inside the function.

        Raises:
            KeyError: The name is bound nowhere.
        """
        code = self.function.__code__
        if name in code.co_freevars and self.function.__closure__ is not None:
            cell = self.function.__closure__[code.co_freevars.index(name)]
            try:
                return cell.cell_contents
            except ValueError:
                raise KeyError(name) from None
        if name in self.function.__globals__:
            return self.function.__globals__[name]
        namespace = self.function.__globals__.get("__builtins__", {})
        if isinstance(namespace, types.ModuleType):
            namespace = vars(namespace)
        return namespace[name]


def class_location(source: FunctionSource) -> Location:
    """Where the class statement stands that a method belongs to."""
    found = _files.get(source.file)
    for node in ast.walk(found[1]) if found is not None else ():
        if isinstance(node, ast.ClassDef) and source.node in node.body:
            return source.location(node)
    return source.location()


_lock = threading.RLock()
# Code objects of two files are equal where text and line numbers are.
_by_code: weakref.WeakKeyDictionary[types.CodeType, dict[str, FunctionSource]] = (
    weakref.WeakKeyDictionary()
)
_files: dict[str, tuple[tuple[str, ...], ast.Module, types.CodeType]] = {}


def function_source(function: Any) -> FunctionSource:
    """Finds the definition of a Python function.

    The tree is kept by code object: a class that was read once keeps its own code even after its
    file was changed and reloaded.

    Raises:
        UnsupportedError: The source is not available, or is no longer the one that was compiled.
    """
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        function = inspect.unwrap(function)  # functools.lru_cache and the like
    code = function.__code__
    with _lock:
        by_file = _by_code.setdefault(code, {})
        if code.co_filename not in by_file:
            by_file[code.co_filename] = _find(function)
        found = by_file[code.co_filename]
    if found.function is function:
        return found
    return FunctionSource(function, found.node, found.file, found.lines)


def _find(function: types.FunctionType) -> FunctionSource:
    code = function.__code__
    location = Location(code.co_filename, code.co_firstlineno)
    name = function.__qualname__
    lines, tree, module_code = _read(function, location)
    candidates = [
        node for node in ast.walk(tree) if _starts_at(node, code.co_firstlineno, code.co_name)
    ]
    compiled = [
        other
        for other in _codes(module_code)
        if (other.co_name, other.co_firstlineno) == (code.co_name, code.co_firstlineno)
        and _agrees(code, other)
    ]
    if not candidates or not compiled:
        raise UnsupportedError(
            f"the source of '{name}' has changed since the function was defined",
            "reload the module (or rerun the cell), create the model anew and script it then",
            location,
        )
    if len(candidates) > 1:
        candidates = [c for c in candidates if _arguments(c) == _argument_names(code)]
    if len(candidates) > 1 and hasattr(code, "co_positions"):
        places = set(code.co_positions())
        candidates = [
            c for c in candidates if isinstance(c, ast.Lambda) and _place(c.body) in places
        ]
    elif len(candidates) > 1:  # Python 3.10
        equal = (c for c in candidates if isinstance(c, ast.Lambda) and _compiles_to(c, tree, code))
        candidates = list(itertools.islice(equal, 1))
    if len(candidates) != 1:
        raise UnsupportedError(
            f"several functions '{name}' stand on one line, and which one is meant is not clear",
            "put each on a line of its own, or give it a name with 'def'",
            location,
        )
    return FunctionSource(function, candidates[0], code.co_filename, lines)  # type: ignore[arg-type]


def _read(
    function: types.FunctionType, location: Location
) -> tuple[tuple[str, ...], ast.Module, types.CodeType]:
    file = location.file
    linecache.checkcache(file)
    lines = tuple(linecache.getlines(file, function.__globals__))
    if not lines:
        raise UnsupportedError(
            f"the source of '{function.__qualname__}' is not available",
            "define the class in a file or a notebook cell; for code run by exec, "
            "register its text in linecache.cache under the file name it was compiled with",
            location,
        )
    if file not in _files or _files[file][0] != lines:
        text = "".join(lines)
        try:
            tree = ast.parse(text)
        except SyntaxError:
            tree = ast.parse(textwrap.dedent(text))
        _files[file] = (lines, tree, compile(tree, file, "exec", dont_inherit=True))
    return _files[file]


def _starts_at(node: ast.AST, line: int, name: str) -> bool:
    if isinstance(node, ast.Lambda):
        return name == "<lambda>" and node.lineno == line
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
        return line in {node.lineno, *(decorator.lineno for decorator in node.decorator_list)}
    return False


def _place(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _compiles_to(node: ast.Lambda, tree: ast.Module, code: types.CodeType) -> bool:
    """Whether this one of several on a line is compiled to this code.

    Its own code is found by its line: it is compiled on another, behind all that are in the file.
    """
    alone = 1 + max(getattr(child, "end_lineno", 0) for child in ast.walk(tree))
    line, end = node.lineno, node.end_lineno
    node.lineno = node.end_lineno = alone
    try:
        module_code = compile(tree, code.co_filename, "exec", dont_inherit=True)
    finally:
        node.lineno, node.end_lineno = line, end
    return any(
        other.co_firstlineno == alone
        and (other.co_freevars, list(_codes(other))) == (code.co_freevars, list(_codes(code)))
        and _agrees(code, other)
        and other.co_code == code.co_code
        for other in _codes(module_code)
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _agrees(code: types.CodeType, fresh: types.CodeType) -> bool:
    names, constants = set(code.co_names), _constants(code)
    if (names, constants) == (set(fresh.co_names), _constants(fresh)):
        return code.co_code == fresh.co_code
    # Assertion rewriting and the like add names to the code that runs, hence "subset".
    return (
        _argument_names(code) == _argument_names(fresh)
        and set(fresh.co_names) <= names
        and _constants(fresh) <= constants
    )


def _constants(code: types.CodeType) -> set[tuple[str, str]]:
    return {
        (type(constant).__name__, _spelled(constant))
        for constant in code.co_consts
        if not isinstance(constant, types.CodeType) and constant is not None
    }


def _spelled(constant: Any) -> str:
    """A set is written in no certain order."""
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _argument_names(code: types.CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _arguments(node: Any) -> tuple[str, ...]:
    args = node.args
    return tuple(arg.arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs])


def collecting_names(function: Any) -> list[str]:
    """The names of ``*args`` and ``**kwargs`` in the signature of a function."""
    code = function.__code__
    first = code.co_argcount + code.co_kwonlyargcount
    flags = (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS)
    count = sum(bool(code.co_flags & flag) for flag in flags)
    return list(code.co_varnames[first : first + count])

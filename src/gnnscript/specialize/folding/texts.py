"""Texts with values in them: f-strings, ``format`` and ``%``, written as f-strings."""

from __future__ import annotations

import ast
import re
import string
from typing import Any

from gnnscript._errors import UnsupportedError
from gnnscript.analyze.types import FLOAT, INT, STR, TENSOR
from gnnscript.specialize.folding.base import Arguments, Folded, Folding
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.formatting import Format
from gnnscript.specialize.values import Const, Dyn, ModuleRef, Value, literal, static_type

_PERCENT = re.compile(r"%(?P<left>-)?(?P<spec>\+?0?\d*(?:\.\d+)?)(?P<kind>[dfs%])")


class Texts(Folding):
    """The part of a frame that puts values into texts."""

    def fold_JoinedStr(self, node: ast.JoinedStr) -> Folded:
        parts: list[ast.expr] = []
        text: str | None = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(part)
                text = None if text is None else text + str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            value, residual = self.fold(part.value)
            spec = self._spec(part)
            if isinstance(value, (Const, ModuleRef)):
                shown = value.module if isinstance(value, ModuleRef) else value.value
                convert: Any = {115: str, 114: repr, 97: ascii}.get(part.conversion)
                shown = shown if convert is None else convert(shown)
                piece = self.compute(part, format, shown, spec)
                parts.append(ast.Constant(piece))
                text = None if text is None else text + piece
                continue
            text = None
            if spec and part.conversion == ord("s") and static_type(value) == INT:
                shown = ast.Call(ast.Name("str", ast.Load()), [self.needed(value, residual)], [])
                value, residual = Dyn(STR), shown
            if spec:
                value, residual = self._formatted(value, self.needed(value, residual), spec)
            parts.append(ast.FormattedValue(self.needed(value, residual), -1, None))
        if text is not None:
            return Const(text), None
        return Dyn(STR), ast.JoinedStr(parts)

    def _spec(self, part: ast.FormattedValue) -> str:
        if part.format_spec is None:
            return ""
        spec, _ = self.fold(part.format_spec)
        if not isinstance(spec, Const):
            raise UnsupportedError(
                "how a value is formatted is known only at run time", "use a constant format"
            )
        return str(spec.value)

    def _formatted(self, value: Value, node: ast.expr, spec: str) -> Folded:
        """A value of run time in a format."""
        t = static_type(value)
        if t == TENSOR:  # of one element; of which type, only the format says
            t = INT if spec.endswith("d") else FLOAT
            node = ast.Call(ast.Name(t.name, ast.Load()), [node], [])
        known = Format.parse(spec, integer=t == INT, text=t == STR)
        if known is None or t not in (INT, FLOAT, STR):
            raise UnsupportedError(
                f"the format '{spec}' of a '{t}' has no TorchScript form",
                "format numbers by 'd', 'f' or '%', and texts by their width",
            )
        writer, options = known.writer
        if known.kind in ("f", "%") and t == INT:
            t, node = FLOAT, ast.Call(ast.Name("float", ast.Load()), [node], [])
        rest: list[Folded] = [(Const(option), literal(Const(option))) for option in options]
        return self.call_function(writer, Arguments([(Dyn(t), node), *rest], {}), None)

    def formatted_text(self, text: str, node: ast.Call) -> ast.JoinedStr | None:
        """``text.format(...)`` as an f-string; ``None`` where its fields are no plain ones."""
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        parts: list[ast.expr] = []
        count = 0
        if any(isinstance(arg, ast.Starred) for arg in node.args) or None in named:
            return None
        for before, field, spec, conversion in string.Formatter().parse(text):
            parts += [ast.Constant(before)] if before else []
            if field is None:
                continue
            place, count = (field, count) if field else (str(count), count + 1)
            given = named.get(place)
            if place.isdigit() and int(place) < len(node.args):
                given = node.args[int(place)]
            if given is None or "{" in (spec or ""):
                return None
            shown = ast.JoinedStr([ast.Constant(spec)]) if spec else None
            parts.append(ast.FormattedValue(given, ord(conversion) if conversion else -1, shown))
        return located(ast.JoinedStr(parts), node)

    def percent_text(self, node: ast.BinOp) -> ast.JoinedStr | None:
        """``text % values`` as an f-string; ``None`` where it is no text, or no plain one."""
        text = node.left.value if isinstance(node.left, ast.Constant) else None
        if not isinstance(node.op, ast.Mod) or not isinstance(text, str):
            return None
        values = list(node.right.elts) if isinstance(node.right, ast.Tuple) else [node.right]
        if any(isinstance(value, (ast.Starred, ast.Dict)) for value in values):
            return None
        parts: list[ast.expr] = []
        plain = _PERCENT.split(text)[:: _PERCENT.groups + 1]
        found = list(_PERCENT.finditer(text))
        if any("%" in piece for piece in plain) or not any(
            f["spec"] or f["kind"] == "f" for f in found
        ):
            return None  # TorchScript has those without widths and digits
        for piece, field in zip(plain, [*found, None], strict=True):
            parts.append(ast.Constant(piece))
            if field is not None and field["kind"] == "%":
                parts.append(ast.Constant("%"))
            elif field is not None:
                if not values:
                    return None
                align = "<" if field["left"] else ">" if field["kind"] == "s" else ""
                spec = field["spec"] and align + field["spec"]
                spec += "" if field["kind"] == "s" else field["kind"]
                shown = ast.JoinedStr([ast.Constant(spec)]) if spec else None
                parts.append(ast.FormattedValue(values.pop(0), -1, shown))
        if values:
            return None
        return located(ast.JoinedStr(parts), node)

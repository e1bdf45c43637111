"""``match``: written out as the tests that it makes."""

from __future__ import annotations

import ast

from gnnscript._errors import UnsupportedError
from gnnscript.specialize.folding.base import Folding
from gnnscript.specialize.folding.rewritten import located
from gnnscript.specialize.tree import clone


class Matching(Folding):
    """The part of a frame that folds ``match``."""

    def _stmt_Match(self, node: ast.Match) -> None:
        subject = node.subject
        if not isinstance(subject, (ast.Name, ast.Attribute)):
            name = self.fresh("subject")
            self._written(node, ast.Assign([ast.Name(name, ast.Store())], subject))
            subject = ast.Name(name, ast.Load())
        written: list[ast.stmt] = []
        for case in reversed(node.cases):
            names: list[ast.stmt] = []
            tests = _tests(self._named(case.pattern), subject, names)
            if case.guard is not None:
                # What the case names is a path from its subject: the guard reads that itself.
                paths = {n.targets[0].id: n.value for n in names}  # type: ignore[attr-defined]
                tests.append(clone(case.guard, paths))
            body = names + case.body
            if not tests:
                written = body
                continue
            written = [ast.If(_all(tests), body, written)]
        for statement in written:
            self._written(node, statement)

    def _named(self, pattern: ast.pattern) -> ast.pattern:
        """A pattern whose classes name their parts: ``Point(0, y)`` as ``Point(x=0, y=y)``."""
        named: ast.pattern = clone(pattern)
        for node in ast.walk(named):
            if not isinstance(node, ast.MatchClass) or not node.patterns:
                continue
            cls, _ = self.fold(node.cls)
            order = getattr(getattr(cls, "value", None), "__match_args__", ())
            if len(order) >= len(node.patterns):
                node.kwd_attrs = [*order[: len(node.patterns)], *node.kwd_attrs]
                node.kwd_patterns = [*node.patterns, *node.kwd_patterns]
                node.patterns = []
        return named

    def _written(self, node: ast.Match, statement: ast.stmt) -> None:
        """Folds a statement that stands for a part of ``node``."""
        self.block([located(statement, node)])


def _tests(pattern: ast.pattern, subject: ast.expr, names: list[ast.stmt]) -> list[ast.expr]:
    """What has to hold for a pattern to match; the names it gives are put into ``names``."""
    match pattern:
        case ast.MatchValue(value=value):
            return [ast.Compare(subject, [ast.Eq()], [value])]
        case ast.MatchSingleton(value=value):
            return [ast.Compare(subject, [ast.Is()], [ast.Constant(value)])]
        case ast.MatchAs(pattern=inner, name=name):
            tests = _tests(inner, subject, names) if inner is not None else []
            if name is not None:
                names.append(ast.Assign([ast.Name(name, ast.Store())], subject))
            return tests
        case ast.MatchOr(patterns=patterns):
            each = [_tests(inner, subject, names) for inner in patterns]
            if not all(each):
                return []
            return [ast.BoolOp(ast.Or(), [_all(tests) for tests in each])]
        case ast.MatchClass(cls=cls, patterns=[whole], kwd_attrs=[]):  # ``float(scale)``
            return [_is_a(subject, cls), *_tests(whole, subject, names)]
        case ast.MatchClass(cls=cls, patterns=[], kwd_attrs=attributes, kwd_patterns=patterns):
            tests = [_is_a(subject, cls)]
            for attribute, inner in zip(attributes, patterns, strict=True):
                tests += _tests(inner, ast.Attribute(subject, attribute, ast.Load()), names)
            return tests
        case ast.MatchSequence(patterns=patterns):
            return _sequence_tests(patterns, subject, names)
        case ast.MatchMapping(keys=keys, patterns=patterns, rest=rest):
            tests = [_is_a(subject, ast.Name("dict", ast.Load()))]
            tests += [ast.Compare(key, [ast.In()], [subject]) for key in keys]
            for key, inner in zip(keys, patterns, strict=True):
                tests += _tests(inner, ast.Subscript(subject, key, ast.Load()), names)
            if rest is not None:
                names.append(ast.Assign([ast.Name(rest, ast.Store())], _without(subject, keys)))
            return tests
    raise UnsupportedError(
        f"the pattern '{ast.unparse(pattern)}' has no TorchScript form",
        "use values, names, classes, dictionaries and sequences, or 'if'",
    )


def _sequence_tests(
    patterns: list[ast.pattern], subject: ast.expr, names: list[ast.stmt]
) -> list[ast.expr]:
    """``[a, b]``, or ``[a, *rest, b]``."""
    starred = [n for n, inner in enumerate(patterns) if isinstance(inner, ast.MatchStar)]
    length = ast.Call(ast.Name("len", ast.Load()), [subject], [])
    enough: ast.cmpop = ast.GtE() if starred else ast.Eq()
    tests: list[ast.expr] = [
        _is_a(subject, ast.Tuple([ast.Name(n, ast.Load()) for n in ("tuple", "list")], ast.Load())),
        ast.Compare(length, [enough], [ast.Constant(len(patterns) - len(starred))]),
    ]
    for number, inner in enumerate(patterns):
        behind = number - len(patterns)  # counted from the end behind a star
        if isinstance(inner, ast.MatchStar):
            stop = ast.Constant(behind + 1) if behind < -1 else None
            part = ast.Subscript(subject, ast.Slice(ast.Constant(number), stop), ast.Load())
            if inner.name is not None:
                rest = ast.Call(ast.Name("list", ast.Load()), [part], [])
                names.append(ast.Assign([ast.Name(inner.name, ast.Store())], rest))
            continue
        at = behind if starred and number > starred[0] else number
        tests += _tests(inner, ast.Subscript(subject, ast.Constant(at), ast.Load()), names)
    return tests


def _without(subject: ast.expr, keys: list[ast.expr]) -> ast.expr:
    """``{key: value for key, value in subject.items() if key not in keys}``."""
    pair = ast.Tuple([ast.Name("key", ast.Store()), ast.Name("value", ast.Store())], ast.Store())
    key, value = ast.Name("key", ast.Load()), ast.Name("value", ast.Load())
    items = ast.Call(ast.Attribute(subject, "items", ast.Load()), [], [])
    left = ast.Compare(key, [ast.NotIn()], [ast.Tuple(keys, ast.Load())])
    return ast.DictComp(key, value, [ast.comprehension(pair, items, [left], 0)])


def _is_a(subject: ast.expr, cls: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("isinstance", ast.Load()), [subject, cls], [])


def _all(tests: list[ast.expr]) -> ast.expr:
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)

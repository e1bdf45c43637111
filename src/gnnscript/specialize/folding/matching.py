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
            tests = _tests(case.pattern, subject, names)
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
        case ast.MatchClass(cls=cls, patterns=[], kwd_attrs=attributes, kwd_patterns=patterns):
            tests = [ast.Call(ast.Name("isinstance", ast.Load()), [subject, cls], [])]
            for attribute, inner in zip(attributes, patterns, strict=True):
                tests += _tests(inner, ast.Attribute(subject, attribute, ast.Load()), names)
            return tests
        case ast.MatchSequence(patterns=patterns) if not any(
            isinstance(inner, ast.MatchStar) for inner in patterns
        ):
            length = ast.Call(ast.Name("len", ast.Load()), [subject], [])
            tests = [ast.Compare(length, [ast.Eq()], [ast.Constant(len(patterns))])]
            for number, inner in enumerate(patterns):
                part = ast.Subscript(subject, ast.Constant(number), ast.Load())
                tests += _tests(inner, part, names)
            return tests
    raise UnsupportedError(
        f"the pattern '{ast.unparse(pattern)}' has no TorchScript form",
        "use values, names, classes and sequences of fixed length, or 'if'",
    )


def _all(tests: list[ast.expr]) -> ast.expr:
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)

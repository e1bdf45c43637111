"""Work that several layers do on the same tensors, done once in a call of ``forward``.

Layers add self-loops to the edges that they are given, count degrees and normalise weights, each
for itself. To TorchScript that is different work: the number of nodes is the size of another tensor
in each layer. Here it is found by what it is: statements that do nothing but compute from some
tensors, of which other calls compute the same, and from numbers. Such code first asks for what
equal code has made of the same tensors and numbers since ``forward`` began.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Hashable

from gnnscript.analyze.types import BOOL, DTYPE, INT, TENSOR, optional
from gnnscript.passes.pure_work import PureWork
from gnnscript.passes.uses import arguments, callee, is_view
from gnnscript.specialize.helpers import Import, import_reference
from gnnscript.specialize.program import Program, Specialized
from gnnscript.specialize.tree import free_name, names_read
from gnnscript.specialize.values import static_type

__all__ = ["share_repeats"]

_MOST = 4  # tensors that are read, and that are kept
# By these, code decides what other code computes: its types, by autocast, or its gradients. Or it
# writes to tensors so that they do not count it.
_CONTEXT = frozenset({"autocast", "data", "requires_grad_"})
_GRADIENTS = frozenset({"enable_grad", "inference_mode", "no_grad", "set_grad_enabled"})
# Variables, and where their values come from: equal for values that are known to be equal.
Origins = dict[str, Hashable]


def share_repeats(program: Program, *, exported: bool = False) -> bool:
    """Has equal work on the same tensors be done once in a call of the root's ``forward``.

    Args:
        program: The model.
        exported: Whether its code is for a trace, which does not say whether gradients are on.

    Returns:
        Whether there is any.
    """
    owner = program.owners.get(id(program.root.module))
    context = _CONTEXT | _GRADIENTS if exported else _CONTEXT
    if owner is None or any(context & _attributes(f.node) for f in program.functions()):
        return False
    finder = _Finder()
    entries = [method for method in owner.methods if method.name == "forward"]
    for entry in entries:
        finder.follow(entry)
    found = False
    seen: set[int] = set()
    while entries:
        function = entries.pop()
        if id(function) not in seen:
            seen.add(id(function))
            rewriter = _Rewriter(finder, function)
            rewriter.rewrite()
            found |= rewriter.found
            entries += rewriter.called  # but what is done once as a whole is left as it is
    return found


def _attributes(node: ast.AST) -> set[str]:
    return {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


class _Finder:
    """Finds the statements that the calls of a model run several times on the same tensors."""

    def __init__(self) -> None:
        self.work = PureWork()
        self._ids: dict[Hashable, int] = {}
        self._statements: dict[int, set[int]] = {}
        self._counts: Counter[int] = Counter()
        self._visits: Counter[Hashable] = Counter()

    def follow(self, entry: Specialized) -> None:
        """Follows the calls from an entry point on."""
        self._visit(entry, {a.arg: object() for a in entry.node.args.args})

    def is_repeated(self, statement: ast.stmt) -> bool:
        """Whether a statement runs several times on the same tensors."""
        return any(self._counts[key] > 1 for key in self._statements.get(id(statement), ()))

    def _visit(self, function: Specialized, origins: Origins) -> None:
        call = (id(function), tuple(origins.items()))
        self._visits[call] += 1
        if self._visits[call] <= 2:
            self._block(function, function.node.body, origins)

    def _block(self, function: Specialized, body: list[ast.stmt], origins: Origins) -> None:
        for statement in body:
            if self.work.is_pure(function, statement):
                self._pure(function, statement, origins)
                continue
            if isinstance(statement, (ast.If, ast.While)):
                self._calls(statement.test, origins)
            elif isinstance(statement, ast.For):
                self._calls(statement.iter, origins)
            if isinstance(statement, ast.If):
                for branch in (statement.body, statement.orelse):
                    self._block(function, branch, dict(origins))
            elif isinstance(statement, (ast.For, ast.While)):
                for _ in range(2):
                    _forget(statement, origins)
                    self._block(function, statement.body, origins)
            elif isinstance(statement, ast.With):
                self._block(function, statement.body, origins)
            else:
                self._calls(statement, origins)
            _forget(statement, origins)

    def _pure(self, function: Specialized, statement: ast.stmt, origins: Origins) -> None:
        reads = self.work.reads(function, [statement])
        given = tuple(self._origin(name, origins) for name in sorted(reads.tensors))
        key = self._ids.setdefault((self.work.text([statement]), given), len(self._ids))
        self._counts[key] += 1
        self._statements.setdefault(id(statement), set()).add(key)
        self._calls(statement, origins)
        origins.update((name, (key, name)) for name in reads.assigned)

    def _calls(self, node: ast.AST, origins: Origins) -> None:
        for call in ast.walk(node):
            target = callee(call) if isinstance(call, ast.Call) else None
            if isinstance(call, ast.Call) and target is not None:
                given = {n: self._value(v, origins) for n, v in arguments(call, target)}
                self._visit(target, given)

    def _value(self, node: ast.expr, origins: Origins) -> Hashable:
        if isinstance(node, ast.Name) and not hasattr(node, "target_"):
            return self._origin(node.id, origins)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return (self._value(node.value, origins), node.slice.value)
        return object()

    @staticmethod
    def _origin(name: str, origins: Origins) -> Hashable:
        return origins.setdefault(name, object())


def _forget(statement: ast.stmt, origins: Origins) -> None:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            origins[node.id] = object()


class _Rewriter:
    """Has the repeated statements of one function ask for what others have made."""

    def __init__(self, finder: _Finder, function: Specialized) -> None:
        self.finder = finder
        self.work = finder.work
        self.function = function
        node = function.node
        self.reads = names_read(node)
        self.taken = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        self.taken |= {a.arg for a in node.args.args}
        self.found = False
        self.called: list[Specialized] = []

    def rewrite(self) -> None:
        """Rewrites the function."""
        self.function.node.body = self._block(self.function.node.body, [], loop=False)

    def _block(self, body: list[ast.stmt], after: list[ast.stmt], *, loop: bool) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        at = 0
        while at < len(body):
            run = self._run(body, at, after, loop=loop)
            if run is not None:
                statements, at = run
                done += statements
                continue
            statement, rest = body[at], body[at + 1 :] + after
            self._note_calls(statement)
            if isinstance(statement, ast.If):
                branches = [
                    self._block(branch, rest, loop=loop)
                    for branch in (statement.body, statement.orelse)
                ]
                statement.body, statement.orelse = branches
            elif isinstance(statement, (ast.For, ast.While)):
                statement.body = self._block(statement.body, [statement, *rest], loop=True)
            done.append(statement)
            at += 1
        return done

    def _note_calls(self, statement: ast.stmt) -> None:
        """Notes which functions are called outside of what is done once."""
        inner = {
            id(n)
            for block in ("body", "orelse")
            if not isinstance(statement, ast.With)
            for s in getattr(statement, block, [])
            for n in ast.walk(s)
        }
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and id(node) not in inner:
                target = callee(node)
                if target is not None:
                    self.called.append(target)

    def _run(
        self, body: list[ast.stmt], at: int, after: list[ast.stmt], *, loop: bool
    ) -> tuple[list[ast.stmt], int] | None:
        """Statements from ``at`` on that are done together, and where they end."""
        run: list[int] = []
        numbers: list[int] = []  # statements between them that compute numbers, moved ahead
        for place in range(at, len(body)):
            if self._is_number(body, run, place):
                if not run:
                    return None
                numbers.append(place)
            elif self.finder.is_repeated(body[place]):
                run.append(place)
            else:
                break
        while run:
            end = run[-1] + 1
            statements = [body[place] for place in run]
            ahead = [body[place] for place in numbers if place < end]
            done = self._done_once(statements, body[end:] + after, loop=loop)
            if done is not None:
                self.found = True
                return [*ahead, *done], end
            run.pop()
        return None

    def _is_number(self, body: list[ast.stmt], run: list[int], place: int) -> bool:
        """Whether a statement computes numbers of what is known before the others of a run."""
        if not self.work.is_pure(self.function, body[place]):
            return False
        reads = self.work.reads(self.function, [body[place]])
        bound = reads.assigned
        if reads.tensors or not bound or not all(self._is(n, INT, BOOL, DTYPE) for n in bound):
            return False
        others = [body[earlier] for earlier in run]
        theirs = self.work.reads(self.function, others)
        names = theirs.assigned
        read = set(names_read(ast.Module(others, [])))
        return not names & set(names_read(body[place])) and not bound & (names | read)

    def _is(self, name: str, *types: object) -> bool:
        return self.function.types.get(name) in types

    def _done_once(
        self, run: list[ast.stmt], after: list[ast.stmt], *, loop: bool
    ) -> list[ast.stmt] | None:
        reads = self.work.reads(self.function, run)
        if not reads.fits or not 0 < len(reads.tensors) <= _MOST:
            return None
        if not any(map(self._is_costly, run)):
            return None
        bound = reads.assigned
        own = names_read(ast.Module(run, []))
        results = {name for name in bound if self.reads.get(name, 0) > own.get(name, 0)}
        if loop:
            results |= bound & reads.tensors
        if not 0 < len(results) <= _MOST or results & reads.perhaps:
            return None
        if not all(self._is(n, TENSOR) or self._is_present(run, n) for n in results):
            return None
        uses = self.work.uses
        given = uses.of_names(self.function, run, reads.tensors)
        made = uses.of_names(self.function, after, results)
        if given.changed or given.stored or made.changed or made.stored or made.returned:
            return None
        return self._written(run, sorted(reads.tensors), reads.numbers, sorted(results))

    def _is_present(self, run: list[ast.stmt], name: str) -> bool:
        """Whether a variable that may hold no tensor holds one behind a run."""
        if not self._is(name, optional(TENSOR)):
            return False
        last = next(
            s for s in reversed(run) if name in self.work.reads(self.function, [s]).assigned
        )
        if not isinstance(last, ast.Assign):
            return False
        target, value = last.targets[0], last.value
        called = callee(value) if isinstance(value, ast.Call) else None
        if called is None:
            return isinstance(target, ast.Name) and isinstance(value, ast.BinOp)
        found = static_type(called.value)
        if isinstance(target, ast.Tuple) and found.name == "Tuple":
            names = [getattr(part, "id", None) for part in target.elts]
            return len(names) == len(found.args) and found.args[names.index(name)] == TENSOR
        return isinstance(target, ast.Name) and found == TENSOR

    def _is_costly(self, statement: ast.stmt) -> bool:
        """Whether a statement does more than look at tensors in other ways."""
        for node in ast.walk(statement):
            if isinstance(node, (ast.BinOp, ast.Compare)):
                names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
                stores = [n.id for n in names if isinstance(n.ctx, ast.Store)]
                if any(self._is(name, TENSOR) for name in stores):
                    return True
            if not isinstance(node, ast.Call):
                continue
            target = getattr(node.func, "target_", None)
            if callee(node) is not None or isinstance(target, Import):
                return True
            if isinstance(node.func, ast.Attribute) and not is_view(node.func.attr):
                if node.func.attr not in ("size", "dim", "numel"):
                    return True
        return False

    def _written(
        self,
        run: list[ast.stmt],
        given: list[str],
        numbers: dict[str, ast.expr],
        results: list[str],
    ) -> list[ast.stmt]:
        text = "\n".join([self.work.text(run), *given, *numbers, *results])
        key = ast.Constant(hashlib.sha256(text.encode()).hexdigest()[:16])
        statements: list[ast.stmt] = []

        def hold(wish: str, value: ast.expr) -> ast.expr:
            name = free_name(wish, self.taken)
            statements.append(_assign(name, value))
            return ast.Name(name, ast.Load())

        bound = set().union(*(self.work.reads(self.function, [s]).assigned for s in run))
        tensors: list[ast.expr] = [ast.Name(name, ast.Load()) for name in given]
        for at, name in enumerate(given):
            if name in bound:  # what it holds before
                tensors[at] = hold(f"given_{name}", tensors[at])
        sizes: ast.expr = ast.List([*numbers.values()], ast.Load())
        if numbers:
            sizes = hold("sizes", sizes)
        found = import_reference("gnnscript.ops.known", "find_known", "find_known")
        known = hold("known", ast.Call(found, [key, sizes, *tensors], []))
        take = [
            _assign(name, ast.Subscript(known, ast.Constant(at), ast.Load()))
            for at, name in enumerate(results)
        ]
        keep = import_reference("gnnscript.ops.known", "keep_known", "keep_known")
        made = ast.List([ast.Name(name, ast.Load()) for name in results], ast.Load())
        kept = ast.Expr(ast.Call(keep, [key, sizes, made, *tensors], []))
        count = ast.Call(ast.Name("len", ast.Load()), [known], [])
        test = ast.Compare(count, [ast.Gt()], [ast.Constant(0)])
        return [*statements, ast.If(test, take, [*run, kept])]


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)

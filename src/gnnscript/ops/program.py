"""Edge programs as expressions: read, differentiated and written again.

An edge program is the text of an expression over one edge (``docs/ops.md`` has the grammar: it is
a part of Python's). The kernels compile the text; this module finds the programs of its gradients,
by reverse differentiation of the expression, in which equal subexpressions are one node.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Expressions", "Leaf", "Node", "postorder", "sides"]

_OPERANDS = 64  # as the library has it
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_UNARY_FUNCTIONS = (
    "relu",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "abs",
    "sign",
    "square",
    "reciprocal",
    "sigmoid",
    "tanh",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "erf",
    "sin",
    "cos",
    "rounded",
)
_LITERAL_FUNCTIONS = ("leaky_relu", "elu", "pow", "clamp_min", "clamp_max")
_ARGUMENTS = {
    **dict.fromkeys(_UNARY_FUNCTIONS + _LITERAL_FUNCTIONS, 1),
    "maximum": 2,
    "minimum": 2,
    "where": 3,
}


@dataclass(frozen=True)
class Leaf:
    """An operand.

    Args:
        side: ``i``, ``j``, ``e`` or ``s``.
        position: Its place among the operands.
    """

    side: str
    position: int

    def __str__(self) -> str:
        return f"{self.side}{self.position}"


@dataclass(frozen=True, eq=False)
class Node:
    """An operation, a leaf or a number; equal ones are one object.

    Args:
        op: An operator, the name of a function, ``leaf`` or ``number``.
        args: What it is applied to.
        value: The number, or the number that a function such as `pow` takes.
        leaf: The operand of a leaf.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0
    leaf: Leaf | None = None


class Expressions:
    """Nodes, made by the methods, which simplify what they can."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Node] = {}

    # -- making nodes -----------------------------------------------------------------------------

    def _node(
        self, op: str, args: tuple[Node, ...] = (), value: float = 0.0, leaf: Leaf | None = None
    ) -> Node:
        key = (op, tuple(map(id, args)), repr(value), leaf)
        return self._known.setdefault(key, Node(op, args, value, leaf))

    def number(self, value: float) -> Node:
        """Make a number."""
        return self._node("number", value=float(value))

    def leaf(self, side: str, position: int) -> Node:
        """Make an operand."""
        return self._node("leaf", leaf=Leaf(side, position))

    def add(self, a: Node, b: Node) -> Node:
        """Make a sum."""
        if _is(a, 0.0):
            return b
        if _is(b, 0.0):
            return a
        if a.op == b.op == "number":
            return self.number(a.value + b.value)
        if b.op == "negate":
            return self.subtract(a, b.args[0])
        return self._node("+", (a, b))

    def subtract(self, a: Node, b: Node) -> Node:
        """Make a difference."""
        if _is(b, 0.0):
            return a
        if _is(a, 0.0):
            return self.negate(b)
        if a.op == b.op == "number":
            return self.number(a.value - b.value)
        return self._node("-", (a, b))

    def multiply(self, a: Node, b: Node) -> Node:
        """Make a product."""
        if _is(a, 0.0) or _is(b, 0.0):
            return self.number(0.0)
        if _is(a, 1.0):
            return b
        if _is(b, 1.0):
            return a
        if _is(a, -1.0):
            return self.negate(b)
        if _is(b, -1.0):
            return self.negate(a)
        if a.op == b.op == "number":
            return self.number(a.value * b.value)
        if a.op == "negate":
            return self.negate(self.multiply(a.args[0], b))
        if b.op == "negate":
            return self.negate(self.multiply(a, b.args[0]))
        return self._node("*", (a, b))

    def divide(self, a: Node, b: Node) -> Node:
        """Make a quotient."""
        if _is(b, 1.0) or _is(a, 0.0):
            return a
        return self._node("/", (a, b))

    def negate(self, a: Node) -> Node:
        """Make a negation."""
        if a.op == "number":
            return self.number(-a.value)
        if a.op == "negate":
            return a.args[0]
        return self._node("negate", (a,))

    def where(self, condition: Node, a: Node, b: Node) -> Node:
        """Make a choice: `a` where the condition is not 0."""
        return a if a is b else self._node("where", (condition, a, b))

    def call(self, name: str, *args: Node, value: float = 0.0) -> Node:
        """Make a call of a function, or a comparison."""
        return self._node(name, args, value)

    # -- reading ----------------------------------------------------------------------------------

    def parse(self, program: str) -> Node:
        """Read a program.

        Raises:
            ValueError: If the text is no program.
        """
        try:
            body = ast.parse(program.strip()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"edge program '{program}': {error}") from None
        try:
            return self._read_all(body, program)
        except RecursionError:
            raise ValueError(f"edge program '{program}': expected a shorter one") from None

    def _read_all(self, body: list[ast.stmt], program: str) -> Node:
        bound: dict[str, Node] = {}
        for statement in body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if (
                    statement is not body[-1]
                ):
                    bound[name] = self._read(value, bound, program)
                case ast.Expr(value=value) if statement is body[-1]:
                    return self._read(value, bound, program)
                case _:
                    break
        raise ValueError(f"edge program '{program}': expected bindings and one expression")

    def _read(self, tree: ast.expr, bound: Mapping[str, Node], program: str) -> Node:
        match tree:
            case ast.Constant(value=int() | float() as value):
                return self.number(float(value))
            case ast.Name(id=name):
                return self._read_name(name, bound, program)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._read(operand, bound, program)
                return self.negate(inner) if inner.op == "number" else self.call("negate", inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                a, b = self._read(left, bound, program), self._read(right, bound, program)
                return self.call(_BINARY[type(op)], a, b)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                a, b = self._read(left, bound, program), self._read(right, bound, program)
                return self.call(_COMPARISONS[type(op)], a, b)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._read_call(name, arguments, bound, program)
        raise ValueError(f"edge program '{program}': cannot read '{ast.unparse(tree)}'")

    def _read_name(self, name: str, bound: Mapping[str, Node], program: str) -> Node:
        if name in bound:
            return bound[name]
        if name in ("inf", "nan"):
            return self.number(float(name))
        if name[0] in "ijes" and name[1:].isdecimal() and int(name[1:]) < _OPERANDS:
            return self.leaf(name[0], int(name[1:]))
        raise ValueError(
            f"edge program '{program}': expected an operand below {_OPERANDS}, got '{name}'"
        )

    def _read_call(
        self, name: str, arguments: list[ast.expr], bound: Mapping[str, Node], program: str
    ) -> Node:
        expected = _ARGUMENTS.get(name, -1) + (name in _LITERAL_FUNCTIONS)
        if expected != len(arguments) or name not in _ARGUMENTS:
            raise ValueError(
                f"edge program '{program}': expected a function with its arguments, "
                f"got {name} of {len(arguments)}"
            )
        args = [self._read(argument, bound, program) for argument in arguments]
        if name not in _LITERAL_FUNCTIONS:
            return self.call(name, *args)
        if args[1].op != "number":
            raise ValueError(
                f"edge program '{program}': expected a number as {name}'s second argument"
            )
        return self.call(name, args[0], value=args[1].value)

    # -- differentiating --------------------------------------------------------------------------

    def gradients(self, root: Node, upstream: Node) -> dict[Leaf, Node]:
        """Differentiate.

        Args:
            root: An expression.
            upstream: The gradient of its value.

        Returns:
            The gradient of each operand of the expression, where it is not 0 by its form.
        """
        flowing: dict[Node, Node] = {root: upstream}
        found: dict[Leaf, Node] = {}
        for node in reversed(list(postorder(root))):
            grad = flowing.get(node)
            if grad is None or _is(grad, 0.0):
                continue
            if node.leaf is not None:
                found[node.leaf] = grad
            for arg, part in zip(node.args, self._flow(node, grad), strict=True):
                if part is not None and not _is(part, 0.0):
                    before = flowing.get(arg)
                    flowing[arg] = part if before is None else self.add(before, part)
        return found

    def _flow(self, node: Node, grad: Node) -> Sequence[Node | None]:
        """Return what flows back to each argument; None stands for 0."""
        number, multiply, call = self.number, self.multiply, self.call
        zero = number(0.0)
        match node.op, node.args:
            case "+", _:
                return grad, grad
            case "-", _:
                return grad, self.negate(grad)
            case "*", (a, b):
                return multiply(grad, b), multiply(grad, a)
            case "/", (_, b):
                quotient = self.divide(grad, b)
                return quotient, self.negate(multiply(quotient, node))
            case "negate", _:
                return (self.negate(grad),)
            case "where", (condition, _, _):
                return None, self.where(condition, grad, zero), self.where(condition, zero, grad)
            case (("maximum" | "minimum"), (a, b)):
                half = multiply(number(0.5), grad)
                order = ">" if node.op == "maximum" else "<"
                tied = call("==", a, b)
                return (
                    self.where(tied, half, self.where(call(order, a, b), grad, zero)),
                    self.where(tied, half, self.where(call(order, b, a), grad, zero)),
                )
            case "relu", (x,):
                return (self.where(call(">", x, zero), grad, zero),)
            case "leaky_relu", (x,):
                sloped = multiply(number(node.value), grad)
                return (self.where(call(">", x, zero), grad, sloped),)
            case "elu", (x,):
                sloped = multiply(grad, multiply(number(node.value), call("exp", x)))
                rest = grad  # as torch has it, the slope at 0 does not change
                if node.value != 1:
                    at_zero = multiply(number(node.value), grad)
                    rest = self.where(call(">", x, zero), grad, at_zero)
                return (self.where(call(">=", x, zero), rest, sloped),)
            case "clamp_min", (x,):
                return (self.where(call(">=", x, number(node.value)), grad, zero),)
            case "clamp_max", (x,):
                return (self.where(call("<=", x, number(node.value)), grad, zero),)
            case (("sign" | "rounded" | "==" | "!=" | "<" | "<=" | ">" | ">="), args):
                return (None,) * len(args)
            case (("leaf" | "number"), _):
                return ()
        (x,) = node.args
        if node.op == "log":
            return (self.divide(grad, x),)
        return (multiply(grad, self._slope(node, x)),)

    def _slope(self, node: Node, x: Node) -> Node:
        """Return the derivative of a function of one argument."""
        number, multiply, call = self.number, self.multiply, self.call
        one = number(1.0)
        match node.op:
            case "exp":
                return node
            case "sqrt":
                return self.divide(number(0.5), node)
            case "rsqrt":
                return multiply(number(-0.5), call("pow", node, value=3.0))
            case "abs":
                return call("sign", x)
            case "square":
                return multiply(number(2.0), x)
            case "reciprocal":
                return self.negate(call("square", node))
            case "sigmoid":
                return multiply(node, self.subtract(one, node))
            case "tanh":
                return self.subtract(one, call("square", node))
            case "softplus":
                return call("sigmoid", x)
            case "silu":
                s = call("sigmoid", x)
                return multiply(s, self.add(one, multiply(x, self.subtract(one, s))))
            case "gelu":
                cumulative = multiply(
                    number(0.5),
                    self.add(one, call("erf", multiply(number(math.sqrt(0.5)), x))),
                )
                density = call("exp", multiply(number(-0.5), call("square", x)))
                scale = number(1 / math.sqrt(2 * math.pi))
                return self.add(cumulative, multiply(x, multiply(scale, density)))
            case "gelu_tanh":
                scale, cubic = number(math.sqrt(2 / math.pi)), number(0.044715)
                square = call("square", x)
                inner = multiply(multiply(scale, x), self.add(one, multiply(cubic, square)))
                t = call("tanh", inner)
                slope = multiply(scale, self.add(one, multiply(number(3 * 0.044715), square)))
                tail = multiply(multiply(x, slope), self.subtract(one, call("square", t)))
                return multiply(number(0.5), self.add(self.add(one, t), tail))
            case "erf":
                scale = number(2 / math.sqrt(math.pi))
                return multiply(scale, call("exp", self.negate(call("square", x))))
            case "sin":
                return call("cos", x)
            case "cos":
                return self.negate(call("sin", x))
            case "pow":
                if node.value == 0.0:
                    return number(0.0)
                lower = one if node.value == 1.0 else call("pow", x, value=node.value - 1)
                return multiply(number(node.value), lower)
        raise AssertionError(f"no derivative of {node.op}")

    # -- writing ----------------------------------------------------------------------------------

    def write(self, root: Node, names: Mapping[Leaf, Leaf]) -> str:
        """Write a program.

        Args:
            root: An expression.
            names: The operand that takes the place of each.

        Returns:
            The text; what is used more than once is computed once, in a binding.
        """
        uses: dict[Node, int] = {}
        order = list(postorder(root))
        for node in order:
            for arg in node.args:
                uses[arg] = uses.get(arg, 0) + 1
        texts: dict[Node, str] = {}
        bindings: list[str] = []
        for node in order:
            text = _render(node, [texts[arg] for arg in node.args], names)
            if uses.get(node, 0) > 1 and node.args:
                bindings.append(f"t{len(bindings)} = {_bare(text)}; ")
                text = f"t{len(bindings) - 1}"
            texts[node] = text
        return "".join(bindings) + _bare(texts[root])


def _is(node: Node, value: float) -> bool:
    return node.op == "number" and node.value == value


def _render(node: Node, args: list[str], names: Mapping[Leaf, Leaf]) -> str:
    if node.leaf is not None:
        return str(names[node.leaf])
    if node.op == "number":
        return (
            repr(node.value) if node.value >= 0 or node.value != node.value else f"({node.value!r})"
        )
    if node.op == "negate":
        return f"(-{args[0]})"
    if node.op in _ARGUMENTS:
        if node.op in _LITERAL_FUNCTIONS:
            args.append(repr(node.value))
        return f"{node.op}({', '.join(map(_bare, args))})"
    return f"({args[0]} {node.op} {args[1]})"


def _bare(text: str) -> str:
    """Take off parentheses around the whole."""
    if not text.startswith("("):
        return text
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if at == len(text) - 1 else text
    return text


def postorder(root: Node) -> Iterator[Node]:
    """Yield every node once, arguments before what they are arguments of."""
    seen: set[Node] = set()
    stack = [(root, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args) if arg not in seen)


@functools.lru_cache(maxsize=1024)
def sides(program: str) -> tuple[str, ...]:
    """Return the side of each operand that a program reads, by position; '' for one it does not.

    Raises:
        ValueError: If the text is no program, or reads one operand from two sides.
    """
    leaves = sorted(
        {node.leaf for node in postorder(Expressions().parse(program)) if node.leaf is not None},
        key=lambda leaf: leaf.position,
    )
    found = [""] * (leaves[-1].position + 1 if leaves else 0)
    for leaf in leaves:
        if found[leaf.position]:
            raise ValueError(
                f"edge program '{program}': expected one letter for operand {leaf.position}; "
                "give the tensor twice"
            )
        found[leaf.position] = leaf.side
    return tuple(found)

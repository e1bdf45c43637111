"""Evaluates expressions symbolically: what each call of the code means to the passes."""

from __future__ import annotations

import ast
from typing import Any

import torch

from gnnscript.passes.effects import may_change_arguments
from gnnscript.passes.elementwise import is_truth, module_operation, operation
from gnnscript.passes.expressions import (
    Cat,
    Code,
    Const,
    Expression,
    Gather,
    Linear,
    Map,
    Scatter,
    Softmax,
    Stack,
    Total,
    hole,
)
from gnnscript.passes.held import is_watched
from gnnscript.passes.operators import Operators
from gnnscript.passes.state import Abort, Frame
from gnnscript.specialize.helpers import Import, has_forward_hooks, import_reference, is_op
from gnnscript.specialize.program import Specialized
from gnnscript.specialize.tree import clone

__all__ = ["Calls"]

_NAMESPACES = ("torch", "torch.nn.functional")
_RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "normal", "poisson", "rrelu", "gumbel")
_PURE_BUILTINS = ("len", "int", "float", "bool", "min", "max", "isinstance", "str", "abs", "round")
_NO_TENSOR = frozenset(
    {"size", "dim", "numel", "item", "tolist", "is_floating_point", "stride", "is_contiguous"}
)


class Calls(Operators):
    """The part of a tracer that knows what calls mean."""

    def call(self, node: ast.Call, frame: Frame) -> Expression:
        """A call, by what is called."""
        func = node.func
        target = getattr(func, "target_", None)
        if isinstance(target, Import) and is_op(target):
            return self.op(target.name, node, frame)
        if isinstance(getattr(node, "target_", None), Specialized):
            return self.specialized(node, frame)
        name = torch_function(func)
        if name is not None:
            return self.function(name, node, frame)
        if isinstance(func, ast.Name) and func.id not in frame.names:
            value = self.kept(node, frame, tensor=False)
            if func.id == "len":
                inner = value.parts[0] if value.parts else value
                if isinstance(inner.code, (ast.List, ast.Tuple)):
                    return self.constant(len(inner.code.elts))
            pure = func.id in _PURE_BUILTINS or func.id.endswith("Error")
            return value if pure else self.strict(value)
        if isinstance(func, ast.Attribute):
            owner = self.evaluate(func.value, frame)
            held = getattr(owner, "value", None)
            if isinstance(held, torch.nn.Module):
                child = getattr(held, func.attr, None)
                if isinstance(child, torch.nn.Module):
                    module = self.attribute(owner, func.attr)
                    return self.module(module, node, frame)
                return self.strict(self.kept(node, frame))
            return self.method_call(owner, func.attr, node, frame)
        called = self.evaluate(func, frame)
        if isinstance(getattr(called, "value", None), torch.nn.Module):
            return self.module(called, node, frame)
        return self.strict(self.kept(node, frame))

    def kept(self, node: ast.Call, frame: Frame, *, tensor: bool = True) -> Code:
        """A call as it stands, its arguments being expressions."""
        args = [hole(self.evaluate(argument, frame)) for argument in node.args]
        keywords = [ast.keyword(k.arg, hole(self.evaluate(k.value, frame))) for k in node.keywords]
        func = node.func
        if isinstance(func, ast.Attribute) and torch_function(func) is None:
            func = ast.Attribute(hole(self.evaluate(func.value, frame)), func.attr, ast.Load())
        elif isinstance(func, ast.Subscript):
            func = hole(self.evaluate(func, frame))
        else:
            func = clone(func)
        made = ast.Call(func, args, keywords)
        if hasattr(node, "target_"):
            made.target_ = node.target_  # type: ignore[attr-defined]
        return Code(code=made, tensor=tensor)

    def strict(self, value: Code) -> Code:
        """A value that must be computed where it stands: it may have other effects."""
        code = self.value(value)
        return Code(code=code, tensor=value.tensor, hint=value.hint)

    # Ops ##########################################################################

    def op(self, name: str, node: ast.Call, frame: Frame) -> Expression:
        """One of gnnscript's ops."""
        kept = self.kept(node, frame)
        given = [a.hole_ for a in kept.code.args]  # type: ignore[attr-defined]
        named = {k.arg: k.value.hole_ for k in kept.code.keywords}  # type: ignore[attr-defined]
        names = {
            "gather": ("src", "index", "dim"),
            "scatter": ("src", "index", "dim", "dim_size", "reduce"),
            "softmax": ("src", "index", "ptr", "num_nodes", "dim"),
        }.get(name, ())
        bound = dict(zip(names, given, strict=False)) | named
        dim = bound.get("dim", self.constant(0))
        none = self.constant(None)
        if not names or not isinstance(dim, Const) or "index" not in bound:
            return kept
        if name == "gather":
            return Gather(code=kept.code, source=bound["src"], index=bound["index"], dim=dim.value)
        if name == "softmax":
            if not _is_none(bound.get("ptr", none)):
                return kept
            size = bound.get("num_nodes", none)
            return Softmax(
                code=kept.code,
                operand=bound["src"],
                index=bound["index"],
                size=size,
                dim=dim.value,
            )
        reduce = bound.get("reduce", self.constant("sum"))
        if not isinstance(reduce, Const):
            return kept
        return Scatter(
            code=kept.code,
            operand=bound["src"],
            index=bound["index"],
            size=bound.get("dim_size", none),
            reduce=reduce.value,
            dim=dim.value,
        )

    # Functions that were specialised ##############################################

    def inlined(self, node: ast.Call) -> Specialized | None:
        """The function that a call enters, if the passes may look into it."""
        done = getattr(node, "target_", None)
        if not isinstance(done, Specialized) or id(done) in self.opaque:
            return None
        if done.owner is None:
            return done
        module = done.owner.ref.module
        watched = has_forward_hooks(module)
        return None if watched and done.name.startswith("forward") else done

    def enter(self, node: ast.Call, frame: Frame) -> tuple[Specialized, Frame]:
        """The function that a call enters, and its names."""
        done = self.inlined(node)
        assert done is not None
        inner = Frame({}, done)
        parameters = [a.arg for a in done.node.args.args]
        if done.owner is not None:
            owner = node.func
            if isinstance(owner, ast.Attribute) and owner.attr == done.name:
                reached = self.evaluate(owner.value, frame)
                if not isinstance(getattr(reached, "value", None), torch.nn.Module):
                    raise Abort("a method of an unknown module")
                if reached.value is not done.owner.ref.module:  # type: ignore[attr-defined]
                    reached = self.evaluate(owner, frame)
            else:
                reached = self.evaluate(owner, frame)
            if getattr(reached, "value", None) is not done.owner.ref.module:
                raise Abort("a method of an unknown module")
            inner.names[parameters.pop(0)] = reached
        given = [self.evaluate(argument, frame) for argument in node.args]
        if len(given) != len(parameters) or node.keywords:
            raise Abort("a call by keyword")
        inner.names.update(zip(parameters, given, strict=True))
        return done, inner

    def check_writes(self, abort: Abort, node: ast.Call, frame: Frame) -> None:
        """A function that may write its arguments is not called with values still to be computed.

        From ``propagate`` itself it may be: each gathered value is read by one hook, or by none.
        """
        if abort.writes and frame.done is not self.method:
            if any(self.evaluate(argument, frame).tensor for argument in node.args):
                raise abort

    def specialized(self, node: ast.Call, frame: Frame) -> Expression:
        """A call of a specialised function inside of an expression: its value, or the call."""
        if self.inlined(node) is not None:
            saved = self.save()
            results: list[Expression] = []
            self.straight += 1
            try:
                done, inner = self.enter(node, frame)
                self.execute(done.node.body, inner, results.append)  # type: ignore[attr-defined]
            except Abort as abort:
                self.restore(saved)
                self.check_writes(abort, node, frame)
            else:
                self.straight -= 1
                if len(results) == 1:
                    return results[0]
                self.restore(saved)
        done = node.target_  # type: ignore[attr-defined]
        returns = done.node.returns
        tensor = returns is not None and ast.unparse(returns) == "Tensor"
        made = self.strict(self.kept(node, frame, tensor=tensor))
        made.declared = returns
        return made

    # torch ########################################################################

    def function(self, name: str, node: ast.Call, frame: Frame) -> Expression:
        """``torch.name(...)`` or ``F.name(...)``."""
        kept = self.kept(node, frame)
        args: list[Expression] = [a.hole_ for a in kept.code.args]  # type: ignore[attr-defined]
        options = {k.arg: k.value.hole_ for k in kept.code.keywords}  # type: ignore[attr-defined]
        self.refuse_changes(name, options)
        kept.tensor = not name.startswith("is_")
        if any(word in name for word in _RANDOM):
            test = dropout_test(node)
            drops = self.decide(test, frame) if test is not None else None
            if drops is False:
                return args[0]
            p = options.get("p", args[1] if len(args) > 1 else self.constant(0.5))
            dropped: Expression | None = self.dropped(args[0], p) if drops else None
            return dropped or self.strict(kept)
        made = self.elementwise(name, kept.code, args, options)
        if made is not None:
            return made
        if name == "linear" and len(args) in (2, 3) and not options and args[0].tensor:
            bias = args[2] if len(args) == 3 and not _is_none(args[2]) else None
            return Linear(code=kept.code, operand=args[0], weight=args[1], bias=bias)
        if name in ("cat", "concat", "concatenate", "stack") and args:
            return self.joined(name, kept, args, options)
        if name == "sum" and args:
            return self.total(kept.code, args[0], args[1:], options) or kept
        if name == "unsqueeze" and args and args[0].per_edge:
            return self.viewed(name, kept, args[0], args[1:], options)
        if name in ("matmul", "mm", "bmm") and len(args) == 2:
            return self.product(kept.code, *args) or kept
        return kept

    def joined(
        self, name: str, kept: Code, args: list[Expression], options: dict[str | None, Any]
    ) -> Expression:
        """``torch.cat`` in the last dimension, ``torch.stack`` behind the first."""
        held = args[0].code
        dim = options.get("dim", args[1] if len(args) == 2 else self.constant(0))
        if not isinstance(held, (ast.List, ast.Tuple)) or not isinstance(dim, Const):
            return kept
        operands = [element.hole_ for element in held.elts]  # type: ignore[attr-defined]
        if not any(operand.per_edge for operand in operands):
            return kept
        if name == "stack":
            one = dim.value == 1
            return Stack(code=kept.code, operands=operands) if one else kept
        # For rows in dimension -2, dimension 1 can only be the last: else it is that of the edges.
        rows = {o.dim for o in operands if isinstance(o, Gather)}
        if dim.value == -1 or (dim.value == 1 and rows == {-2}):
            return operands[0] if len(operands) == 1 else Cat(code=kept.code, operands=operands)
        return kept

    @staticmethod
    def refuse_changes(name: str, options: dict[str | None, Any]) -> None:
        """What changes a tensor in place is not looked through."""
        if name.endswith("_") and not name.endswith("__"):
            raise Abort(f"'{name}' changes a tensor", writes=True)
        inplace = options.get("inplace")
        if "out" in options or not (
            inplace is None or (isinstance(inplace, Const) and not inplace.value)
        ):
            raise Abort(f"'{name}' changes a tensor", writes=True)

    def elementwise(
        self,
        name: str,
        code: ast.expr,
        args: list[Expression],
        options: dict[str | None, Any],
    ) -> Expression | None:
        """An operation of the edge program, if the call is one."""
        if name == "clamp":
            return self.clamp(args, options)
        operands = [a for a in args if a.tensor or isinstance(a, Const)]
        if len(operands) != len(args) or not any(a.per_edge for a in args):
            return None
        constants: dict[Any, Any] = {k: v.value for k, v in options.items() if isinstance(v, Const)}
        if len(constants) != len(options):
            return None
        tensors = args
        if name in ("relu", "leaky_relu", "elu", "softplus", "gelu"):
            tensors = args[:1]
            for position, value in enumerate(args[1:]):
                if not isinstance(value, Const):
                    return None
                constants[position] = value.value
        found = operation(name, len(tensors), constants)
        if found is None:
            return None
        if found[0] in ("pow", "clamp_min", "clamp_max") and not isinstance(tensors[1], Const):
            return None  # the edge program takes numbers there
        return self.mapped(code, found[0], [*tensors, *map(self.constant, found[1])])

    def clamp(self, args: list[Expression], options: dict[str | None, Any]) -> Expression | None:
        """``clamp(min, max)`` with numbers."""
        bounds: dict[Any, Any] = dict(zip(("min", "max"), args[1:], strict=False))
        bounds |= options
        value = args[0]
        if not value.per_edge or not all(isinstance(b, Const) for b in bounds.values()):
            return None
        for key, operator in (("min", "clamp_min"), ("max", "clamp_max")):
            if key in bounds and bounds[key].value is not None:
                func = ast.Attribute(hole(value), operator, ast.Load())
                one = ast.Call(func, [hole(bounds[key])], [])
                value = self.mapped(one, operator, [value, bounds[key]])
        return value

    # Modules ######################################################################

    def module(self, called: Expression, node: ast.Call, frame: Frame) -> Expression:
        """A call of one of torch's modules."""
        args = [self.evaluate(argument, frame) for argument in node.args]
        fresh = False
        if len(args) == 1 and not node.keywords and args[0].per_edge:
            # What is read by no other name may be changed in place, and nobody sees it.
            named = args[0].hint or not isinstance(node.args[0], (ast.Call, ast.BinOp))
            fresh = isinstance(args[0], (Map, Linear, Cat)) and not named
            found = self.through(called, args[0], first=not fresh)
            if found is not None:
                return found
        if len(args) == 1 and not node.keywords and args[0].tensor:
            found = self.ending_in_linear(called, args[0])
            if found is not None:
                return found
        made = ast.Call(clone(called.code), [hole(a) for a in args], [])
        made.keywords = [
            ast.keyword(k.arg, hole(self.evaluate(k.value, frame))) for k in node.keywords
        ]
        self.refuse_effects(called, any(a.tensor for a in args) and not fresh)
        return self.strict(Code(code=made))

    @staticmethod
    def refuse_effects(called: Expression, seen: bool) -> None:
        """A module that may change a value which others still read is not looked past."""
        if seen and may_change_arguments(getattr(called, "value", None)):
            raise Abort("a module may change what it is given", writes=True)

    def ending_in_linear(self, called: Expression, given: Expression) -> Expression | None:
        """A linear layer, or a sequence that ends in one, of a value that is not gathered."""
        module = getattr(called, "value", None)
        if type(module) is torch.nn.Linear:
            return self.through(called, given, first=True)
        if type(module) is not torch.nn.Sequential or len(module) < 2:
            return None
        watched = is_watched(module)
        if watched or type(module[-1]) is not torch.nn.Linear or may_change_arguments(module):
            return None
        last = self.item(called, ast.Constant(len(module) - 1))
        value = given
        for number in range(len(module) - 1):
            child = self.item(called, ast.Constant(number))
            value = self.strict(Code(code=ast.Call(clone(child.code), [hole(value)], [])))
        return self.through(last, value, first=False)

    def through(self, called: Expression, given: Expression, *, first: bool) -> Expression | None:
        """What a module makes of a value per edge, if the passes know it."""
        module = getattr(called, "value", None)
        if not isinstance(module, torch.nn.Module):
            return None
        if is_watched(module):
            return None
        kind = type(module)
        code = ast.Call(clone(called.code), [hole(given)], [])
        if isinstance(module, torch.nn.Sequential) and kind is torch.nn.Sequential:
            value = given
            for number in range(len(module)):
                child = self.item(called, ast.Constant(number))
                inner = self.through(child, value, first=first and value is given)
                if inner is None:
                    self.refuse_effects(child, first and value is given)
                    held = ast.Call(clone(child.code), [hole(value)], [])
                    inner = self.strict(Code(code=held))
                value = inner
            return value
        if getattr(module, "inplace", False) and first:
            raise Abort("a module changes a value that the caller may still read", writes=True)
        if kind is torch.nn.Linear:
            biased = module._parameters["bias"] is not None
            bias = self.attribute(called, "bias") if biased else None
            weight = self.attribute(called, "weight")
            return Linear(code=code, operand=given, weight=weight, bias=bias)
        if kind is torch.nn.Identity or (kind is torch.nn.Dropout and self.drops(called) is False):
            return given
        if kind is torch.nn.Dropout and self.drops(called):
            return self.dropped(given, self.constant(module.p))
        found = module_operation(module)
        if found is None:
            return None
        numbers = [self.constant(number) for number in found[1]]
        if getattr(module, "inplace", False):  # the value may come to be one that must not change
            functional = import_reference("torch.nn.functional", "", "F")
            args = [hole(given), *(number.code for number in numbers)]
            code = ast.Call(ast.Attribute(functional, found[0], ast.Load()), args, [])
        return self.mapped(code, found[0], [given, *numbers])

    def drops(self, called: Expression) -> bool | None:
        """Whether dropout drops anything, as far as that is known on this path."""
        if getattr(called.value, "p", 1.0) == 0:  # type: ignore[attr-defined]
            return False
        return self.facts.get(ast.unparse(self.spelled(self.attribute(called, "training"))))

    # Methods of tensors ###########################################################

    def method_call(self, owner: Expression, name: str, node: ast.Call, frame: Frame) -> Expression:
        """``owner.name(...)``."""
        kept = self.kept(node, frame, tensor=owner.tensor and name not in _NO_TENSOR)
        if isinstance(kept.code, ast.Call) and isinstance(kept.code.func, ast.Attribute):
            kept.code.func.value = hole(owner)
        args = [a.hole_ for a in kept.code.args]  # type: ignore[attr-defined]
        options = {k.arg: k.value.hole_ for k in kept.code.keywords}  # type: ignore[attr-defined]
        self.refuse_changes(name, options)
        if isinstance(owner.code, (ast.List, ast.Tuple)):
            return kept
        if any(word in name for word in _RANDOM):
            return self.strict(kept)
        if not owner.per_edge:
            return self.as_matrix(name, kept, owner) or kept
        if name == "sum":
            return self.total(kept.code, owner, args, options) or kept
        if name in ("matmul", "mm", "bmm") and len(args) == 1:
            return self.product(kept.code, owner, args[0]) or kept
        if name == "contiguous" and not args:
            return owner
        if name == "where" and len(args) == 2:
            args = [args[0], owner, args[1]]
            return self.elementwise(name, kept.code, args, options) or kept
        if name not in ("leaky_relu", "elu", "gelu", "silu", "softplus"):
            made = self.elementwise(name, kept.code, [owner, *args], options)
            if made is not None:
                return made
        return self.about_edges(owner, kept) or self.viewed(name, kept, owner, args, options)

    def total(
        self,
        code: ast.expr,
        operand: Expression,
        args: list[Expression],
        options: dict[str | None, Any],
    ) -> Expression | None:
        """A sum over the last dimensions."""
        bound = dict(zip(("dim", "keepdim"), args, strict=False)) | options
        dim, keep = bound.pop("dim", None), bound.pop("keepdim", None)
        if bound or not operand.per_edge or dim is None or is_truth(operand):
            return None
        written = dim.code
        elements = written.elts if isinstance(written, (ast.Tuple, ast.List)) else [written]
        values = [getattr(e, "hole_", None) or dim for e in elements]
        dims = sorted(v.value for v in values if isinstance(v, Const))
        if len(dims) != len(values):
            return None
        if dims != list(range(-len(dims), 0)):
            return None
        if keep is None or (isinstance(keep, Const) and not keep.value):
            return Total(code=code, operand=operand, dims=len(dims))
        if len(dims) != 1:
            return None
        last: list[ast.expr] = [ast.UnaryOp(ast.USub(), ast.Constant(1))]
        summed = ast.Call(ast.Attribute(hole(operand), "sum", ast.Load()), last, [])
        total = Total(code=summed, operand=operand, dims=1)
        return Code(code=ast.Call(ast.Attribute(hole(total), "unsqueeze", ast.Load()), last, []))


def torch_function(func: ast.expr) -> str | None:
    """The name of a function of torch's, where ``func`` is one."""
    if not isinstance(func, ast.Attribute) or not isinstance(func.value, ast.Name):
        return None
    target = getattr(func.value, "target_", None)
    if isinstance(target, Import) and not target.name and target.module in _NAMESPACES:
        return func.attr
    return None


def dropout_test(call: ast.Call) -> ast.expr | None:
    """What decides whether ``F.dropout(x, p, training)`` drops anything, if it is such a call."""
    if torch_function(call.func) != "dropout" or not call.args:
        return None
    given = dict(zip(("input", "p", "training", "inplace"), call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    return given.get("training")


def _is_none(expression: Expression) -> bool:
    return isinstance(expression, Const) and expression.value is None

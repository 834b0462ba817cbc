"""Mutants of functions: one small change each, made in the syntax tree and put in force in this process alone.

A mutant is named by its place: `mesh.beliefs:Beliefs._is_deaf:compare:1` is the second comparison of that
function, turned. Names do not depend on what stands elsewhere in a file, and which of all possible mutants are
in the sample depends on the name alone, so that the list is stable while other code changes.
"""

import ast
import copy
import hashlib
import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import attrs

TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
"""What each comparison becomes at its bound."""

REVERSED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
}
"""What each comparison of sizes becomes beyond its bound."""

OTHER_END = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
"""Functions that stand for each other."""


TOLD = ("_tally.", ".report(", "assert", "rounds_started", "rounds_failed", "event =", "_out.append(Report")
"""Lines that tell people something and decide nothing are left alone."""


@attrs.frozen
class Mutant:
    """One change of one function."""

    module: str
    function: str
    """Its qualified name."""
    kind: str
    place: int
    """Which of the function's sites of this kind, from 0."""
    line: str = attrs.field(default="", eq=False)
    """The source line, for people."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.module}:{self.function}:{self.kind}:{self.place}"


def mutants(modules: tuple[str, ...], share: float, draw: str = "") -> list[Mutant]:
    """Return a sample of all mutants of these modules, about `share` of them, in the order of the source.

    `draw` names the sample: each name gives another.
    """
    found = [mutant for module in modules for mutant in _of_module(module)]
    return [mutant for mutant in found if _place(draw + mutant.name) < share]


def _place(name: str) -> float:
    """Where a name falls between 0 and 1."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def _of_module(name: str) -> Iterator[Mutant]:
    source = inspect.getsource(importlib.import_module(name))
    lines = source.splitlines()
    for qualified, function in _functions(ast.parse(source)):
        for kind, place, node in _sites(function):
            line = lines[node.lineno - 1].strip()
            if not any(word in line for word in TOLD):
                yield Mutant(name, qualified, kind, place, line)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__"):
                    yield f"{node.name}.{inner.name}", inner


def _sites(function: ast.FunctionDef) -> Iterator[tuple[str, int, ast.AST]]:
    """Yield (kind, place, node) of everything in a function's body that can be changed."""
    counts: dict[str, int] = {}
    for statement in function.body:
        for node in ast.walk(statement):
            for kind in _kinds(node):
                counts[kind] = counts.get(kind, -1) + 1
                yield kind, counts[kind], node


def _kinds(node: ast.AST) -> Iterator[str]:
    """Yield what can be done to a node."""
    yield from _of_conditions(node)
    yield from _of_statements(node)
    yield from _of_values(node)


def _of_conditions(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in TURNED:
            yield "compare"
            if type(op) in REVERSED:
                yield "reverse"
        case ast.BoolOp():
            yield "and_or"
        case ast.If():
            yield "condition"
        case ast.IfExp():
            yield "choice"
        case ast.UnaryOp(op=ast.Not()):
            yield "not"


def _of_statements(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Call()):
            yield "drop"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign() | ast.Delete():
            yield "forget"
        case ast.Return(value=None) | ast.Continue() | ast.Break():
            yield "go_on"


def _of_values(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            yield "number" if value else "zero"
        case ast.Constant(value=bool()):
            yield "flag"
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            yield "plus_minus"
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            yield "times"
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in OTHER_END:
            yield "other_end"
        case ast.Call() if _is_swappable(node.args):
            yield "swap"


def _is_swappable(given: list[ast.expr]) -> bool:
    """Whether the first two may be mistaken for each other; time and constants hardly are."""
    if len(given) < 2 or any(isinstance(value, ast.Starred | ast.Constant) for value in given[:2]):
        return False
    return not (isinstance(given[0], ast.Name) and given[0].id == "now")


def _turn(node: ast.Compare) -> None:
    node.ops = [TURNED[type(node.ops[0])]()]


def _reverse(node: ast.Compare) -> None:
    node.ops = [REVERSED[type(node.ops[0])]()]


def _and_or(node: ast.BoolOp) -> None:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _negate(node: ast.If | ast.IfExp) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _affirm(node: ast.UnaryOp) -> None:
    node.op, node.operand = ast.UAdd(), ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])


def _drop(node: ast.Expr) -> None:
    node.value = ast.Constant(None)


def _raise(node: ast.Constant) -> None:
    node.value = node.value * 2 if isinstance(node.value, float) and node.value else node.value + 1


def _flag(node: ast.Constant) -> None:
    node.value = not node.value


def _plus_minus(node: ast.BinOp) -> None:
    node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()


def _times(node: ast.BinOp) -> None:
    node.op = ast.Div() if isinstance(node.op, ast.Mult) else ast.Mult()


def _other_end(node: ast.Call) -> None:
    if isinstance(node.func, ast.Name):
        node.func.id = OTHER_END[node.func.id]
    else:
        node.func.attr = OTHER_END[node.func.attr]


def _swap(node: ast.Call) -> None:
    node.args[0], node.args[1] = node.args[1], node.args[0]


CHANGES: dict[str, Callable[[Any], None]] = {
    "compare": _turn,
    "reverse": _reverse,
    "and_or": _and_or,
    "condition": _negate,
    "choice": _negate,
    "not": _affirm,
    "drop": _drop,
    "number": _raise,
    "zero": _raise,
    "flag": _flag,
    "plus_minus": _plus_minus,
    "times": _times,
    "other_end": _other_end,
    "swap": _swap,
}
"""What each kind of mutant does to its node; of the other kinds, the statement is left out."""


class _Without(ast.NodeTransformer):
    """Puts nothing in the place of one statement."""

    def __init__(self, gone: ast.AST) -> None:
        self.gone = gone

    def visit(self, node: ast.AST) -> ast.AST:
        """Keep all but one."""
        return ast.Pass() if node is self.gone else self.generic_visit(node)


def apply(mutant: Mutant) -> None:
    """Put a mutant in force in this process: fork first. Whoever holds the function runs the changed code."""
    module = importlib.import_module(mutant.module)
    tree = copy.deepcopy(ast.parse(inspect.getsource(module)))
    function = dict(_functions(tree))[mutant.function]
    sites = {(kind, place): node for kind, place, node in _sites(function)}
    site = sites[mutant.kind, mutant.place]
    if mutant.kind in CHANGES:
        CHANGES[mutant.kind](site)
    else:
        _Without(site).visit(tree)
    ast.fix_missing_locations(tree)
    changed = _code(compile(tree, mutant.module, "exec"), mutant.function.split("."))
    held = module
    for part in mutant.function.split("."):
        held = inspect.getattr_static(held, part)
    if isinstance(held, property):
        held = held.fget
    held = inspect.unwrap(getattr(held, "__func__", held))
    held.__code__ = changed.replace(co_freevars=held.__code__.co_freevars)


def _code(code: types.CodeType, path: list[str]) -> types.CodeType:
    for name in path:
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name)
    return code

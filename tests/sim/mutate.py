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
from collections.abc import Iterator

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
"""What each comparison becomes."""


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


def mutants(modules: tuple[str, ...], share: float) -> list[Mutant]:
    """Return a sample of all mutants of these modules, about `share` of them, in the order of the source."""
    found = [mutant for module in modules for mutant in _of_module(module)]
    return [mutant for mutant in found if _draw(mutant.name) < share]


def _draw(name: str) -> float:
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
            kind = _kind(node)
            if kind:
                counts[kind] = counts.get(kind, -1) + 1
                yield kind, counts[kind], node


def _kind(node: ast.AST) -> str:
    match node:
        case ast.Compare(ops=[op]) if type(op) in TURNED:
            return "compare"
        case ast.BoolOp():
            return "and_or"
        case ast.If():
            return "condition"
        case ast.Expr(value=ast.Call()):
            return "drop"
        case ast.Constant(value=value) if type(value) in (int, float) and value:
            return "number"
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return "plus_minus"
    return ""


def _change(node: ast.AST) -> None:
    match node:
        case ast.Compare(ops=[op]):
            node.ops = [TURNED[type(op)]()]
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.If():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Expr():
            node.value = ast.Constant(None)
        case ast.Constant():
            node.value = node.value * 2 if isinstance(node.value, float) else node.value + 1
        case ast.BinOp():
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()


def apply(mutant: Mutant) -> None:
    """Put a mutant in force in this process: fork first. Whoever holds the function runs the changed code."""
    module = importlib.import_module(mutant.module)
    tree = copy.deepcopy(ast.parse(inspect.getsource(module)))
    function = dict(_functions(tree))[mutant.function]
    sites = {(kind, place): node for kind, place, node in _sites(function)}
    _change(sites[mutant.kind, mutant.place])
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

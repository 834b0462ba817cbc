"""What is not done here, each with the reason."""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tidy.tree import PACKAGES, ROOT, files

Check = Callable[[ast.Module], Iterator[int]]

PRINTERS = ("node/cli/", "tests/", "examples/", "bench/")
MAY_PRINT = (
    "node/__main__.py",
    "sim/__main__.py",
    "sim/cli/",
    "sim/papers.py",
    "sim/prefixes.py",
    "sim/shapes.py",
    "sim/trials.py",
    "kernels/gate.py",
    "kernels/bench.py",
)
READS_ENVIRONMENT = ("node/configure.py", "tests/", "examples/", "bench/")


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for such an expression, else nothing."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, attr):
            return f"{dotted(value)}.{attr}" if dotted(value) else ""
    return ""


def uses(*names: str) -> Check:
    """Return a check that finds uses of dotted names, imported whole or in part."""

    def check(tree: ast.Module) -> Iterator[int]:
        for node in ast.walk(tree):
            found: list[str] = []
            match node:
                case ast.Attribute() | ast.Name():
                    found = [dotted(node)]
                case ast.Import(aliases):
                    found = [alias.name for alias in aliases]
                case ast.ImportFrom(module, aliases):
                    found = [f"{module}", *(f"{module}.{alias.name}" for alias in aliases)]
            if set(found) & set(names):
                yield node.lineno

    return check


def bare_except(tree: ast.Module) -> Iterator[int]:
    yield from (
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None
    )


def prints(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "print":
            yield node.lineno


BANS: dict[str, tuple[Check, tuple[str, ...]]] = {
    "time.sleep blocks the loop, and a test that sleeps is slow or flaky": (
        uses("time.sleep"),
        ("examples/", "bench/"),
    ),
    "mocks test the mock; write a fake that passes the real thing's suite": (uses("unittest.mock"), ()),
    "a bare except swallows cancellation and our own bugs": (bare_except, ()),
    "only what people run prints; the rest returns or logs": (prints, PRINTERS + MAY_PRINT),
    "only node/configure.py reads the environment": (uses("os.environ", "os.getenv"), READS_ENVIRONMENT),
    "a core's randomness is handed in": (
        uses(
            "random.random",
            "random.choice",
            "random.randint",
            "random.shuffle",
            "random.sample",
            "random.uniform",
        ),
        ("examples/",),
    ),
}
"""Reason -> (check, where it is allowed: beginnings of paths)."""

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def unfinished(source: str) -> list[int]:
    """Return the lines whose comments promise to come back."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT and UNFINISHED.search(token.string)
    ]


ALL = [*files(*PACKAGES, "tests", "examples", "bench")]


@pytest.mark.parametrize("reason", BANS)
def test_nobody_does_it(reason: str):
    check, allowed = BANS[reason]
    found = [
        f"{path}:{line}"
        for path in ALL
        if not str(path).startswith(allowed)
        for line in check(ast.parse((ROOT / path).read_text()))
    ]
    assert found == [], reason


def test_nothing_is_left_to_do_in_comments():
    assert [f"{path}:{line}" for path in ALL for line in unfinished((ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0, "import time\ntime.sleep(1)"),
        (0, "from time import sleep"),
        (1, "from unittest.mock import Mock"),
        (1, "from unittest import mock"),
        (1, "import unittest.mock"),
        (2, "try:\n    pass\nexcept:\n    pass"),
        (3, "print(1)"),
        (4, "import os\nos.environ['A']"),
        (4, "from os import environ"),
        (4, "import os\nos.getenv('A')"),
        (5, "import random\nrandom.random()"),
    ],
)
def test_the_checks_object(number: int, code: str):
    check, _ = list(BANS.values())[number]
    assert [*check(ast.parse(code))] != []


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0, "import trio\ntrio.sleep(1)"),
        (2, "try:\n    pass\nexcept ValueError:\n    pass"),
        (3, "log.print(1)"),
        (5, "import random\nrandom.Random(3).random()"),
    ],
)
def test_the_checks_allow(number: int, code: str):
    check, _ = list(BANS.values())[number]
    assert [*check(ast.parse(code))] == []


def test_an_unfinished_comment_is_found_and_a_text_is_not():
    word = "TO" + "DO"
    assert unfinished(f'a = "{word}"\nb = 1  # {word}: later\n') == [2]


def test_paths_compare_with_slashes():
    assert Path("node/cli/main.py").as_posix() in map(str, ALL)

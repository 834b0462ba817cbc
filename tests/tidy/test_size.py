"""No file eats the project, and most functions are read at a glance."""

import ast
import statistics
from pathlib import Path

import pytest

from tests.tidy.tree import PACKAGES, ROOT, files, parse

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80
"""A function longer than this has more than one thing to say."""
MEDIAN_LINES_MAX = 10
"""The models of STYLE have 5 to 7."""


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 1


def functions(tree: ast.Module) -> list[tuple[str, int]]:
    """Return (name, lines) of every function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(node.name, body_lines(node)) for node in ast.walk(tree) if isinstance(node, kinds)]


def too_long(lengths: dict[str, int], most: int) -> list[str]:
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > most]


def test_no_file_is_too_long():
    lengths = {
        str(path): len((ROOT / path).read_text().splitlines())
        for path in files(*PACKAGES, "tests", "examples")
    }
    assert too_long(lengths, FILE_LINES_MAX) == []


def test_no_function_is_too_long():
    lengths = {f"{path}:{name}": lines for path in files(*PACKAGES) for name, lines in functions(parse(path))}
    assert too_long(lengths, FUNCTION_LINES_MAX) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_median_function_is_short(package: str):
    lengths = [lines for path in files(package) for _, lines in functions(parse(path))]
    assert not lengths or statistics.median(lengths) <= MEDIAN_LINES_MAX


def test_lengths_are_counted_without_signature_and_docstring():
    tree = ast.parse('def f(\n    a,\n):\n    """Say.\n\n    More.\n    """\n    b = a\n    return b\n')
    assert functions(tree) == [("f", 2)]


def test_the_check_objects_to_a_long_one():
    assert too_long({"a": 501, "b": 500}, FILE_LINES_MAX) == ["a: 501 lines"]


def report() -> str:
    """Return the sizes of the packages in words."""
    rows = []
    for package in (*PACKAGES, "tests"):
        paths = [*files(package)]
        lengths = sorted(lines for path in paths for _, lines in functions(parse(path)))
        longest = max(paths, key=lambda path: len((ROOT / path).read_text().splitlines()), default=Path("-"))
        total = sum(len((ROOT / path).read_text().splitlines()) for path in paths)
        if lengths:
            ninth = lengths[int(len(lengths) * 0.9)]
            rows.append(
                f"{package:8} {len(paths):4} files {total:6} lines, {len(lengths):5} functions: median"
                f" {statistics.median(lengths):g}, nine in ten under {ninth + 1}; longest file {longest}"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    print(report())

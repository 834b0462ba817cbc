"""The source tree as the tidy checks see it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mesh", "kernels", "node", "sim")


def files(*rooms: str) -> Iterator[Path]:
    """Yield the Python files of some top-level directories, as paths relative to the root, in order."""
    for room in rooms:
        yield from sorted(path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def module_name(path: Path) -> str:
    """Return the dotted name that a file is imported by."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

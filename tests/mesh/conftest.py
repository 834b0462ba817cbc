"""Golden bytes: written once, compared for ever."""

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden_bytes() -> Callable[[str, bytes], None]:
    """Compare bytes with a golden file of hex; the file itself is made by hand, never by a test."""

    def compare(name: str, data: bytes) -> None:
        kept = "".join((GOLDEN / name).read_text().split())
        assert data.hex() == kept, f"the bytes of {name} have changed: old peers could not read them"

    return compare


@pytest.fixture
def golden_file() -> Callable[[str], bytes]:
    """Return the bytes of a golden file."""
    return lambda name: bytes.fromhex("".join((GOLDEN / name).read_text().split()))

"""Foreign files and patterns are accepted or refused with a clear error; and the ledger that says so can fail."""

import random
import time
from pathlib import Path

import pytest

import tests.fuzz.__main__ as ledger
from tests.fuzz.kinds import KINDS, Kind

HELD: list[bytes] = []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_crashes_hangs_or_takes_much_memory(kind: str):
    assert ledger.campaign(kind, 0, 8.0) == []


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.timed])
def test_the_first_inputs_of_each_kind_are_judged_the_same_each_time(kind: str):
    ends = [ledger.judged(kind, seed) for seed in range(12)]
    assert {end.split()[0] for end in ends} <= {"accepted", "refused"}
    assert ends == [ledger.judged(kind, seed) for seed in range(12)]


def crash(_draw: random.Random, _folder: Path) -> Exception | None:
    raise KeyError("planted")


def silence(_draw: random.Random, _folder: Path) -> Exception | None:
    return ValueError("")


def hang(_draw: random.Random, _folder: Path) -> Exception | None:
    until = time.process_time() + 0.25
    while time.process_time() < until:
        pass
    return None


def grow(_draw: random.Random, _folder: Path) -> Exception | None:
    HELD.append(bytes(range(256)) * (1 << 20))
    return None


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (crash, "broken KeyError"),
        (silence, "broken an error without"),
        (hang, "broken took"),
        (grow, "broken grew"),
    ],
)
def test_the_ledger_sees_what_it_forbids(attempt: object, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KINDS, "planted", Kind(attempt))  # type: ignore[arg-type]
    monkeypatch.setattr(ledger, "WARM", {"planted"})
    monkeypatch.setattr(ledger, "SECONDS_MAX", 0.2)
    monkeypatch.setattr(ledger, "GROWTH_BYTES_MAX", 16 << 20)
    try:
        assert ledger.judged("planted", 0).startswith(said)
    finally:
        HELD.clear()

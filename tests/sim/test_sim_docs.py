"""The reference page of `python -m sim` says what the code says."""

import pytest

from sim.__main__ import COMMANDS, helps
from sim.faults import FAULTS
from sim.scenarios import SCENARIOS
from tests.tidy.tree import ROOT

PAGE = (ROOT / "docs/reference/sim-cli.md").read_text()


def first_line(thing: object) -> str:
    return thing.__doc__.strip().splitlines()[0]


@pytest.mark.parametrize("command", ["sim", *COMMANDS])
def test_the_page_quotes_the_help(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert helps()[command].rstrip() in PAGE


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_the_page_has_every_fault_in_its_own_words(kind: type):
    assert f"| `{kind.__name__}` | {first_line(kind)} |" in PAGE


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_page_has_every_scenario(name: str):
    said = "" if name == "swarm" else f" | {first_line(SCENARIOS[name])} |"
    assert f"| `{name}`{said}" in PAGE

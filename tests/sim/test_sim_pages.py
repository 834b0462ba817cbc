"""The page about the simulator says what the code says: every check, in its own words."""

import pytest

from sim.checks import SAFETY
from sim.faults import FAULTS
from sim.liveness import LIVENESS
from tests.tidy.tree import ROOT

PAGE = (ROOT / "docs/explanation/simulation.md").read_text()


@pytest.mark.parametrize("name", [*SAFETY, *LIVENESS])
def test_the_page_has_every_check_in_its_own_words(name: str):
    assert f"| `{name}` | {(SAFETY | LIVENESS)[name]} |" in PAGE


def test_the_page_counts_faults_and_checks_and_says_which_faults_break_which():
    assert f"{len(FAULTS)} kinds of fault" in PAGE
    assert f"{len(SAFETY)} checks of safety, {len(LIVENESS)} of liveness" in PAGE
    for kind in FAULTS:
        for check in kind.breaks:
            assert check in SAFETY


def test_no_fault_breaks_a_check_that_clients_rely_on():
    broken = {check for kind in FAULTS for check in kind.breaks}
    assert broken <= {
        "false_death",
        "one_truth",
        "own_word",
        "own_age",
        "left_itself",
        "fair_trial",
        "load_age",
    }

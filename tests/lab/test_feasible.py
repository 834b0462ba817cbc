"""What can be done for real, and what is refused by name."""

import pytest

from sim.faults import FAULTS
from sim.scenario_file import load
from tests.lab.__main__ import SCENARIOS, named
from tests.lab.feasible import DONE, REFUSED, InfeasibleError, obstacles, require


def test_every_kind_of_fault_is_either_done_or_refused_with_a_reason() -> None:
    kinds = {kind.__name__ for kind in FAULTS}
    assert DONE | set(REFUSED) == kinds and not DONE & set(REFUSED)
    assert all(REFUSED.values())


@pytest.mark.parametrize(
    ("text", "named_as"),
    [
        ('[[fault]]\nat = 1.0\nkind = "ClockSkew"\nhost = "node-1"\nby_s = 1.0', "ClockSkew"),
        ('preset = "wan"', "wan"),
        ('knobs = { "swim.probe_period_s" = 3.0 }', "swim.probe_period_s"),
        ("nodes = 200", "200 nodes"),
        ("sealed = true", "sealed"),
        (
            '[[request]]\nentry = "node-0"\nat = 1\nprompt = "x"\nseed = 1\ntokens = 2\ntimeout_s = 3',
            "timeout_s",
        ),
        ("[expect]\nexam = true", "exam"),
    ],
)
def test_what_cannot_be_done_is_named(text: str, named_as: str) -> None:
    with pytest.raises(InfeasibleError, match=named_as):
        require(load(text))


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_all_of_the_labs_own_scenarios_can_be_done(path) -> None:
    assert obstacles(named(path.stem)) == []

"""Mutants: named by place, in force in one process alone, and found by stories that hold without them."""

import pytest

from mesh.gossip import sends_max
from tests.sim.measures import MEASURES
from tests.sim.mutants import EQUIVALENT, MODULES, SHARE, apart, hunt, outcome
from tests.sim.mutate import Mutant, apply, mutants
from tests.sim.stories import STORIES

EVERYBODY = mutants(MODULES, 1.0)
NEVER_ACCUSE = Mutant("mesh.beliefs", "Beliefs.weigh", "drop", 1)
NEVER_TIRE = Mutant("mesh.gossip", "sends_max", "number", 0)


def test_a_sample_of_more_than_a_hundred_is_drawn_by_name_alone():
    sample = mutants(MODULES, SHARE)
    assert len(sample) > 100
    assert sample == [mutant for mutant in EVERYBODY if mutant in sample]
    assert len({mutant.name for mutant in EVERYBODY}) == len(EVERYBODY)


def test_what_is_argued_equivalent_exists():
    names = {mutant.name for mutant in EVERYBODY}
    assert [name for name in EQUIVALENT if name not in names] == []
    assert all(EQUIVALENT.values())


def test_a_mutant_is_in_force_in_its_own_process_alone():
    assert any(mutant == NEVER_TIRE for mutant in EVERYBODY)

    def changed() -> str:
        before = sends_max(4, 3.0)
        apply(NEVER_TIRE)
        return f"{before} {sends_max(1, 0.0)}"

    assert apart(changed) == f"{sends_max(4, 3.0)} 2"
    assert sends_max(1, 0.0) == 1


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_is_as_it_should_be(name: str):
    assert MEASURES[name]() == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_each_story_holds(name: str):
    assert outcome(name) == ""


@pytest.mark.slow
def test_a_mutant_that_never_accuses_is_found():
    found = hunt(NEVER_ACCUSE, list(STORIES))
    assert found.check

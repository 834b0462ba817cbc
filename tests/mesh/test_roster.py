"""The roster holds what was put and not dropped, and draws from it without repeating."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mesh.roster import Roster

ACTS = st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(1, 3)), max_size=40)


@given(ACTS, st.integers(0, 8))
def test_it_behaves_as_a_dictionary(acts, count):
    roster, model = Roster(), {}
    for put, node, port in acts:
        if put:
            roster.put(f"{node}", ("127.0.0.1", port))
            model[f"{node}"] = ("127.0.0.1", port)
        else:
            roster.drop(f"{node}")
            model.pop(f"{node}", None)
    assert len(roster) == len(model)
    assert all(node in roster and roster.address(node) == address for node, address in model.items())
    drawn = roster.draw(random.Random(count), count)
    assert len(drawn) == len(dict(drawn)) == min(count, len(model))
    assert dict(drawn).items() <= model.items()


def test_all_are_drawn_alike():
    roster = Roster()
    for node in range(4):
        roster.put(f"{node}", ("127.0.0.1", node + 1))
    rng, counts = random.Random(1), {}
    for _ in range(4000):
        node = roster.draw(rng, 1)[0][0]
        counts[node] = counts.get(node, 0) + 1
    assert all(900 < count < 1100 for count in counts.values())

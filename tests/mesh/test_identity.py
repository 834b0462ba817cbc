import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import GENERATION_MAX, INCARNATION_MAX, Identity, is_node_id

NODE = "00000000000000ab"
IDENTITIES = st.builds(
    Identity, st.just(NODE), st.integers(0, GENERATION_MAX - 1), st.integers(0, INCARNATION_MAX)
)


@given(IDENTITIES, IDENTITIES)
def test_an_identity_above_a_rumour_beats_both(mine, rumour):
    above = mine.above(rumour)
    assert above.age > mine.age
    assert above.age > rumour.age
    assert above.node == NODE


@given(IDENTITIES)
def test_a_restart_beats_any_incarnation_of_the_life_before(identity):
    life = identity.next_life()
    assert life.age > attrs.evolve(identity, incarnation=INCARNATION_MAX).age


def test_the_last_incarnation_is_topped_by_the_next_generation():
    """memberlist wraps to 0 here, and the node can never refute again."""
    assert Identity(NODE, 3, INCARNATION_MAX).above() == Identity(NODE, 4, 0)


@pytest.mark.parametrize(
    "text", ["", "ab", "00000000000000AB", "0" * 16, "g" * 16, "a" * 17, "a" * 16 + "\n"]
)
def test_a_malformed_node_id_is_refused(text):
    assert not is_node_id(text)
    with pytest.raises(ValueError, match="node id"):
        Identity(text)

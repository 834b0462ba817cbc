"""What an entry has under way at each worker."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.sent import Sent

MOVES = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["", "a", "b", "c"]), st.integers(0, 1000)), max_size=60
)


@given(MOVES)
def test_counts_and_tokens_are_those_of_the_flights_that_are_there(moves: list[tuple[int, str, int]]):
    sent, model = Sent(), dict[int, tuple[str, int]]()
    for flight, node, tokens in moves:
        sent.remove(flight)
        model.pop(flight, None)
        if node:
            sent.add(node, flight, tokens)
            model[flight] = node, tokens
    for node in "abc":
        there = {flight: tokens for flight, (at, tokens) in model.items() if at == node}
        assert list(sent.flights(node)) == list(there)
        assert (sent.count(node), sent.tokens(node)) == (len(there), sum(there.values()))


def test_a_node_that_serves_nothing_is_forgotten():
    sent = Sent()
    sent.add("a", 1, 5)
    sent.remove(1)
    assert sent == Sent()

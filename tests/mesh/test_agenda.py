from hypothesis import given
from hypothesis import strategies as st

from mesh.agenda import DEAD_ENTRIES_MAX, Agenda

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcdef"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.sampled_from("abcdef"), st.just(0)),
        st.tuples(st.just("due"), st.just(""), st.integers(0, 20)),
        st.tuples(st.just("shift"), st.just(""), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_it_behaves_like_a_sorted_list(operations):
    agenda, model = Agenda(), {}
    for order, (verb, key, at) in enumerate(operations):
        if verb == "set":
            agenda.set(key, at)
            model[key] = (at, order)
        elif verb == "cancel":
            agenda.cancel(key)
            model.pop(key, None)
        elif verb == "shift":
            agenda.shift(at)
            model = {key: (when + at, order) for key, (when, order) in model.items()}
        else:
            expected = sorted((key for key in model if model[key][0] <= at), key=model.get)
            assert list(agenda.due(at)) == expected
            for gone in expected:
                del model[gone]
        assert agenda.next_deadline() == min((when for when, _ in model.values()), default=None)
        assert len(agenda) == len(model)
        assert all((key in agenda) == (key in model) for key in "abcdef")


def test_a_key_cancelled_while_others_come_due_is_not_yielded():
    agenda = Agenda()
    agenda.set("first", 1)
    agenda.set("second", 1)
    seen = []
    for key in agenda.due(1):
        seen.append(key)
        agenda.cancel("second")
    assert seen == ["first"]


def test_a_key_set_while_others_come_due_waits_for_the_next_call():
    agenda = Agenda()
    agenda.set("again", 1)
    rounds = 0
    for key in agenda.due(5):
        rounds += 1
        agenda.set(key, 1)
    assert rounds == 1
    assert list(agenda.due(5)) == ["again"]


def test_moving_one_key_for_ever_does_not_grow_the_heap():
    agenda = Agenda()
    for at in range(10_000):
        agenda.set("key", at)
    assert len(agenda._heap) <= 2 + DEAD_ENTRIES_MAX
    agenda.clear()
    assert agenda.next_deadline() is None

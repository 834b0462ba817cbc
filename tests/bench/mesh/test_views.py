"""What events make of beliefs."""

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.mesh.views import Event, Kind, Views, completed_at, routed_at

NAMES = ("a", "b", "c")
EVENTS = st.lists(
    st.builds(
        Event,
        at=st.just(0.0),
        observer=st.sampled_from(NAMES),
        subject=st.sampled_from(NAMES),
        kind=st.sampled_from(Kind),
    )
).map(lambda events: [Event(float(n), e.observer, e.subject, e.kind) for n, e in enumerate(events)])


def story(*lines: str) -> list[Event]:
    """Read events from lines like `a b dead`, one a second."""
    words = [line.split(maxsplit=2) for line in lines]
    return [
        Event(float(at), observer, subject, Kind(kind)) for at, (observer, subject, kind) in enumerate(words)
    ]


def views_of(events: list[Event]) -> Views:
    views = Views()
    for event in events:
        views.feed(event)
    return views


@given(EVENTS)
def test_who_completed_is_complete_and_the_rest_are_not(events: list[Event]):
    views = views_of(events)
    assert set(completed_at(events, NAMES)) == {name for name in NAMES if views.is_complete(name, NAMES)}


@given(EVENTS)
def test_who_is_routed_to_at_the_end_has_been_since_one_of_its_events(events: list[Event]):
    views, since = views_of(events), routed_at(events)
    pairs = {(a, b) for a in NAMES for b in NAMES if a != b}
    assert set(since) == {pair for pair in pairs if views.routes(*pair)}
    for pair, at in since.items():
        assert (events[int(at)].observer, events[int(at)].subject) == pair


def test_a_view_that_breaks_completes_anew():
    events = story("a b alive", "a b quarantined", "a b quarantine lifted", "b a alive")
    assert completed_at(events, ("a", "b")) == {"a": 2.0, "b": 3.0}


def test_a_suspect_is_routed_to_but_completes_no_view():
    views = views_of(story("a b suspect"))
    assert views.routes("a", "b") and not views.is_complete("a", ("a", "b"))


def test_death_ends_a_quarantine():
    assert views_of(story("a b quarantined", "a b dead", "a b alive")).routes("a", "b")


def test_a_failed_probe_does_not_bring_back_the_dead():
    assert views_of(story("a b dead", "a b doubted")).belief("a", "b") is Kind.DEAD


def test_a_node_says_nothing_about_itself():
    assert views_of(story("a a dead")).events == []

from hypothesis import given
from hypothesis import strategies as st

from mesh.bucket import SOURCES_MAX, Bucket, Sources


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 20)), max_size=100))
def test_no_more_is_taken_than_the_rate_and_one_burst(steps):
    bucket, mono, taken = Bucket(rate=10, burst=20), 0.0, 0.0
    for wait_s, amount in steps:
        mono += wait_s
        taken += amount if bucket.take(mono, amount) else 0
        assert taken <= 20 + 10 * mono + 1e-6


def test_a_debt_is_paid_back_at_the_rate():
    bucket = Bucket(rate=10, burst=20)
    bucket.fill(0)
    bucket.spend(50)
    assert not bucket.take(2.9)
    assert bucket.take(3.2)


def test_a_debt_never_grows_beyond_its_bound():
    bucket = Bucket(rate=1000, burst=500, debt_max=500)
    bucket.fill(0)
    bucket.spend(50_000)
    assert [bucket.fill(mono) for mono in (0, 0.75, 60)] == [-500, 250, 500]


def test_a_clock_that_goes_back_fills_nothing():
    bucket = Bucket(rate=10, burst=10)
    assert bucket.take(100, 10)
    assert bucket.fill(50) == 0


def test_one_source_does_not_spend_what_is_anothers():
    sources = Sources(packets_per_s=10, bytes_per_s=1000)
    assert sum(sources.admits(0, ("10.0.0.1", 1), 10) for _ in range(100)) == 20
    assert sources.admits(0, ("10.0.0.2", 1), 10)
    assert sum(sources.admits(0, ("10.0.0.3", 1), 900) for _ in range(10)) == 2


def test_sources_are_bounded_and_the_oldest_goes():
    sources = Sources()
    for number in range(SOURCES_MAX + 100):
        sources.admits(0, ("10.0.0.1", number), 10)
    assert len(sources) == SOURCES_MAX

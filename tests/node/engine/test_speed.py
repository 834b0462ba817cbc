"""How fast the engine says it is."""

import pytest

from node.engine.plan import Plan, Row, Sampling
from node.engine.speed import Speed


def row(tokens: int, *, sample: bool = True) -> Row:
    return Row(1, (1,) * tokens, 0, (0,), sample, Sampling(1))


def test_before_the_first_step_nothing_is_known():
    assert (Speed().prefill.per_s, Speed().decode.per_s) == (0, 0)


def test_one_short_step_is_no_speed():
    speed = Speed()
    speed.observe(Plan((row(1),)), 1e-5)
    assert speed.decode.per_s == 0
    for _ in range(3):
        speed.observe(Plan((row(1),)), 0.02)
    assert speed.decode.per_s == pytest.approx(66, rel=0.05)


def test_guesses_that_held_were_said_too():
    speed = Speed()
    speed.observe(Plan((row(1),)), 0.2, held=3)
    assert speed.decode.per_s == pytest.approx(20)


def test_short_steps_are_averaged_over_time_not_over_five_of_them():
    speed = Speed()
    for elapsed in [0.001, 0.003] * 200:
        speed.observe(Plan((row(1),)), elapsed)
    assert speed.decode.per_s == pytest.approx(500, rel=0.01)


def test_the_best_speed_of_prefill_is_that_of_full_steps():
    speed = Speed()
    for _ in range(4):
        speed.observe(Plan((row(10),)), 0.1)
        assert speed.prefill_at_best_per_s == 0
        speed.observe(Plan((row(100, sample=False), row(5))), 0.1)
    assert speed.prefill_at_best_per_s == pytest.approx(1050)
    assert speed.prefill.per_s < 700


def test_decode_counts_all_sequences():
    speed = Speed()
    speed.observe(Plan((row(1), row(1))), 0.1)
    assert (speed.prefill.per_s, speed.decode.per_s) == (0, pytest.approx(20))


def test_a_chunk_counts_for_more_than_a_short_prompt():
    speed = Speed()
    for tokens in (256, 10, 10):
        speed.observe(Plan((row(tokens),)), 0.01 + tokens * 0.0001)
    assert 3000 < speed.prefill.per_s < 256 / 0.0356


def test_decode_in_a_mixed_step_is_not_charged_to_prefill():
    speed = Speed()
    speed.observe(Plan((row(1),)), 0.05)
    speed.observe(Plan((row(1), row(100, sample=False))), 0.15)
    assert speed.prefill.per_s == pytest.approx(1000)
    assert speed.decode.per_s == pytest.approx(20)


def test_the_recent_counts():
    speed = Speed()
    for elapsed in [1.0] * 20 + [0.1] * 40:
        speed.observe(Plan((row(1),)), elapsed)
    assert speed.decode.per_s == pytest.approx(10, rel=0.1)

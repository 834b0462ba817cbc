"""Guessing ahead never changes what is said: only how many steps it takes."""

import functools

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import grammar
from mesh.frames import Cancel, Finish, Logprob, Tokens
from node.engine.guess import GRAM, INDEX_MAX, PAUSE_MAX, Guesser
from node.engine.plan import Row, Sampled, Sampling, choices
from node.engine.process import ToyGrammars
from node.engine.scheduler import Limits
from node.engine.toy import VOCABULARY, ToyRunner
from tests.node.engine import test_resume_everywhere
from tests.node.engine.conversation import Engine, ask
from tests.node.engine.test_core_text import moved
from tests.node.engine.test_resume_everywhere import KINDS, Inventor


def test_what_followed_last_time_is_guessed():
    guesser = Guesser(width=4)
    assert guesser.guess([1, 2, 3, 9, 8, 7, 6, 5, 1, 2, 3], 10) == (9, 8, 7, 6)
    assert guesser.guess([1, 2, 3, 9, 8, 7, 6, 5, 1, 2, 3, 4], 10) == ()


def test_the_last_time_counts_and_guesses_go_round_in_a_circle():
    assert Guesser(width=7).guess([1, 2, 3, 4, 1, 2, 3, 5, 0, 1, 2, 3], 2) == (5, 0)
    assert Guesser(width=7).guess([5, 6, 5, 6, 5, 6], 7) == (5, 6, 5, 6, 5, 6, 5)


def test_who_is_right_guesses_more_and_who_is_wrong_pauses_longer_and_longer():
    guesser, ids = Guesser(), [1, 1, 1, 1]
    assert guesser.guess(ids, 8) == (1, 1)
    guesser.learn(2, 2)
    assert guesser.guess(ids, 8) == (1, 1, 1, 1)
    pauses = []
    for _ in range(9):
        guesser.learn(1, 0)
        pauses.append(0)
        while not guesser.guess(ids, 8):
            pauses[-1] += 1
    assert pauses == [2, 4, 8, 16, 32, *[PAUSE_MAX] * 4]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 20))
def test_a_guess_is_what_the_naive_search_finds(ids: list[int], cut: int):
    guesser = Guesser(width=64)
    guesser.guess(ids[:cut], 5)
    guesser.learn(1, 1)
    places = [at for at in range(GRAM, len(ids)) if ids[at - GRAM : at] == ids[-GRAM:]]
    expected = list(ids)
    for at in range(places[-1], places[-1] + 5) if places and len(ids) >= GRAM else ():
        expected.append(expected[at])
    assert guesser.guess(ids, 5) == tuple(expected[len(ids) :])


def test_what_is_remembered_is_bounded():
    guesser = Guesser()
    for size in range(0, 6 * INDEX_MAX, INDEX_MAX // 2):
        guesser.guess(range(size), 1)
        assert len(guesser._followed) <= 2.5 * INDEX_MAX


@functools.cache
def cyclic(state: int) -> torch.Tensor:
    """Logits of few different states: texts that repeat themselves, but not for ever."""
    return 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(state % 7))


LIMITS = Limits(draft_rows=12)
MAKES = {"free": Limits(), "guessing": LIMITS, "in small steps": Limits(step_tokens=5, draft_rows=12)}


@pytest.fixture
def repeating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_resume_everywhere, "invented", cyclic)


def engine(limits: Limits, blocks: int = 256) -> Engine:
    return Engine(Inventor(blocks=blocks, block_tokens=4, context_max=512), ToyGrammars(), limits=limits)


def said(one: Engine, flight: int = 1) -> tuple[str, list[int], list[Finish], list[Logprob]]:
    logprobs = [logprob for tokens in one.verbs(Tokens, flight) for logprob in tokens.logprobs]
    return one.text(flight), one.ids(flight), one.verbs(Finish, flight), logprobs


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_stream_says_the_same_with_guesses(kind: str, repeating: None):
    texts = []
    for limits in MAKES.values():
        one = engine(limits)
        for flight in range(1, 4):
            one.open(ask("ab" * flight, flight, **{"max_tokens": 60, **KINDS[kind]}), flight)
        one.run()
        texts.append([said(one, flight) for flight in range(1, 4)])
    assert texts[0] == texts[1] == texts[2]


class Loop(ToyRunner):
    """Says the same eleven ids for ever."""

    def _sample(self, row: Row, state: int) -> Sampled:
        return Sampled(row.sequence, (row.ids[-1] + 1) % 11)


def test_guesses_hold_and_save_steps():
    steps = {}
    for name in ("free", "guessing"):
        one = Engine(Loop(blocks=256, block_tokens=4, context_max=512), limits=MAKES[name])
        one.open(ask("abcd", 3, max_tokens=150))
        steps[name] = 0
        while one.step():
            steps[name] += 1
    assert one.ids() == [(ord("d") + 1 + n) % 11 for n in range(150)]
    assert steps["free"] == 150
    assert steps["guessing"] < 45
    assert 0.5 < one.core.scheduler.accepted / one.core.scheduler.drafted <= 1


@pytest.mark.parametrize("kind", ["sampled", "stopped", "constrained", "penalised"])
def test_streams_that_guess_survive_at_any_token(kind: str, repeating: None):
    attempt = ask("guess", 5, **{"max_tokens": 40, **KINDS[kind]})
    whole, text = moved(attempt, [], make=lambda runner: engine(Limits()))
    for index in range(1, len(whole.ids)):
        flight, again = moved(attempt, [index], make=lambda runner: engine(LIMITS))
        assert (again, flight.ids, flight.finish) == (text, whole.ids, whole.finish)


requests = st.tuples(
    st.text("ab", min_size=1, max_size=12),
    st.integers(0, 5),
    st.integers(1, 50),
    st.sampled_from([0.0, 0.7, 1.5]),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=6), st.integers(25, 80), st.lists(st.integers(1, 6), max_size=3)
)
def test_whoever_shares_little_memory_says_the_same(asked, blocks: int, cancelled: list[int]):
    before, test_resume_everywhere.invented = test_resume_everywhere.invented, cyclic
    try:
        texts = []
        for limits in (Limits(), LIMITS):
            one = engine(limits, blocks)
            for flight, (prompt, seed, count, temperature) in enumerate(asked, 1):
                one.open(ask(prompt, seed, max_tokens=count, temperature=temperature), flight)
            for flight in cancelled:
                one.step()
                one.core.scheduler.check_integrity()
                one.hear(Cancel().frame(flight, 1))
            one.run()
            kept = [flight for flight in range(1, len(asked) + 1) if flight not in cancelled]
            texts.append([said(one, flight) for flight in kept])
            assert one.core.scheduler.blocks.available == blocks
        assert texts[0] == texts[1]
    finally:
        test_resume_everywhere.invented = before


def test_nobody_guesses_while_a_prompt_waits_or_rows_are_many():
    one = Engine(
        ToyRunner(blocks=256, block_tokens=4, context_max=512), limits=Limits(draft_rows=3, step_tokens=8)
    )
    for flight in range(1, 5):
        one.open(ask("aaaaaa", flight, max_tokens=10), flight)
    while (plan := one.core.plan(one.now)[0]) is not None:
        drafts = sum(row.drafts for row in plan.rows)
        assert drafts == 0 or len(plan.rows) + drafts <= 3
        assert drafts == 0 or all(row.sample for row in plan.rows)
        one.note(one.core.commit(one.now, plan, one.runner.run(plan)))


def test_a_row_with_guesses_is_several_to_the_sampler():
    early, late = Sampling(1, banned=(9,)), Sampling(1)
    row = Row(7, (5, 6, 8), 20, (0,), True, early, (1,), (5,), None, 2, ((early, b"\x01"), (late, b"\x02")))
    first, second, third = choices(row)
    assert [one.ids for one in (first, second, third)] == [(5,), (5, 6), (5, 6, 8)]
    assert [tuple(one.produced) for one in (first, second, third)] == [(5,), (5, 6), (5, 6, 8)]
    assert [one.sampling for one in (first, second, third)] == [early, early, late]
    assert [one.allowed for one in (first, second, third)] == [None, b"\x01", b"\x02"]
    assert choices(attrs.evolve(row, ids=(5,), drafts=0, ahead=())) == (
        attrs.evolve(row, ids=(5,), drafts=0, ahead=()),
    )


def test_a_grammar_bounds_the_guesses(repeating: None):
    source = grammar.write("regex", "(abcd){20}")
    whole = engine(Limits())
    whole.open(ask(grammar=source, max_tokens=100))
    whole.run()
    fast = engine(LIMITS)
    fast.open(ask(grammar=source, max_tokens=100))
    steps = 0
    while fast.step():
        steps += 1
    assert said(fast) == said(whole)
    assert whole.text() == "abcd" * 20
    assert steps < 50

"""Sequences: what is left to compute, what may be chosen, who comes first."""

from mesh.attempt import PROBATION_TOKENS
from node.engine.blocks import chain
from node.engine.plan import Sampling
from node.engine.sequence import PRIORITY_TOKENS, Sequence


def sequence(prompt: tuple[int, ...] = (1, 2, 3), **more) -> Sequence:
    return Sequence(
        handle=more.pop("handle", 1), ticket=1, attempt=1, prompt=prompt, sampling=Sampling(7), **more
    )


def test_a_resumed_sequence_knows_what_was_produced():
    resumed = sequence(produced=[8, 9], produced_max=5)
    assert resumed.ids == [1, 2, 3, 8, 9]
    assert resumed.pending == 5
    assert resumed.remaining == 3


def test_the_last_id_needs_no_memory():
    assert sequence(produced_max=5).tokens_max == 3 + 4
    assert sequence(produced=[4] * 5, produced_max=5).tokens_max == 3 + 5


def test_ends_are_banned_until_enough_has_been_produced():
    early = sequence(min_tokens=2, banned_early=(0,))
    seen = []
    for id in (5, 6, 7):
        seen.append(early.sampling_after(early.produced, None).banned)
        early.append(id)
    assert seen == [(0,), (0,), ()]
    assert early.sampling_after(early.produced, None) is early.sampling


def test_probation_counts_from_where_the_attempt_began():
    suspect = sequence(alone=True, produced=[1] * 100)
    for _ in range(PROBATION_TOKENS):
        assert suspect.on_probation
        suspect.append(1)
    assert not suspect.on_probation


def test_priority_is_worth_tokens_but_not_eternity():
    early, urgent = sequence(handle=100), sequence(handle=101, priority=-1)
    assert urgent.place < early.place
    urgent.start = PRIORITY_TOKENS
    assert urgent.place > early.place


def test_keys_are_those_of_the_chain_however_they_are_asked_for():
    growing = sequence(prompt=tuple(range(10)), tenant="t")
    assert tuple(growing.keys(2, 3)) == chain("t", range(10), 3)[:2]
    growing.append(10)
    growing.append(11)
    assert tuple(growing.keys(4, 3)) == chain("t", range(12), 3)

"""The toy: predictable to whoever knows prompt and seed, and sensitive to every block."""

import itertools

import pytest

from mesh.attempt import Attempt, Parameters, Segment
from node.engine import toy
from node.engine.plan import Plan, Row, Sampling
from node.engine.text import TextError


def row(ids, start=0, blocks=(0, 1, 2), *, sample=True, **sampling) -> Row:
    return Row(1, tuple(ids), start, tuple(blocks), sample, Sampling(**{"seed": 3, **sampling}))


def ids_of(runner: toy.ToyRunner, *rows: Row) -> list[int]:
    return [sampled.id for sampled in runner.run(Plan(rows))]


def attempt(*segments: Segment) -> Attempt:
    return Attempt("toy", segments, Parameters(), seed=1)


def test_a_prompt_in_pieces_yields_what_it_yields_whole():
    whole = ids_of(toy.ToyRunner(block_tokens=2), row([1, 2, 3, 4, 5]))
    cut = toy.ToyRunner(block_tokens=2)
    assert ids_of(cut, row([1, 2], sample=False)) == []
    assert ids_of(cut, row([3, 4, 5], start=2)) == whole


def test_the_expected_ids_are_those_of_the_runner():
    runner = toy.ToyRunner(block_tokens=2)
    ids, produced = [5, 6, 7], []
    for start in itertools.chain([0], range(3, 7)):
        produced += ids_of(runner, row(ids[start:], start, blocks=range(8)))
        ids.append(produced[-1])
    assert tuple(produced) == toy.expected_ids((5, 6, 7), 3, 5)


def test_another_seed_or_prompt_or_order_says_something_else():
    variants = [((1, 2, 3), 0), ((1, 2, 3), 1), ((2, 1, 3), 0), ((1, 2), 0)]
    assert len({toy.expected_ids(prompt, seed, 20) for prompt, seed in variants}) == 4


def test_a_wrong_block_table_is_seen():
    runner = toy.ToyRunner(block_tokens=2)
    runner.run(Plan((row([1, 2, 3], blocks=(4, 5)), row([9, 9, 9], blocks=(6, 7)))))
    assert ids_of(runner, row([4], start=3, blocks=(4, 5))) != ids_of(
        runner, row([4], start=3, blocks=(6, 7))
    )
    with pytest.raises(KeyError):
        runner.run(Plan((row([4], start=3, blocks=(4, 3)),)))


def test_a_banned_end_is_not_chosen():
    ends = toy.ToyRunner(end_one_in=1)
    assert ids_of(ends, row([1])) == [toy.END]
    assert ids_of(ends, row([1], banned=(toy.END,))) != [toy.END]


def test_half_a_character_is_always_completed():
    ids = toy.expected_ids((1,), 0, 5000)
    halves = [index for index, id in enumerate(ids) if id == toy.HALVED]
    assert len(halves) > 10
    assert all(ids[index + 1] == toy.SECOND_HALF for index in halves if index + 1 < len(ids))
    assert "\ufffd" not in toy.expected_text("x", 0, 5000)


def test_a_step_costs_by_its_rows():
    cost = toy.ToyCost(step_s=1.0, prefill_token_s=0.1, decode_row_s=0.01)
    assert cost(Plan((row([1, 2, 3]), row([1], sample=False), row([1])))) == pytest.approx(1.41)


def test_logprobs_come_if_asked_for():
    (sampled,) = toy.ToyRunner().run(Plan((row([1], logprobs=2),)))
    assert len(sampled.top) == 2
    assert sampled.top[0][1] > sampled.top[1][1]


def test_prompts_in_three_forms():
    text = toy.ToyText()
    message = '{"messages": [{"role": "user", "content": "hé"}]}'
    assert text.encode(attempt(Segment("text", "hé"))) == (104, 195, 169)
    assert text.encode(attempt(Segment("ids", ids=(300, 1)), Segment("text", "a"))) == (300, 1, 97)
    assert bytes(text.encode(attempt(Segment("messages", message)))).decode() == "user: hé\nassistant:"


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (Segment("ids", ids=(toy.VOCABULARY,)), "is not below"),
        (Segment("picture"), "kind `picture`"),
        (Segment("messages", "{"), "`role` and a `content`"),
        (Segment("messages", "[1]"), "`role` and a `content`"),
        (Segment("messages", '{"messages": [{"role": "user"}]}'), "`role` and a `content`"),
    ],
)
def test_wrong_prompts_are_refused(segment: Segment, words: str):
    with pytest.raises(TextError, match=words):
        toy.ToyText().encode(attempt(segment))


def test_every_id_has_a_label_and_the_end_has_no_piece():
    text = toy.ToyText()
    assert all(text.label(id) for id in range(toy.VOCABULARY))
    assert text.piece(toy.END) == b""

"""The toy: an engine's runner and text without a model, in pure Python.

It is what the simulator, the first demonstration and the tests run. Its tokens
are a pure function of (prompt, seed, position), like a model's, and like a model
it reads what came before from its paged memory, so that a wrong block table, a
prefix shared by mistake or a position computed twice gives wrong text and not
silence. Whoever knows prompt and seed knows every token: `expected_ids`.

    h[p]     = mix(h[p-1] xor id[p]), kept at position p of the sequence's blocks
    token[p] = word number mix(h[p-1] xor mix(seed))

Its words are of varied length, and one of them ends in half a character that the
next token completes, as byte-level tokenisers do.
"""

import functools
import itertools
import json
from array import array
from collections.abc import Iterator, Sequence

import attrs

from mesh.attempt import Attempt, Segment
from node.engine.constraint import ids_of
from node.engine.plan import Plan, Row, Sampled, choices, yields
from node.engine.pool import embedding_of
from node.engine.text import TextError, prompt_param

END = 256
"""Id of the end of output; never chosen unless `end_one_in` is set."""

FIRST_WORD = 257
SECOND_HALF = 0xA9
"""Byte that completes the e with acute accent which the halved word begins."""

_SYLLABLES = tuple((consonant + vowel).encode() for consonant in "bdfklmnrstvz" for vowel in "aeiou")
_WORDS = (b" caf\xc3", b"\n", b", ", *(b" " + syllable for syllable in _SYLLABLES), *_SYLLABLES)
HALVED = FIRST_WORD
"""Id of the word that ends in half a character."""

VOCABULARY = FIRST_WORD + len(_WORDS)

DIGEST = "toy-model-1"
POLICY = "toy-policy-1"
TEXT_DIGEST = "toy-text-1"

MASK = 2**64 - 1
ROOT = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    """Scramble 64 bits (the finaliser of splitmix64; Steele, Lea, Flood 2014)."""
    value = (value + ROOT) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def draw(state: int, last: int, seed: int, banned: Sequence[int] = (), end_one_in: int = 0) -> int:
    """Return the id that follows the ids which `state` stands for, the last of which is `last`."""
    if last == HALVED and SECOND_HALF not in banned:
        return SECOND_HALF
    roll = mix(state ^ mix(seed))
    if end_one_in and roll % end_one_in == 0 and END not in banned:
        return END
    return FIRST_WORD + mix(roll) % len(_WORDS)


def draw_allowed(state: int, seed: int, allowed: bytes, banned: Sequence[int] = ()) -> int:
    """Return the id that follows under a grammar: any of those that it allows."""
    ids = [id for id in ids_of(allowed) if id not in banned]
    return ids[mix(mix(state ^ mix(seed))) % len(ids)]


def stream(prompt: Sequence[int], seed: int) -> Iterator[int]:
    """Yield the ids that any toy produces for a prompt, without end."""
    state = functools.reduce(_advance, prompt, ROOT)
    last = prompt[-1]
    while True:
        last = draw(state, last, seed)
        state = _advance(state, last)
        yield last


def _advance(state: int, id: int) -> int:
    return mix(state ^ id)


def expected_ids(prompt: Sequence[int], seed: int, count: int) -> tuple[int, ...]:
    """Return the first `count` ids that follow the prompt's ids."""
    ids = stream(prompt, seed)
    return tuple(next(ids) for _ in range(count))


def expected_text(prompt: str, seed: int, count: int) -> str:
    """Return the text of `count` tokens after a text prompt; half a character at the end is dropped."""
    ids = expected_ids(tuple(prompt.encode()), seed, count)
    return b"".join(map(ToyText().piece, ids)).decode(errors="ignore")


def expected_chat(messages: Sequence[dict[str, str]], seed: int, count: int) -> str:
    """Return the text of `count` tokens that answer chat messages."""
    return expected_text(_rendered(messages), seed, count)


def _rendered(messages: Sequence[dict[str, str]]) -> str:
    return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"


@attrs.frozen
class ToyText:
    """One id per byte of the prompt."""

    eos_ids: tuple[int, ...] = (END,)
    digest: str = TEXT_DIGEST

    def encode(self, attempt: Attempt) -> tuple[int, ...]:
        """Return the prompt's ids. Raises TextError."""
        return tuple(id for segment in attempt.prompt for id in self._segment(segment, prompt_param(attempt)))

    def _segment(self, segment: Segment, param: str) -> Sequence[int]:
        match segment.kind:
            case "ids":
                wrong = [id for id in segment.ids if id >= VOCABULARY]
                if wrong:
                    raise TextError(f"token id `{wrong[0]}` is not below {VOCABULARY}", param)
                return segment.ids
            case "text":
                return segment.text.encode()
            case "messages":
                return self._messages(segment.text)
        raise TextError(f"prompt segments of kind `{segment.kind:.16}` are not known", param)

    def _messages(self, text: str) -> Sequence[int]:
        try:
            return _rendered(json.loads(text)["messages"]).encode()
        except (ValueError, TypeError, KeyError, RecursionError):
            raise TextError("messages have a `role` and a `content`", "messages") from None

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Return a word's bytes, bare and after a space."""
        return tuple(word.encode()), tuple(b" " + word.encode())

    def piece(self, id: int) -> bytes:
        """Return the bytes that an id adds to an output."""
        return b"" if id == END else self.label(id)

    def label(self, id: int) -> bytes:
        """Return the bytes by which people know an id."""
        if id < END:
            return bytes((id,))
        return b"<end>" if id == END else _WORDS[id - FIRST_WORD]


WIDTH = 16
"""Elements of the toy's embeddings."""


def pool(kind: str, states: Sequence[int], carry: bytes = b"") -> bytes:
    """Return what is pooled of the states after some ids, as `node.engine.pool` reads it."""
    total = array("d", carry or bytes(8 * WIDTH))
    for state in states[-1:] if kind == "last" else states:
        for place in range(WIDTH):
            total[place] += mix(state + place) / 2.0**63 - 1.0
    return total.tobytes()


def expected_embedding(text: str, kind: str = "last") -> bytes:
    """Return the embedding of a text: little-endian float32."""
    ids = text.encode()
    states = list(itertools.accumulate(ids, _advance, initial=ROOT))[1:]
    return embedding_of(kind, pool(kind, states), len(ids))


@attrs.frozen
class ToyCost:
    """How long a step takes, as a device would."""

    step_s: float = 0.004
    prefill_token_s: float = 50e-6
    decode_row_s: float = 200e-6

    def __call__(self, plan: Plan) -> float:
        """Return the seconds that a step takes."""
        decode = sum(len(row.ids) for row in plan.rows if len(row.ids) - row.drafts == 1 and row.sample)
        prefill = sum(len(row.ids) for row in plan.rows) - decode
        return self.step_s + prefill * self.prefill_token_s + decode * self.decode_row_s


@attrs.define
class ToyRunner:
    """Computes plans like `node.engine.runner.Runner`, at once; time is the caller's to charge."""

    blocks: int = 4096
    block_tokens: int = 16
    context_max: int = 8192
    cost: ToyCost = attrs.Factory(ToyCost)
    end_one_in: int = 0
    """Chance of an end of output, one in this many tokens; 0 is never."""
    vocabulary: int = VOCABULARY
    digest: str = DIGEST
    policy: str = POLICY
    exact: bool = True
    device: str = "toy"
    dtype: str = "none"
    _memory: dict[int, int] = attrs.field(init=False, factory=dict)
    """State by physical position: block * block_tokens + offset."""

    def step_cost_s(self, plan: Plan) -> float:
        """Return how long the step would take on the device that the toy stands for."""
        return self.cost(plan)

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one step. A row that builds on positions nobody has computed is our bug: KeyError."""
        return tuple(sampled for row in plan.rows for sampled in self._row(row))

    def _row(self, row: Row) -> list[Sampled]:
        states = self._compute(row)
        if not yields(row):
            return []
        if row.pooling:
            return [Sampled(row.sequence, 0, vector=pool(row.pooling, states, row.carry))]
        return [
            self._sample(one, states[len(one.ids) - 1])
            if one.target is None
            else Sampled(row.sequence, one.target, -1.0, rank=1)
            for one in choices(row)
        ]

    def _compute(self, row: Row) -> list[int]:
        """Remember the state after each of a row's ids; return them."""
        states = []
        state = self._memory[self._slot(row, row.start - 1)] if row.start else ROOT
        for position, id in enumerate(row.ids, start=row.start):
            state = _advance(state, id)
            self._memory[self._slot(row, position)] = state
            states.append(state)
        return states

    def _slot(self, row: Row, position: int) -> int:
        block, offset = divmod(position, self.block_tokens)
        assert 0 <= row.blocks[block] < self.blocks
        return row.blocks[block] * self.block_tokens + offset

    def _sample(self, row: Row, state: int) -> Sampled:
        sampling = row.sampling
        if row.allowed is None:
            id = draw(state, row.ids[-1], sampling.seed, sampling.banned, self.end_one_in)
        else:
            id = draw_allowed(state, sampling.seed, row.allowed, sampling.banned)
        if sampling.logprobs is None:
            return Sampled(row.sequence, id)
        others = ((FIRST_WORD + (id + rank) % len(_WORDS), -1.0 - rank) for rank in range(sampling.logprobs))
        return Sampled(row.sequence, id, -1.0, tuple(others))

"""What the soak asks for: requests drawn from a seed, and what each must be answered."""

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from node.engine.toy import expected_ids

TENANTS = 6
HEADS = 12
"""Shared beginnings of prompts, so that the prefix cache has something to find."""
HEAD_TOKENS, TAIL_TOKENS, OUTPUT_TOKENS = 24, 8, 10
"""Most of each."""


@attrs.frozen
class Ask:
    """One request, and what its client will do."""

    attempt: Attempt
    patience: int | None = None
    """The client goes away after so many tokens; None stays."""
    deadline_s: float | None = None
    """Seconds that it may take; None is unbounded."""


class Traffic(Protocol):
    """Where requests come from, and who knows their answers."""

    def draw(self) -> Ask:
        """Return the next request."""

    def check(self, ask: Ask, ids: Sequence[int], *, whole: bool) -> None:
        """Assert that these ids are the answer, or its beginning."""


def fates(rng: random.Random) -> Iterator[tuple[int | None, float | None]]:
    """Yield patience and deadlines: one client in ten goes away, one request in ten is in a hurry."""
    while True:
        patience = rng.randrange(OUTPUT_TOKENS) if rng.random() < 0.1 else None
        yield patience, rng.uniform(0.01, 1.0) if rng.random() < 0.1 else None


@attrs.define
class ToyTraffic:
    """Requests to the toy, no two alike; the toy's function knows the answers."""

    rng: random.Random
    _heads: list[tuple[int, ...]] = attrs.field(init=False)
    _fates: Iterator[tuple[int | None, float | None]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        sizes = [self.rng.randint(1, HEAD_TOKENS) for _ in range(HEADS)]
        self._heads = [tuple(self.rng.randrange(256) for _ in range(size)) for size in sizes]
        self._fates = fates(self.rng)

    def draw(self) -> Ask:
        """Return the next request."""
        rng = self.rng
        tail = tuple(rng.randrange(256) for _ in range(rng.randint(1, TAIL_TOKENS)))
        attempt = Attempt(
            "toy",
            (Segment("ids", ids=rng.choice(self._heads) + tail),),
            Parameters(max_tokens=rng.randint(1, OUTPUT_TOKENS)),
            rng.getrandbits(64),
            tenant=f"t{rng.randrange(TENANTS)}",
            priority=rng.choice((-1, 0, 0, 0, 1)),
        )
        return Ask(attempt, *next(self._fates))

    def check(self, ask: Ask, ids: Sequence[int], *, whole: bool) -> None:
        """Assert that these ids are the toy's."""
        wanted = ask.attempt.parameters.max_tokens
        assert len(ids) == wanted if whole else len(ids) <= wanted
        expected = expected_ids(ask.attempt.prompt[0].ids, ask.attempt.seed, len(ids))
        assert tuple(ids) == expected, f"{ids} instead of {expected}"


@attrs.define
class ModelTraffic:
    """Few requests to a real model, asked again and again in other company: the answers must never change."""

    rng: random.Random
    asks: list[Ask] = attrs.field(init=False)
    known: dict[int, tuple[int, ...]] = attrs.field(init=False, factory=dict)
    """The longest answer so far, by request; the others are its beginnings."""
    whole: dict[int, int] = attrs.field(init=False, factory=dict)
    """How long the whole answer is, by request."""
    _fates: Iterator[tuple[int | None, float | None]] = attrs.field(init=False)

    PROMPTS = ("import os\n", "def mean(values):\n    return sum(", "class Tree:\n    def __init__(self", "#")
    REPEATED = 24

    def __attrs_post_init__(self) -> None:
        self.asks = [Ask(self._attempt(number)) for number in range(self.REPEATED)]
        self._fates = fates(self.rng)

    def _attempt(self, number: int) -> Attempt:
        parameters = Parameters(
            max_tokens=self.rng.randint(1, 48),
            temperature=self.rng.choice((0.0, 0.8, 1.2)),
            top_p=self.rng.choice((1.0, 0.9)),
            frequency_penalty=self.rng.choice((0.0, 0.7)),
        )
        prompt = self.PROMPTS[number % len(self.PROMPTS)] * (1 + 20 * (number % 5))
        return Attempt("soak", (Segment("text", prompt),), parameters, number, tenant=f"t{number % TENANTS}")

    def draw(self) -> Ask:
        """Return one of the requests, with a fate of its own."""
        patience, deadline_s = next(self._fates)
        ask = self.rng.choice(self.asks)
        return attrs.evolve(ask, patience=patience, deadline_s=deadline_s and 10 * deadline_s)

    def check(self, ask: Ask, ids: Sequence[int], *, whole: bool) -> None:
        """Assert that these ids agree with every answer that this request has ever been given."""
        key, known = ask.attempt.seed, self.known.get(ask.attempt.seed, ())
        shared = min(len(ids), len(known))
        assert tuple(ids[:shared]) == known[:shared], f"request {key} was answered otherwise before"
        if len(ids) > len(known):
            self.known[key] = tuple(ids)
        if whole:
            assert self.whole.setdefault(key, len(ids)) == len(ids)

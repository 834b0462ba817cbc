"""A sequence: one attempt while the engine computes it.

Its ids are the prompt's and the produced ones, those of earlier attempts first.
`computed` of them have their keys and values in `blocks`; the step that computes
the last known id also yields the next one. Pre-emption forgets the computed part
and nothing else, so it cannot change what is produced.

    WAITING   holds no blocks; computed == 0
    RUNNING   holds blocks for at least the computed ids
    ENDED     holds nothing and never comes back

WAITING -> RUNNING (admit), RUNNING -> WAITING (pre-empt), either -> ENDED.
"""

import enum
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf

import attrs

from mesh.attempt import PROBATION_TOKENS
from node.engine.blocks import next_key, root_key
from node.engine.constraint import Constraint, leaves_any
from node.engine.guess import Guesser
from node.engine.plan import Sampling

PRIORITY_TOKENS = 64 * 256
"""Tokens of its tenant's share that one point of priority is worth, about 64 requests; finite, so that nobody
waits for ever."""


class State(enum.Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@attrs.define(eq=False)
class Sequence:
    """One attempt's ids, and how far they have been computed."""

    handle: int
    """The scheduler's name for it; never used again in the engine's life."""
    ticket: int
    """The flight's number on the engine's link."""
    attempt: int
    """The attempt's number, which goes back with every frame."""
    prompt: tuple[int, ...]
    sampling: Sampling
    produced: list[int] = attrs.Factory(list)
    """Ids produced so far; at the start those of earlier attempts."""
    produced_max: int = 2**31
    """Most ids that it may ever produce."""
    min_tokens: int = 0
    """The ids of `banned_early` may not be chosen before this many have been produced."""
    banned_early: tuple[int, ...] = ()
    prompt_logprobs: int | None = None
    """If not None, the log-probabilities of the prompt's tokens are wanted, with the k likeliest at each."""
    pooling: str = ""
    """`last` or `mean`: its embedding is wanted, and nothing is drawn."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Ids that may not follow one another: the last is banned wherever the others have just been produced."""
    constraint: Constraint | None = None
    """The grammar that its output follows, after the produced ids; it wins over every ban."""
    tenant: str = ""
    priority: int = 0
    """As in vLLM, the lower is served first."""
    alone: bool = False
    """An engine has died with it in the step."""
    state: State = attrs.field(init=False, default=State.WAITING)
    computed: int = attrs.field(init=False, default=0)
    """Leading ids whose keys and values are in `blocks`."""
    blocks: tuple[int, ...] = attrs.field(init=False, default=())
    drafts: tuple[int, ...] = attrs.field(init=False, default=())
    """Guesses at its next ids, in the step that is being planned."""
    carry: bytes = attrs.field(init=False, default=b"")
    """What has been pooled of the computed ids."""
    guesser: Guesser = attrs.field(init=False, factory=Guesser)
    ids: list[int] = attrs.field(init=False)
    """Prompt and produced ids together."""
    turn: int = attrs.field(init=False, default=0)
    """Number of the last row that it was given, counted over all sequences."""
    start: float = attrs.field(init=False, default=0.0)
    """Where it starts on the clock of its engine's accounts (`node.engine.accounts`)."""
    charged: int = attrs.field(init=False, default=0)
    """What its tenant has been charged for it, an estimate."""
    cost: int = attrs.field(init=False, default=0)
    """Tokens that have been computed for it."""
    _start: int = attrs.field(init=False)
    _keys: list[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        assert self.prompt, "a prompt has at least one token"
        self.ids = [*self.prompt, *self.produced]
        self._start = len(self.produced)
        self._keys = [root_key(self.tenant)]

    @property
    def place(self) -> tuple[float, int]:
        """Its place in the queue; the lowest is served first and pre-empted last. It never changes while queued."""
        return self.start + PRIORITY_TOKENS * self.priority, self.handle

    @property
    def pending(self) -> int:
        """Known ids that are still to be computed; 1 while it decodes."""
        return len(self.ids) - self.computed

    @property
    def remaining(self) -> int:
        """Ids that it may still produce."""
        return max(self.produced_max - len(self.produced), 0)

    @property
    def tokens_max(self) -> int:
        """Positions that it may come to hold: the last produced id is never computed."""
        return len(self.prompt) + max(self.produced_max - 1, len(self.produced))

    @property
    def on_probation(self) -> bool:
        """Whether it must still be computed in steps of its own."""
        return self.alone and len(self.produced) - self._start < PROBATION_TOKENS

    @property
    def scored(self) -> int | None:
        """How many alternatives are wanted of the prompt's tokens; None once an output has begun."""
        return None if self.produced else self.prompt_logprobs

    @property
    def allowed(self) -> bytes | None:
        """The ids that its grammar allows next."""
        return None if self.constraint is None else self.constraint.allowed

    def sampling_after(self, produced: SequenceOf[int], allowed: bytes | None) -> Sampling:
        """Return how the token after `produced` is chosen. A grammar is never left without a choice."""
        early = self.banned_early if len(produced) < self.min_tokens else ()
        banned = (*self.sampling.banned, *early, *(word[-1] for word in self._about_to_say(produced)))
        if allowed is not None and banned and not leaves_any(allowed, banned):
            banned = ()
        return self.sampling if banned == self.sampling.banned else attrs.evolve(self.sampling, banned=banned)

    def draft(self, most: int) -> None:
        """Guess up to `most` ids, as far as its grammar and its limit of tokens allow them."""
        guessed = self.guesser.guess(self.ids, min(most, self.remaining - 1)) if most > 0 else ()
        if guessed and self.constraint is not None:
            guessed = guessed[: len(self.constraint.ahead(guessed))]
        self.drafts = guessed

    def ahead(self) -> tuple[tuple[Sampling, bytes | None], ...]:
        """Return how the token after each of the drafts is chosen, if they hold."""
        masks = [None] * len(self.drafts) if self.constraint is None else self.constraint.ahead(self.drafts)
        said = [[*self.produced, *self.drafts[: count + 1]] for count in range(len(self.drafts))]
        return tuple((self.sampling_after(ids, mask), mask) for ids, mask in zip(said, masks, strict=True))

    def _about_to_say(self, produced: SequenceOf[int]) -> Iterator[tuple[int, ...]]:
        """Yield the bad words of which all but the last id have just been produced."""
        for word in self.bad_words:
            before = word[:-1]
            if not before or tuple(produced[-len(before) :]) == before:
                yield word

    def append(self, id: int) -> None:
        """Take the next produced id."""
        self.produced.append(id)
        self.ids.append(id)
        if self.constraint is not None:
            self.constraint.push(id)

    def keys(self, count: int, block_tokens: int) -> list[bytes]:
        """Return the keys of its first `count` full blocks; each is hashed once."""
        for index in range(len(self._keys) - 1, count):
            start = index * block_tokens
            self._keys.append(next_key(self._keys[-1], self.ids[start : start + block_tokens]))
        return self._keys[1 : count + 1]

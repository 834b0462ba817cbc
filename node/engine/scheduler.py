"""The scheduler: who is computed in the next step. Continuous batching as a pure machine.

Theory of operation. `plan()` chooses the rows of one step, the runner computes
them, `commit()` takes the sampled ids back. A step has a budget of tokens:

1.  every sequence that decodes takes one; if they are too many, tenants in turn, and
    of each those that waited longest first;
2.  what is left is prefill, cut into chunks: first the sequences that already
    run, then new ones in order of their place in the queue, each as soon as the
    blocks for all that it knows are at hand.

While a prefill waits, decoding leaves it a quarter of the budget at least. A step without prefill that has
few rows lets its sequences guess ahead (`node.engine.guess`): several ids are verified in one step.

Places come from the accounts of tenants (`node.engine.accounts`), in tokens, moved by
priority: a total order that is fair between tenants, and in which nobody is overtaken
without end. When blocks run out the sequence with the last place is pre-empted:
it forgets what it has computed and waits again at its old place. The first in
order is never pre-empted, and whoever could not fit even alone is refused at the
door; so the first always ends, and by induction everybody does.

A sequence on probation (`alone`) is computed in steps of its own, which alternate
with those of all others, so neither side starves; if the engine dies in one, it
is known who did it.

Nothing here depends on what a token means, and nothing in a plan's order carries
meaning: ids are a function of the sequence only (docs/explanation/architecture.md).
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator

import attrs

from mesh.errors import LimitError
from node.engine.accounts import OUTPUT_TOKENS, Accounts
from node.engine.blocks import Blocks
from node.engine.plan import Plan, Row, Sampled, yields
from node.engine.sequence import Sequence, State

SCORED_MAX = 64
"""Longest chunk of a prompt whose tokens are scored: each takes a row of logits over the whole vocabulary."""

PREFILL_SHARE = 4
"""One part in four of a step's budget is left to prefill if any waits."""


@attrs.frozen
class Limits:
    """What a step and the queue may hold."""

    step_tokens: int = 256
    """Budget of a step, and with that the largest chunk of prefill.

    Larger: prefill is more efficient, decoding sequences pause longer. 256 rows is where AMX
    stops gaining.
    """
    running_max: int = 64
    """Most sequences that hold blocks at once."""
    waiting_max: int = 1024
    """Most sequences that wait; more are turned away as `busy`."""
    draft_rows: int = 0
    """Sequences that decode guess ahead as long as a step has fewer rows than this; 0 guesses nothing.

    Larger: texts that repeat themselves are said faster while few are said at once. Rows cost little as
    long as reading the weights is what a step waits for.
    """
    draft_tokens: int = 8
    """Most ids that one sequence guesses at once."""


@attrs.frozen
class Outcome:
    """What a step yielded for one sequence: new ids if any were `sampled`, else more of its prefill."""

    sequence: Sequence
    sampled: tuple[Sampled, ...]
    scored: tuple[Sampled, ...] = ()
    """Log-probabilities of the prompt's ids that follow those which the step computed."""
    pooled: bytes = b""
    """What was pooled of the whole prompt, if that was wanted and is complete."""


@attrs.define
class Scheduler:
    """The sequences of one engine and their blocks."""

    blocks: Blocks
    limits: Limits = attrs.Factory(Limits)
    step_tokens: int = attrs.field(init=False)
    """The budget in force, at most `limits.step_tokens`; the engine core lowers it on slow devices."""
    accounts: Accounts = attrs.field(init=False, factory=Accounts)
    """What tenants have been given, and thus who comes first."""
    preemptions: int = attrs.field(init=False, default=0)
    """Pre-emptions so far."""
    drafted: int = attrs.field(init=False, default=0)
    """Ids that were guessed so far."""
    accepted: int = attrs.field(init=False, default=0)
    """... and those of them that held."""
    _waiting: list[Sequence] = attrs.field(init=False, factory=list)
    _running: list[Sequence] = attrs.field(init=False, factory=list)
    _probation: list[Sequence] = attrs.field(init=False, factory=list)
    """Those of both that must be computed alone."""
    _flying: "Flying | None" = attrs.field(init=False, default=None)
    _turns: int = attrs.field(init=False, default=0)
    _solo_last: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        assert self.limits.step_tokens > 0 and self.limits.running_max > 0
        self.step_tokens = self.limits.step_tokens

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """Sequences that hold no blocks, by their place."""
        return tuple(self._waiting)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that hold blocks, by their place."""
        return tuple(self._running)

    @property
    def load(self) -> tuple[int, int]:
        """Numbers of waiting and running sequences."""
        return len(self._waiting), len(self._running)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._waiting and not self._running

    @property
    def full(self) -> bool:
        """Whether no more sequences may wait."""
        return len(self._waiting) >= self.limits.waiting_max

    def cached_tokens(self, sequence: Sequence) -> int:
        """Return how many of its prompt's tokens are in the prefix cache now."""
        return len(self._match(sequence)) * self.blocks.block_tokens

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises LimitError, with nothing changed, if it could never fit."""
        if sequence.tokens_max > self.blocks.tokens:
            raise LimitError(
                f"`{sequence.tokens_max}` tokens are wanted, the engine's memory holds {self.blocks.tokens}"
            )
        sequence.charged = sequence.pending + min(sequence.remaining, OUTPUT_TOKENS)
        sequence.start = self.accounts.enter(sequence.tenant, sequence.charged)
        _enter(self._waiting, sequence)
        if sequence.on_probation:
            _enter(self._probation, sequence)

    def end(self, sequence: Sequence) -> None:
        """End a sequence, finished or cancelled; its blocks are free at once. Idempotent."""
        if sequence.state is State.ENDED:
            return
        if sequence.state is State.RUNNING:
            self._drop(sequence)
        else:
            self._waiting.remove(sequence)
        if sequence in self._probation:
            self._probation.remove(sequence)
        sequence.state = State.ENDED
        self.accounts.leave(sequence.tenant, sequence.charged, sequence.cost)

    def tokens_before(self, sequence: Sequence) -> int:
        """Return how many known tokens will be computed before a queued one has its first new token, at least."""
        queue = itertools.chain(self._running, self._waiting)
        others = sum(s.pending for s in queue if s.pending > 1 and s.place < sequence.place)
        return others + sequence.pending - self.cached_tokens(sequence)

    def plan(self) -> Plan | None:
        """Choose the next step; None if there is nothing to compute."""
        assert self._flying is None, "the last plan has not been committed"
        rows = self._rows()
        if not rows:
            assert self.idle, "work is left, but no step was found"
            return None
        self._flying = rows
        self._charge(rows)
        return Plan(tuple(row for _, row in rows))

    def _charge(self, rows: "Flying") -> None:
        for sequence, row in rows:
            sequence.cost += len(row.ids)
        self.accounts.served(sum(len(row.ids) for _, row in rows))

    def commit(self, sampled: Iterable[Sampled]) -> list[Outcome]:
        """Take what the planned step yielded; sequences ended meanwhile are left out."""
        assert self._flying is not None, "nothing was planned"
        flying, self._flying = self._flying, None
        given: dict[int, list[Sampled]] = {}
        for item in sampled:
            given.setdefault(item.sequence, []).append(item)
        outcomes = []
        for sequence, row in flying:
            drawn = given.get(row.sequence, [])
            assert len(drawn) == yields(row), f"sequence {row.sequence}: sampled or not?"
            if sequence.state is State.RUNNING:
                outcomes.append(self._settle(sequence, row, drawn))
        self._probation = [sequence for sequence in self._probation if sequence.on_probation]
        return outcomes

    def abandon(self, spoiled: Sequence) -> None:
        """Forget the planned step, and end the sequence that spoiled it; the rest will be planned anew.

        What is in its blocks is not trusted, and not found again.
        """
        assert self._flying is not None, "nothing was planned"
        self._flying = None
        self.blocks.spoil(spoiled.blocks)
        self.end(spoiled)

    def check_integrity(self) -> None:
        """Assert the invariants between sequences and blocks. O(blocks)."""
        self.blocks.check_integrity([sequence.blocks for sequence in self._running])
        for sequence in self._waiting:
            assert sequence.state is State.WAITING and not sequence.blocks and sequence.computed == 0
        for sequence in self._running:
            assert sequence.state is State.RUNNING
            assert self.blocks.needed(sequence.computed) <= len(sequence.blocks)
            assert sequence.computed < len(sequence.ids)

    def _rows(self) -> "Flying":
        """Choose rows; if all who were chosen had to be pre-empted, others now have their room."""
        while True:
            preemptions = self.preemptions
            rows = self._turn()
            if rows or self.preemptions == preemptions:
                return rows

    def _turn(self) -> "Flying":
        """Let the common batch and those on probation take turns."""
        if not self._probation:
            return self._step(self._running, self._waiting)
        if self._solo_last:
            rows, self._solo_last = self._common(), False
            if rows:
                return rows
        rows = self._solo()
        self._solo_last = bool(rows)
        return rows or self._common()

    def _solo(self) -> "Flying":
        for suspect in tuple(self._probation):
            running = suspect.state is State.RUNNING
            if rows := self._step([suspect] if running else [], [] if running else [suspect]):
                return rows
        return []

    def _common(self) -> "Flying":
        head = self._probation[0]
        barrier = head.place if head.state is State.WAITING else None  # nobody behind it takes its room
        waiting = [s for s in self._waiting if not s.on_probation and (barrier is None or s.place < barrier)]
        return self._step([s for s in self._running if not s.on_probation], waiting)

    def _step(self, running: list[Sequence], waiting: list[Sequence]) -> "Flying":
        chosen = self._decode(running, bool(waiting))
        for sequence, _ in chosen:
            sequence.drafts = ()
        left = self.step_tokens - len(chosen)
        prefilling = [s for s in running if s.pending > 1]
        for sequence in itertools.chain(prefilling, self._admissions(waiting)):
            count = min(left, sequence.pending, SCORED_MAX if sequence.scored is not None else left)
            if count > 0:
                chosen.append((sequence, count))
            left -= count
            if left <= 0:
                break
        return self._secure(chosen)

    def _draft(self, chosen: list[tuple[Sequence, int]]) -> None:
        """Let those that decode guess ahead, in a step that holds nothing else, into room that nobody needs."""
        room = min(self.limits.draft_rows, self.step_tokens) - len(chosen)
        if (
            not chosen
            or room <= 0
            or any(s.pending > 1 or s.scored is not None or s.pooling for s, _ in chosen)
        ):
            return
        share = -(-room // len(chosen))
        for sequence, _ in chosen:
            sequence.draft(min(share, room, self.limits.draft_tokens))
            self._fit(sequence)
            room -= len(sequence.drafts)

    def _fit(self, sequence: Sequence) -> None:
        """Hold blocks for its guesses, if there are any to spare; else guess no further than its blocks reach."""
        end = sequence.computed + 1 + len(sequence.drafts)
        count = self.blocks.needed(end) - len(sequence.blocks)
        if count > 0 and count <= self.blocks.available - len(self._running):
            sequence.blocks += self.blocks.allocate(count)
        reach = len(sequence.blocks) * self.blocks.block_tokens - sequence.computed - 1
        sequence.drafts = sequence.drafts[: max(reach, 0)]

    def _decode(self, running: list[Sequence], waiting: bool) -> list[tuple[Sequence, int]]:
        """Choose the sequences that decode; if not all can, one of each tenant, then a second, and so on."""
        decoding = [s for s in running if s.pending == 1]
        prefill = waiting or len(decoding) < len(running)
        share = self.step_tokens // PREFILL_SHARE if prefill else 0
        room = max(1, self.step_tokens - share)
        decoding.sort(key=lambda sequence: sequence.turn)
        if len(decoding) > room:
            decoding = _by_tenants(decoding)
        return [(sequence, 1) for sequence in decoding[:room]]

    def _admissions(self, waiting: list[Sequence]) -> Iterator[Sequence]:
        """Admit in order of place, for as long as the caller has budget and there is room."""
        for sequence in waiting[: self.limits.running_max]:
            if not self._admit(sequence):
                return
            yield sequence

    def _admit(self, sequence: Sequence) -> bool:
        """Give it the blocks for all that it knows, those that are cached already computed.

        One block per running sequence is left alone, lest it be pre-empted at once.
        """
        shared = self._match(sequence)
        count = self.blocks.needed(len(sequence.ids)) - len(shared)
        room = self.blocks.available - self.blocks.cost(shared) - len(self._running)
        if count > room or len(self._running) >= self.limits.running_max:
            return False
        self.blocks.share(shared)
        sequence.blocks = shared + self.blocks.allocate(count)
        sequence.computed = len(shared) * self.blocks.block_tokens
        sequence.state = State.RUNNING
        self._waiting.remove(sequence)
        _enter(self._running, sequence)
        return True

    def _match(self, sequence: Sequence) -> tuple[int, ...]:
        """Return the cached blocks at its head; at least one id is always left to be computed."""
        if sequence.scored is not None or sequence.pooling == "mean":
            return ()
        full = (len(sequence.ids) - 1) // self.blocks.block_tokens
        return self.blocks.match(sequence.keys(full, self.blocks.block_tokens))

    def _secure(self, chosen: list[tuple[Sequence, int]]) -> "Flying":
        """Find the blocks that the chosen need, first come first served; return the rows of the lucky."""
        for sequence, count in sorted(chosen, key=lambda choice: choice[0].place):
            if sequence.state is State.RUNNING:
                self._grow(sequence, sequence.computed + count)
        secured = [(s, count) for s, count in chosen if s.state is State.RUNNING]
        self._draft(secured)
        return [(s, self._row(s, count)) for s, count in secured]

    def _grow(self, sequence: Sequence, tokens: int) -> None:
        """Hold blocks for `tokens` positions; pre-empt from the last place on, itself at the worst."""
        count = self.blocks.needed(tokens) - len(sequence.blocks)
        while count > self.blocks.available and sequence.state is State.RUNNING:
            self._preempt(self._running[-1])
        if count > 0 and sequence.state is State.RUNNING:
            sequence.blocks += self.blocks.allocate(count)

    def _preempt(self, sequence: Sequence) -> None:
        self._drop(sequence)
        sequence.state = State.WAITING
        sequence.computed = 0
        sequence.carry = b""
        _enter(self._waiting, sequence)
        self.preemptions += 1

    def _drop(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self.blocks.release(sequence.blocks)
        sequence.blocks = ()

    def _row(self, sequence: Sequence, count: int) -> Row:
        start = sequence.computed
        end = start + count
        sample = end == len(sequence.ids)
        drafts = sequence.drafts if sample and count == 1 else ()
        self._turns += 1
        sequence.turn = self._turns
        return Row(
            sequence=sequence.handle,
            ids=(*sequence.ids[start:end], *drafts),
            start=start,
            blocks=sequence.blocks[: self.blocks.needed(end + len(drafts))],
            sample=sample,
            sampling=sequence.sampling_after(sequence.produced, sequence.allowed),
            prompt=sequence.prompt,
            produced=sequence.produced,
            allowed=sequence.allowed if sample else None,
            drafts=len(drafts),
            scored=sequence.scored,
            pooling=sequence.pooling,
            carry=sequence.carry,
            ahead=sequence.ahead() if drafts else (),
        )

    def _settle(self, sequence: Sequence, row: Row, drawn: list[Sampled]) -> Outcome:
        size = self.blocks.block_tokens
        if row.pooling:
            return self._pool(sequence, row, drawn)
        scored = () if row.scored is None else tuple(drawn[: len(drawn) - row.sample])
        drawn = drawn[len(scored) :]
        held = self._held(sequence, row, drawn)
        first, sequence.computed = row.start // size, row.start + len(row.ids) - row.drafts + held
        said = tuple(drawn[: held + 1])
        for item in said:
            sequence.append(item.id)
        self._publish(sequence, first)
        return Outcome(sequence, said, scored)

    def _publish(self, sequence: Sequence, first: int) -> None:
        """Let others find its full blocks from number `first` on."""
        keys = sequence.keys(sequence.computed // self.blocks.block_tokens, self.blocks.block_tokens)
        for index in range(first, len(keys)):
            self.blocks.publish(sequence.blocks[index], keys[index])

    def _pool(self, sequence: Sequence, row: Row, drawn: list[Sampled]) -> Outcome:
        """Keep what has been pooled so far."""
        sequence.computed = row.start + len(row.ids)
        sequence.carry = drawn[0].vector if drawn else b""
        self._publish(sequence, row.start // self.blocks.block_tokens)
        return Outcome(sequence, (), (), sequence.carry if row.sample else b"")

    def _held(self, sequence: Sequence, row: Row, drawn: list[Sampled]) -> int:
        """Return how many of a row's guesses are what was drawn."""
        if not row.drafts:
            return 0
        guessed = row.ids[-row.drafts :]
        held = next((n for n, id in enumerate(guessed) if drawn[n].id != id), row.drafts)
        sequence.guesser.learn(row.drafts, held)
        self.drafted += row.drafts
        self.accepted += held
        return held


Flying = list[tuple[Sequence, Row]]
"""The rows of a step beside their sequences."""


def _enter(queue: list[Sequence], sequence: Sequence) -> None:
    bisect.insort(queue, sequence, key=lambda other: other.place)


def _by_tenants(sequences: list[Sequence]) -> list[Sequence]:
    """Return the first of each tenant, then the second of each, and so on; tenants by their latest turn."""
    seen: dict[str, list[Sequence]] = {}
    ranks = []
    for sequence in sequences:
        mine = seen.setdefault(sequence.tenant, [])
        ranks.append(len(mine))
        mine.append(sequence)
    latest = {tenant: max(s.turn for s in mine) for tenant, mine in seen.items()}
    order = sorted(zip(ranks, sequences, strict=True), key=lambda pair: (pair[0], latest[pair[1].tenant]))
    return [sequence for _, sequence in order]

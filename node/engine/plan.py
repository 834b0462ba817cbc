"""What the scheduler asks of a runner in one step, and what comes back.

A `Plan` is data: the runner (torch, or the toy) turns it into token ids and
keeps no opinion of its own about who runs when. Prefill chunks and decode rows
stand side by side; nothing in a row's result may depend on the other rows.
"""

from collections.abc import Sequence as SequenceOf

import attrs


@attrs.frozen
class Sampling:
    """How to choose a token from logits. Validated at the door; the runner trusts it."""

    seed: int
    """Unsigned 64 bits. The draw for position p is a pure function of (seed, p, token id)."""
    temperature: float = 1.0
    """0 is greedy (lowest id wins ties); otherwise logits are divided by it. [0, 2]."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches it. (0, 1]."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens with at least this fraction of the likeliest one's probability. [0, 1]."""
    typical_p: float = 1.0
    """Keep the tokens whose surprise is nearest to the mean, up to this share of the probability. (0, 1]."""
    frequency_penalty: float = 0.0
    """Subtracted from a logit once per occurrence among the produced tokens. [-2, 2]."""
    presence_penalty: float = 0.0
    """Subtracted from a logit once if the token was produced at all. [-2, 2]."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or output. (0, 2]."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of the named token ids. [-100, 100] each."""
    logprobs: int | None = None
    """None: no log-probabilities. k >= 0: the chosen token's, and the k likeliest. <= 20."""
    banned: tuple[int, ...] = ()
    """Token ids that may not be chosen in this step (end-of-sequence under `ignore_eos`)."""


@attrs.frozen
class Row:
    """One sequence's share of a step: a chunk of prefill, or one token of decode.

    Keys and values for positions `start .. start + len(ids)` are computed and stored in the
    sequence's blocks; if `sample`, the last of them also yields the next token.
    """

    sequence: int
    """The scheduler's handle; unique among live sequences."""
    ids: tuple[int, ...]
    """Token ids whose keys and values this step computes; at least one."""
    start: int
    """Absolute position of `ids[0]`; keys and values of all earlier positions are in `blocks`."""
    blocks: tuple[int, ...]
    """Physical KV blocks, in order, that hold positions 0 .. start + len(ids)."""
    sample: bool
    """Whether the step ends the known tokens, so that the last row is sampled."""
    sampling: Sampling
    prompt: SequenceOf[int] = ()
    """The prompt's ids (for penalties). Read only during the step."""
    produced: SequenceOf[int] = ()
    """The ids produced so far, on this and earlier attempts (for penalties). Read only during the step."""
    allowed: bytes | None = None
    """The ids that a grammar allows next: bit `id % 8` of byte `id // 8`; None allows all."""
    drafts: int = 0
    """How many of the last `ids` are guesses: with `sample`, a token is drawn before the first and after each."""
    ahead: tuple[tuple[Sampling, bytes | None], ...] = ()
    """`sampling` and `allowed` after each of the guesses, if they hold."""
    scored: int | None = None
    """If not None, each of `ids` also yields the log-probability of the prompt's id after it, and the k likeliest."""
    pooling: str = ""
    """`last` or `mean`: no token is drawn, but the states of `ids` are pooled (`node.engine.pool`)."""
    carry: bytes = b""
    """What has been pooled of the positions before `start`."""
    target: int | None = None
    """The id whose log-probability is asked for; only in rows that `choices` returns."""


def yields(row: Row) -> int:
    """Return how many tokens a row yields, scored and drawn: those of its last positions."""
    if row.pooling:
        return int(row.sample or row.pooling == "mean")
    if row.scored is not None:
        return len(row.ids)
    return (1 + row.drafts) * row.sample


def choices(row: Row) -> tuple[Row, ...]:
    """Return a row as the sampler sees it: one for each token that it yields, the guesses before it taken as said."""
    if row.scored is not None:
        return _scored(row)
    if not row.drafts:
        return (row,)
    known = len(row.ids) - row.drafts
    guessed = row.ids[known:]
    first = attrs.evolve(row, ids=row.ids[:known], drafts=0, ahead=())
    after = (
        attrs.evolve(
            first,
            ids=row.ids[: known + count],
            sampling=sampling,
            allowed=allowed,
            produced=(*row.produced, *guessed[:count]),
        )
        for count, (sampling, allowed) in enumerate(row.ahead, start=1)
    )
    return (first, *after)


def _scored(row: Row) -> tuple[Row, ...]:
    known = attrs.evolve(row, scored=None)
    sampling = attrs.evolve(row.sampling, logprobs=row.scored)
    targets = row.prompt[row.start + 1 : row.start + len(row.ids) + 1]
    rows = tuple(
        attrs.evolve(known, ids=row.ids[:count], sampling=sampling, target=target)
        for count, target in enumerate(targets, start=1)
    )
    return (*rows, known) if row.sample else rows


@attrs.frozen
class Plan:
    """One step: what to compute, in an order that carries no meaning."""

    rows: tuple[Row, ...]


@attrs.frozen
class Sampled:
    """A token that a row with `sample` yielded, and its log-probabilities if asked for."""

    sequence: int
    id: int
    logprob: float = 0.0
    """Natural logarithm of the token's probability before temperature and filters; 0 if not asked."""
    top: tuple[tuple[int, float], ...] = ()
    """(id, log-probability) of the likeliest tokens, best first, as many as asked."""
    rank: int = 0
    """How many tokens are likelier, plus one; 0 if not asked."""
    vector: bytes = b""
    """What has been pooled so far, if the row has `pooling`."""


class NotFinite(ArithmeticError):
    """The model produced no finite logit for a sequence: its weights or its cache are damaged."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"sequence {sequence}: the model's logits are not finite")
        self.sequence = sequence

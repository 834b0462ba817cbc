"""The attempt: everything a worker needs to go on with a flight from any position.

A token is a pure function of (model digest, numerical policy, prompt, emitted
ids, sampling parameters, seed, position). An OPEN frame carries all of these, so
the token log is the only checkpoint: whoever receives it recomputes the cache
and continues with the next token (docs/explanation/architecture.md).
"""

import attrs

from mesh import wire
from mesh.frames import BODY_BYTES_MAX, IDS_MAX, Kind, Verb
from mesh.wire import field, flag, integer, many, optional, pair, raw, real, record, string

STOPS_MAX = 16
"""Most stop strings, and most stop ids, of one request."""

BAD_WORDS_MAX = 64
"""Most words that one request may forbid."""

SEGMENTS_MAX = 64
"""Most prompt segments of one request."""

PROBATION_TOKENS = 16
"""An attempt marked `alone` is computed alone until it has produced so many tokens; whoever has, since an
engine died under it, did not kill that engine. A crash that an input provokes comes in its prefill or in the
first tokens after it."""


@attrs.frozen
class Segment:
    """A piece of a prompt, in one of three forms."""

    kind: str = field(string(16))
    """`text`: to be tokenised; `ids`: already token ids; `messages`: a JSON object
    whose `messages` are to be rendered by the model's chat template (other keys are its options, later)."""
    text: str = field(string(BODY_BYTES_MAX), "")
    ids: tuple[int, ...] = field(many(integer(), IDS_MAX), ())


@attrs.frozen
class Parameters:
    """Sampling and stopping, as validated at the door. Meanings and ranges: `node.engine.plan.Sampling`."""

    temperature: float = field(real, 1.0)
    top_p: float = field(real, 1.0)
    top_k: int = field(integer(), 0)
    min_p: float = field(real, 0.0)
    frequency_penalty: float = field(real, 0.0)
    presence_penalty: float = field(real, 0.0)
    repetition_penalty: float = field(real, 1.0)
    logit_bias: tuple[tuple[int, float], ...] = field(many(pair(integer(), real), 1024), ())
    logprobs: int | None = field(optional(integer(0, 20)), None)
    max_tokens: int | None = field(optional(integer(0)), None)
    """Most tokens to produce, over all attempts; None is as many as the context holds."""
    min_tokens: int = field(integer(), 0)
    stop: tuple[str, ...] = field(many(string(4096), STOPS_MAX), ())
    stop_ids: tuple[int, ...] = field(many(integer(), STOPS_MAX), ())
    ignore_eos: bool = field(flag, False)
    add_special_tokens: bool = field(flag, True)
    echo: bool = field(flag, False)
    typical_p: float = field(real, 1.0)
    bad_words: tuple[str, ...] = field(many(string(4096), BAD_WORDS_MAX), ())
    prompt_logprobs: int | None = field(optional(integer(0, 20)), None)
    """None: nothing is said of the prompt. k >= 0: the log-probabilities of its tokens, and the k likeliest at each."""


@attrs.frozen
class Attempt(Verb):
    """The body of OPEN. The frame's header carries the flight and the attempt's number."""

    KIND = Kind.OPEN
    model: str = field(string(256))
    prompt: tuple[Segment, ...] = field(many(record(Segment), SEGMENTS_MAX))
    parameters: Parameters = field(record(Parameters))
    seed: int = field(integer(0, wire.U64_MAX))
    """Drawn by the entry if the client named none, so that every request can be resumed."""
    emitted: tuple[int, ...] = field(many(integer(), IDS_MAX), ())
    """Ids produced by earlier attempts; the next token is number `len(emitted)`."""
    choice: int = field(integer(0, 1024), 0)
    """Which of the request's n choices this is."""
    model_digest: str = field(string(128), "")
    """Pinned by the first attempt that was accepted; a worker with another digest must refuse."""
    policy_digest: str = field(string(128), "")
    """Numerical policy of the first accepted attempt; preferred, not required."""
    adapter: str = field(string(256), "")
    """Reserved: id of a low-rank adapter."""
    rendered_at: int = field(integer(0, wire.U64_MAX), 0)
    """Unix seconds that a chat template sees as the present, equal for all attempts."""
    remaining_ms: int = field(integer(), 0)
    """Time left for the whole request; 0 is unbounded."""
    tenant: str = field(string(256), "")
    priority: int = field(integer(-100, 100), 0)
    """The lower is served first; one step is worth 16,384 tokens of the tenant's share in an engine's queue."""
    trace: str = field(string(128), "")
    parallel: int = field(integer(1, 1024), 1)
    """Reserved: tensor-parallel degree that the bits depend on."""
    kv_dtype: str = field(string(32), "")
    """Reserved: element type of the KV cache; empty is the model's."""
    alone: bool = field(flag, False)
    """An engine died with this flight in its step: compute it in steps of its own until it has proved harmless."""
    hops: int = field(integer(0, 8), 0)
    """Links crossed so far; a worker never forwards an attempt again."""
    grammar: bytes = field(raw(2**18), b"")
    """The output's grammar as the entry names it (`mesh.grammar`); empty leaves the output free. What a stream may
    say next is a function of these bytes and of the emitted ids."""
    text_digest: str = field(string(128), "")
    """Of the tokeniser and the chat template, pinned by the first attempt that was accepted: a worker with another
    would read other ids from the same prompt, and other text from the same ids, so it must refuse."""
    pooling: str = field(string(16), "")
    """`last` or `mean`: the answer is no text but the prompt's embedding, the state of its last token or the mean of
    all. FINISH carries it."""

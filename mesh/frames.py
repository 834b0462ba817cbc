"""The frames of a link: one header, a body that may grow at its end.

A frame is `type, flags, attempt, length, flight` (16 bytes, big endian) and a
body of `length` bytes. The same verbs join an entry to a worker and a worker's
control process to its engine, so that local, remote, moved and resumed work is
one code path, and a relay rewrites headers without reading bodies.

Bodies are records (`mesh.wire`): a reader ignores elements beyond those it
knows and takes the default for those that are missing; a frame of an unknown
type is skipped by its length and counted. Golden files guard the bytes.
"""

import enum
from typing import ClassVar, Self

import attrs

from mesh import wire
from mesh.wire import field, flag, integer, many, pair, raw, real, record, string

BODY_BYTES_MAX = 16 * 2**20
"""Largest body after its pieces are joined; a longer one closes the link."""

IDS_MAX = 2**17
"""Most token ids in one frame: the longest context that an attempt may carry."""


class Kind(enum.IntEnum):
    """Frame types. Numbers are for ever; 0 is never used; 48 and above are free."""

    HELLO = 1
    PING = 2
    PONG = 3
    GOSSIP = 4
    OPEN = 16
    ACCEPT = 17
    REJECT = 18
    TOKENS = 19
    FINISH = 20
    CANCEL = 21
    PROGRESS = 22
    PROMPT = 23
    KEEP = 24
    KEPT = 25
    FOLLOW = 26
    UNKEEP = 27
    SEEK = 28
    FOUND = 29
    TAKEN = 30
    READY = 32
    STATUS = 33
    STEP = 34
    PREPARED = 35


@attrs.frozen
class Frame:
    """One frame as it travels: the header's names and an opaque body."""

    kind: int
    flight: int = 0
    attempt: int = 0
    body: bytes = b""


@attrs.frozen
class Verb:
    """What a frame says. Fields are declared in wire order; new ones go at the end, with a default."""

    KIND: ClassVar[Kind]

    def frame(self, flight: int = 0, attempt: int = 0) -> Frame:
        """Encode into a frame of this verb's kind."""
        return Frame(self.KIND, flight, attempt, wire.pack(self))

    @classmethod
    def read(cls, frame: Frame) -> Self:
        """Decode a frame's body; total. Raises DecodeError for what does not fit the fields."""
        return wire.unpack(cls, frame.body)


_name = string(256)
_digest = string(128)
_message = string(4096)
_count = integer()


@attrs.frozen
class Hello(Verb):
    """First frame of each side: who speaks, and what it understands."""

    KIND = Kind.HELLO
    protocol: int = field(integer(1, 255))
    """Highest version of the protocol that the speaker knows; both use the lower of the two."""
    node: str = field(string(64))
    """The speaker's node id; an engine gives its replica's name."""
    generation: int = field(integer(0, wire.U64_MAX), 0)
    name: str = field(_name, "")
    """Label for people."""
    gossip: str = field(_name, "")
    """HOST:PORT where the speaker takes datagrams and links, so that a link dialled by it can be reused."""
    capabilities: tuple[str, ...] = field(many(string(64), 64), ())
    via: str = field(_name, "")
    """Reserved: the node that relays this link."""


@attrs.frozen
class Ping(Verb):
    """Ask the other side to echo: it proves that its process runs, not only its kernel."""

    KIND = Kind.PING
    token: int = field(integer(0, wire.U64_MAX))


@attrs.frozen
class Pong(Verb):
    """The echo."""

    KIND = Kind.PONG
    token: int = field(integer(0, wire.U64_MAX))
    lag_ms: int = field(_count, 0)
    """How late the speaker's own loop has lately run, in milliseconds."""


@attrs.frozen
class Accept(Verb):
    """The worker takes the attempt."""

    KIND = Kind.ACCEPT
    prompt_tokens: int = field(_count)
    cached_tokens: int = field(_count, 0)
    """Prompt tokens whose keys and values were found in the prefix cache."""
    model_digest: str = field(_digest, "")
    policy_digest: str = field(_digest, "")
    worker: str = field(_name, "")
    """Label of the node that serves."""
    text_digest: str = field(_digest, "")
    """Of the tokeniser and the chat template; empty if the worker is too old to say."""


@attrs.frozen
class Reject(Verb):
    """The worker does not take the attempt, or gives it up; `retryable` says whether another may."""

    KIND = Kind.REJECT
    code: str = field(string(64))
    """What went wrong, in one word of `snake_case`; `mesh.flight` names those that it tells apart."""
    message: str = field(_message, "")
    retryable: bool = field(flag, True)
    param: str = field(string(64), "")
    """The request's field that is at fault, if one is."""
    crashed: bool = field(flag, False)
    """The engine died while it computed a step with this attempt in it."""
    alone: bool = field(flag, False)
    """... and no other attempt was in that step."""
    retry_after_ms: int = field(_count, 0)


@attrs.frozen
class Logprob:
    """One token's log-probability and those of the likeliest tokens at its place."""

    token: bytes = field(raw(1024))
    logprob: float = field(real)
    top: tuple[tuple[bytes, float], ...] = field(many(pair(raw(1024), real), 32), ())


@attrs.frozen
class Tokens(Verb):
    """Produced tokens from `position` on, and the text that they complete.

    The text is the difference of a pure function of the ids before and after, so a
    successor at any position continues it to the byte.
    """

    KIND = Kind.TOKENS
    position: int = field(_count)
    """Index of the first id among the produced tokens."""
    ids: tuple[int, ...] = field(many(_count, IDS_MAX))
    text: str = field(string(BODY_BYTES_MAX), "")
    logprobs: tuple[Logprob, ...] = field(many(record(Logprob), IDS_MAX), ())


@attrs.frozen
class Finish(Verb):
    """The attempt has ended well."""

    KIND = Kind.FINISH
    position: int = field(_count)
    """Number of tokens produced in all; the entry takes the end only if it has them all."""
    reason: str = field(string(32))
    """`stop` or `length`, as OpenAI spells it."""
    text: str = field(string(BODY_BYTES_MAX), "")
    """Text held back until now: the end of a character or the start of a stop string."""
    stop: str = field(string(4096), "")
    """The stop string or token that ended it."""
    vector: bytes = field(raw(2**18), b"")
    """The embedding that was asked for (`Attempt.pooling`): little-endian float32."""


@attrs.frozen
class Cancel(Verb):
    """The entry no longer wants the attempt."""

    KIND = Kind.CANCEL
    reason: str = field(string(256), "")


@attrs.frozen
class Progress(Verb):
    """Prompt tokens computed so far: a long prefill is at work, not stuck."""

    KIND = Kind.PROGRESS
    done: int = field(_count)
    total: int = field(_count)


@attrs.frozen
class Ready(Verb):
    """An engine has loaded and warmed its model."""

    KIND = Kind.READY
    model: str = field(_name)
    model_digest: str = field(_digest)
    policy_digest: str = field(_digest)
    exact: bool = field(flag, True)
    """Whether the invariance probe held: equal requests give equal bits in any batch."""
    context_max: int = field(_count, 0)
    vocabulary: int = field(_count, 0)
    kv_tokens: int = field(_count, 0)
    """Tokens whose keys and values fit in the engine's memory."""
    device: str = field(_name, "")
    dtype: str = field(string(32), "")
    stages_ms: tuple[tuple[str, int], ...] = field(many(pair(string(64), _count), 32), ())
    """How long each stage of start-up took."""
    text_digest: str = field(_digest, "")
    """Of the tokeniser and the chat template."""


@attrs.frozen
class Status(Verb):
    """An engine's load, sent when it changes and at least once a second while there is work."""

    KIND = Kind.STATUS
    waiting: int = field(_count)
    running: int = field(_count)
    queued_tokens: int = field(_count)
    """Tokens still to be computed for the attempts it holds: prompts, and outputs as far as bounded."""
    kv_free_ratio: float = field(real)
    prefill_tokens_per_s: float = field(real, 0.0)
    decode_tokens_per_s: float = field(real, 0.0)
    """Measured over recent steps, all sequences together; 0 before the first."""
    guessed: int = field(_count, 0)
    """Ids guessed ahead since the engine's start, ..."""
    guesses_held: int = field(_count, 0)
    """... and those of them that were what was drawn."""
    text_worker_deaths: int = field(_count, 0)
    """Text workers that have died, most of them because a prompt or a grammar took too long."""


@attrs.frozen
class Step(Verb):
    """The tickets in the step that begins now; sent when they differ from the last step's.

    Should the engine die, its control process knows whom the crash may be blamed on.
    """

    KIND = Kind.STEP
    tickets: tuple[int, ...] = field(many(integer(0, wire.U64_MAX), 65536))


@attrs.frozen
class Prepared(Verb):
    """A text worker's answer to an OPEN: what the engine needs of a model's text to compute it."""

    KIND = Kind.PREPARED
    ids: tuple[int, ...] = field(many(_count, IDS_MAX))
    """The prompt's ids."""
    bad_words: tuple[tuple[int, ...], ...] = field(many(many(_count, 256), 256), ())
    """The request's `bad_words`, each spelling of each as ids."""


@attrs.frozen
class Ranked:
    """A token that might have stood at a place of the prompt."""

    id: int = field(_count)
    token: bytes = field(raw(1024))
    logprob: float = field(real)


@attrs.frozen
class PromptToken:
    """A token of the prompt, how likely it was at its place, and what was likeliest. The first has no likelihood."""

    id: int = field(_count)
    token: bytes = field(raw(1024))
    logprob: float = field(real, 0.0)
    rank: int = field(_count, 0)
    """How many tokens were likelier, plus one; 0 for the first."""
    top: tuple[Ranked, ...] = field(many(record(Ranked), 32), ())


@attrs.frozen
class Prompt(Verb):
    """Tokens of the prompt from `position` on, as far as they have been computed; before the first TOKENS."""

    KIND = Kind.PROMPT
    position: int = field(_count)
    tokens: tuple[PromptToken, ...] = field(many(record(PromptToken), IDS_MAX), ())

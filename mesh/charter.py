"""The charter of a resumable request, and the frames by which nodes keep it for one another.

A charter is all that another node needs to answer a request in its entry's stead: the note from which its
attempts are made again, and what the first workers said, so that the same model goes on. Its *tenure* counts
the entries that the request has had. These frames carry the claim's id as their flight and the tenure as their
attempt, so that the word of an entry that has been succeeded, and does not know it, is told from its successor's.
"""

import attrs

from mesh import wire
from mesh.claims import FLIGHTS_MAX, NOTE_BYTES_MAX
from mesh.flight import Chunk, Started
from mesh.frames import BODY_BYTES_MAX, IDS_MAX, Kind, Logprob, Verb
from mesh.wire import field, flag, integer, many, raw, record, string

PIECES_MAX = 2**16
"""Most pieces of logs in one frame."""

_count = integer()
_digest = string(128)


@attrs.frozen
class Choice:
    """One flight of the request, and what the worker that accepted it first said."""

    flight: int = field(integer(0, wire.U64_MAX))
    prompt_tokens: int = field(_count)
    cached_tokens: int = field(_count, 0)
    model_digest: str = field(_digest, "")
    policy_digest: str = field(_digest, "")
    text_digest: str = field(_digest, "")
    worker: str = field(string(256), "")

    @classmethod
    def of(cls, flight: int, started: Started) -> "Choice":
        """Note down a flight that has been accepted."""
        return cls(flight, **{name: getattr(started, name) for name in STARTED})

    def started(self) -> Started:
        """Return what the first worker said."""
        return Started(**{name: getattr(self, name) for name in STARTED})


STARTED = tuple(one.name for one in attrs.fields(Started))


@attrs.frozen
class Charter(Verb):
    """KEEP: an entry asks another node to keep a request for it."""

    KIND = Kind.KEEP
    choices: tuple[Choice, ...] = field(many(record(Choice), FLIGHTS_MAX))
    note: bytes = field(raw(NOTE_BYTES_MAX))


@attrs.frozen
class Kept(Verb):
    """The answer to KEEP, and to a FOLLOW of what is not kept here any more."""

    KIND = Kind.KEPT
    kept: bool = field(flag)


@attrs.frozen
class Piece:
    """Produced tokens of one choice, as they stand in its log."""

    choice: int = field(integer(0, FLIGHTS_MAX - 1))
    position: int = field(_count)
    ids: tuple[int, ...] = field(many(_count, IDS_MAX))
    text: str = field(string(BODY_BYTES_MAX), "")
    logprobs: tuple[Logprob, ...] = field(many(record(Logprob), IDS_MAX), ())

    @classmethod
    def of(cls, choice: int, chunk: Chunk) -> "Piece":
        """Note down a chunk of a log."""
        return cls(choice, chunk.position, chunk.ids, chunk.text, chunk.logprobs)

    def chunk(self) -> Chunk:
        """Return it as a log has it."""
        return Chunk(self.position, self.ids, self.text, self.logprobs)


@attrs.frozen
class Follow(Verb):
    """What the logs have gained since the last; without pieces it says that the request is still wanted."""

    KIND = Kind.FOLLOW
    pieces: tuple[Piece, ...] = field(many(record(Piece), PIECES_MAX), ())


@attrs.frozen
class Unkeep(Verb):
    """The request is over, and nobody will come back for it."""

    KIND = Kind.UNKEEP


@attrs.frozen
class Seek(Verb):
    """Somebody's client has come back: who keeps this request?"""

    KIND = Kind.SEEK


@attrs.frozen
class Found(Verb):
    """The answer to SEEK; no charter means that it is not here. The frame's attempt is the tenure."""

    KIND = Kind.FOUND
    charter: tuple[Charter, ...] = field(many(record(Charter), 1), ())
    pieces: tuple[Piece, ...] = field(many(record(Piece), PIECES_MAX), ())
    entry: str = field(string(64), "")
    """Node id of the entry; empty if it is the speaker."""


@attrs.frozen
class Taken(Verb):
    """Another entry has taken the request over: let go of it."""

    KIND = Kind.TAKEN

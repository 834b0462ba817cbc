"""The trustee: requests of other entries, kept here until they are over or nobody has spoken of them for long.

Each has the tenure of the entry that spoke last and is lawful: a higher tenure supersedes, and among equals the
last that asked. Whoever was superseded is told (TAKEN). Logs are kept as far as they come without a gap and
fit in `log_bytes_max`; what is missing of them is computed again. Everything is bounded; what does not fit is
refused, and its entry asks another node.
"""

import attrs

from mesh.agenda import Agenda
from mesh.charter import Charter, Follow, Found, Kept, Piece, Taken
from mesh.effects import SendFrame
from mesh.flight import CHUNK_BYTES, ID_BYTES, LOGPROB_BYTES
from mesh.frames import Frame, Verb
from mesh.now import Now


@attrs.frozen
class TrusteeOptions:
    """What a node keeps for others. Times in seconds."""

    lease_s: float = 75.0
    """A request is kept for so long after its entry has last spoken of it: longer than a client may stay away."""
    requests_max: int = 4096
    bytes_max: int = 128 * 2**20
    """Most bytes of notes and logs, roughly."""
    log_bytes_max: int = 2**20
    """Most bytes of one request's logs, roughly; what is beyond is not kept, and computed again if need be."""


@attrs.define
class Trust:
    """One request that is kept."""

    charter: Charter
    entry: str
    tenure: int
    pieces: list[Piece] = attrs.Factory(list)
    log_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What it holds, roughly."""
        return len(self.charter.note) + self.log_bytes

    def position(self, choice: int) -> int:
        """Return from which token on a choice's log is missing."""
        ends = [piece.position + len(piece.ids) for piece in self.pieces if piece.choice == choice]
        return ends[-1] if ends else 0


@attrs.define
class TrusteeStatistics:
    """Counters since the node started, and what is kept now."""

    kept: int = 0
    refused: int = 0
    expired: int = 0
    given: int = 0
    """Requests that another node has asked for."""
    requests: int = 0
    bytes: int = 0


@attrs.define
class Trustee:
    """All that this node keeps for others."""

    options: TrusteeOptions = TrusteeOptions()
    trusts: dict[int, Trust] = attrs.Factory(dict)
    statistics: TrusteeStatistics = attrs.Factory(TrusteeStatistics)
    _agenda: Agenda = attrs.field(init=False, factory=Agenda)

    def keep(self, now: Now, node: str, frame: Frame) -> list[SendFrame]:
        """Take a charter into custody. Raises DecodeError."""
        charter, trust = Charter.read(frame), self.trusts.get(frame.flight)
        if trust is not None and frame.attempt < trust.tenure:
            return [_to(node, Taken(), frame)]
        if trust is None and not self._has_room(charter):
            self.statistics.refused += 1
            return [_to(node, Kept(False), frame)]
        told = self._succeed(node, trust, frame)
        if trust is None or trust.charter != charter:
            self._forget(frame.flight)
            trust = self.trusts[frame.flight] = Trust(charter, node, frame.attempt)
            self._count(1, trust.bytes)
            self.statistics.kept += 1
        trust.entry, trust.tenure = node, frame.attempt
        self._renew(now, frame.flight)
        return [_to(node, Kept(True), frame), *told]

    def _succeed(self, node: str, trust: Trust | None, frame: Frame) -> list[SendFrame]:
        """Tell whoever had the request before that it has another entry now."""
        if trust is None or trust.entry == node:
            return []
        return [SendFrame(trust.entry, Taken().frame(frame.flight, frame.attempt))]

    def follow(self, now: Now, node: str, frame: Frame) -> list[SendFrame]:
        """Take what a log has gained. Raises DecodeError."""
        follow, trust = Follow.read(frame), self.trusts.get(frame.flight)
        if trust is None:
            return [_to(node, Kept(False), frame)]
        if (frame.attempt, node) != (trust.tenure, trust.entry):
            return [_to(node, Taken(), frame)]
        self._renew(now, frame.flight)
        for piece in follow.pieces:
            self._append(trust, piece)
        return []

    def _append(self, trust: Trust, piece: Piece) -> None:
        size = CHUNK_BYTES + len(piece.text) + ID_BYTES * len(piece.ids)
        size += LOGPROB_BYTES * sum(1 + len(one.top) for one in piece.logprobs)
        fits = trust.log_bytes + size <= self.options.log_bytes_max
        fits = fits and self.statistics.bytes + size <= self.options.bytes_max
        if fits and piece.ids and piece.position == trust.position(piece.choice):
            trust.pieces.append(piece)
            trust.log_bytes += size
            self._count(0, size)

    def unkeep(self, node: str, frame: Frame) -> list[SendFrame]:
        """Forget a request that is over, if its entry says so."""
        trust = self.trusts.get(frame.flight)
        if trust is not None and (frame.attempt, node) == (trust.tenure, trust.entry):
            self._forget(frame.flight)
        return []

    def find(self, id: int) -> Trust | None:
        """Return what is kept of a request."""
        return self.trusts.get(id)

    def drop(self, id: int) -> None:
        """Forget a request whose entry this node itself has become."""
        self._forget(id)

    def seek(self, node: str, frame: Frame) -> list[SendFrame]:
        """Give another node what is kept of a request, or say that nothing is."""
        trust = self.find(frame.flight)
        if trust is None:
            return [_to(node, Found(), frame)]
        self.statistics.given += 1
        found = Found((trust.charter,), tuple(trust.pieces), trust.entry)
        return [SendFrame(node, found.frame(frame.flight, trust.tenure))]

    def _has_room(self, charter: Charter) -> bool:
        options, held = self.options, self.statistics
        fits = held.bytes + len(charter.note) <= options.bytes_max
        return fits and held.requests < options.requests_max

    def _renew(self, now: Now, id: int) -> None:
        self._agenda.set(id, now.mono + self.options.lease_s)

    def _forget(self, id: int) -> None:
        trust = self.trusts.pop(id, None)
        if trust is not None:
            self._agenda.cancel(id)
            self._count(-1, -trust.bytes)

    def _count(self, requests: int, size: int) -> None:
        self.statistics.requests += requests
        self.statistics.bytes += size

    # -- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `tick` must be called; None while nothing is kept."""
        return self._agenda.next_deadline()

    def tick(self, now: Now) -> None:
        """Forget what nobody has spoken of for too long."""
        for id in self._agenda.due(now.mono):
            self.statistics.expired += 1
            self._forget(id)


def _to(node: str, verb: Verb, asked: Frame) -> SendFrame:
    return SendFrame(node, verb.frame(asked.flight, asked.attempt))

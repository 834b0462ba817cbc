"""Custody: this entry's claims are kept by another node, and others' are found where they are kept.

Theory of operation. The *ranking* of a claim orders all healthy peers by a hash of the claim's id and theirs
(rendezvous: Thaler and Ravishankar, IEEE/ACM ToN 6(1), 1998), so every node finds the same ones first. An entry
asks the first to keep the claim's charter (KEEP) and its client gets no byte before the answer (KEPT), or before
`tries_max` peers have been asked in vain: then the claim is `uncovered`, and only this entry can resume it. The
logs follow every `follow_s`, lazily: what has not arrived when the entry dies is computed again to the same bits.
When the keeper is lost, another is asked; one stays although newcomers may precede it, for those who seek ask several.

A node whose client comes back for a claim that it does not have asks the first `ask_max` of its ranking (SEEK)
and takes the answer of the highest tenure. It re-opens the flights under the next tenure and entrusts them in its turn.
"""

import hashlib
from collections.abc import Callable

import attrs

from mesh.agenda import Agenda
from mesh.charter import Charter, Choice, Follow, Found, Kept, Piece, Seek, Taken, Unkeep
from mesh.claims import Claims
from mesh.effects import SendFrame, Wake
from mesh.errors import DecodeError
from mesh.facts import ClaimTaken
from mesh.flight import Chunk, Flight
from mesh.frames import Frame, Kind, Verb
from mesh.now import Now
from mesh.trustee import Trustee, TrusteeOptions

Output = SendFrame | Wake | ClaimTaken

KINDS = frozenset((Kind.KEEP, Kind.KEPT, Kind.FOLLOW, Kind.UNKEEP, Kind.SEEK, Kind.FOUND, Kind.TAKEN))
"""Frames that are custody's."""

PIECES_PER_FOLLOW = 1024
"""Most pieces of a log told at once: a long one follows in several turns."""


@attrs.frozen
class CustodyOptions:
    """Times in seconds."""

    ack_s: float = 0.5
    """A peer that has not answered KEEP by then is passed over."""
    tries_max: int = 3
    follow_s: float = 0.5
    renew_s: float = 10.0
    """A claim is spoken of at least so often, or its keeper would forget it."""
    seek_s: float = 1.0
    """A peer that has not answered SEEK by then does not have it."""
    ask_max: int = 4
    seeks_max: int = 1024
    """Most claims sought at once."""
    trustee: TrusteeOptions = TrusteeOptions()


@attrs.define
class _Entrusted:
    """One claim of this entry, and who keeps it."""

    charter: Charter
    tenure: int
    keeper: str = ""
    """Who keeps it or has been asked to; empty if nobody."""
    kept: bool = False
    tries: int = 0
    settled: bool = False
    """Whether its client need not wait any more."""
    spoken_at: float = 0.0
    told: list[int] = attrs.Factory(list)
    """For each choice, chunks of its log that the keeper has been told."""


@attrs.define
class _Search:
    """A claim that somebody's client has come back for."""

    pending: set[str]
    best: "Finding | None" = None


@attrs.frozen
class Finding:
    """What was found of a claim."""

    charter: Charter
    tenure: int
    """That of the entry that had it, ..."""
    entry: str
    """... and its node id."""
    pieces: tuple[Piece, ...]

    def chunks(self, choice: int) -> tuple[Chunk, ...]:
        """Return a choice's log as far as it is known without a gap."""
        chunks: list[Chunk] = []
        end = 0
        for piece in self.pieces:
            if piece.choice == choice and piece.position == end and piece.ids:
                chunks.append(piece.chunk())
                end += len(piece.ids)
        return tuple(chunks)


@attrs.define
class CustodyStatistics:
    """Counters since the node started."""

    entrusted: int = 0
    uncovered: int = 0
    """Claims that no peer took, at first."""
    sought: int = 0
    found: int = 0
    taken: int = 0
    """Claims of this entry that another has taken over."""


def ranking(id: int, nodes: list[str]) -> list[str]:
    """Order nodes by their hash with a claim's id: the same at every node that knows the same peers."""
    key = id.to_bytes(8, "big")
    return sorted(nodes, key=lambda node: hashlib.blake2b(node.encode(), digest_size=8, key=key).digest())


@attrs.define
class Custody:
    """Both sides of it. `peers()` are the ids of the healthy peers, `flight(id)` a flight of this entry."""

    claims: Claims
    peers: Callable[[], list[str]]
    flight: Callable[[int], Flight | None]
    options: CustodyOptions = CustodyOptions()
    trustee: Trustee = attrs.field(init=False)
    statistics: CustodyStatistics = attrs.Factory(CustodyStatistics)
    _entrusted: dict[int, _Entrusted] = attrs.field(init=False, factory=dict)
    _searches: dict[int, _Search] = attrs.field(init=False, factory=dict)
    _agenda: Agenda = attrs.field(init=False, factory=Agenda)

    def __attrs_post_init__(self) -> None:
        self.trustee = Trustee(self.options.trustee)

    # -- this entry's claims ----------------------------------------------------------------------

    def entrust(self, now: Now, id: int, tenure: int) -> list[Output]:
        """Have a claim kept by a peer; a WAKE says that `is_settled`, which its client has to wait for.

        All its flights have been accepted.
        """
        claim = self.claims.held[id]
        self.trustee.drop(id)
        choices = tuple(self._choice(flight) for flight in claim.flights)
        told = [0] * len(choices)
        self._entrusted[id] = _Entrusted(Charter(choices, claim.note), tenure, told=told)
        if "follow" not in self._agenda:
            self._agenda.set("follow", now.mono + self.options.follow_s)
        return self._ask(now, id)

    def _choice(self, id: int) -> Choice:
        flight = self.flight(id)
        assert flight is not None
        assert flight.started is not None
        return Choice.of(id, flight.started)

    def is_settled(self, id: int) -> bool:
        """Whether a claim is kept elsewhere, or nobody can."""
        one = self._entrusted.get(id)
        return one is None or one.settled

    def keeper(self, id: int) -> str:
        """Return who keeps a claim of this entry; empty if nobody does."""
        one = self._entrusted.get(id)
        return one.keeper if one is not None and one.kept else ""

    def ended(self, id: int) -> list[Output]:
        """A claim has been given up: its keeper need not keep it."""
        self._agenda.cancel(("ack", id))
        one = self._entrusted.pop(id, None)
        return [] if one is None or not one.keeper else [_say(one, Unkeep(), id)]

    def _ask(self, now: Now, id: int, after: str = "") -> list[Output]:
        """Ask the first of the ranking, or the one after a peer that has failed."""
        one, order = self._entrusted[id], ranking(id, self.peers())
        place = order.index(after) + 1 if after in order else 0
        if place >= len(order) or one.tries >= self.options.tries_max:
            return self._uncovered(id)
        one.keeper, one.kept, one.tries = order[place], False, one.tries + 1
        one.told, one.spoken_at = [0] * len(one.told), now.mono
        self._agenda.set(("ack", id), now.mono + self.options.ack_s)
        return [_say(one, one.charter, id)]

    def _uncovered(self, id: int) -> list[Output]:
        one = self._entrusted[id]
        one.keeper, one.kept, one.tries = "", False, 0
        self.statistics.uncovered += not one.settled
        one.settled = True
        return [Wake(id)]

    def view_changed(self, now: Now) -> list[Output]:
        """Peers came, went or are no longer trusted: claims that none of them keeps are entrusted again."""
        if not self._entrusted:
            return []
        outputs: list[Output] = []
        peers = frozenset(self.peers())
        for id, one in [*self._entrusted.items()]:
            if peers and one.keeper not in peers:
                one.tries = 0
                outputs += self._ask(now, id)
        return outputs

    def _answered(self, now: Now, node: str, frame: Frame) -> list[Output]:
        one = self._entrusted.get(frame.flight)
        if one is None or one.keeper != node or one.tenure != frame.attempt:
            return []
        self._agenda.cancel(("ack", frame.flight))
        if not Kept.read(frame).kept:
            return self._ask(now, frame.flight, after=node)
        self.statistics.entrusted += not one.kept
        one.kept, one.tries, one.settled = True, 0, True
        return [Wake(frame.flight)]

    def _taken(self, frame: Frame) -> list[Output]:
        one = self._entrusted.get(frame.flight)
        if one is None or frame.attempt < one.tenure:
            return []
        self._agenda.cancel(("ack", frame.flight))
        del self._entrusted[frame.flight]
        self.statistics.taken += 1
        return [ClaimTaken(frame.flight)]

    def _follow(self, now: Now) -> list[Output]:
        outputs: list[Output] = []
        for id, one in self._entrusted.items():
            pieces = self._news(one) if one.kept else []
            if pieces or (one.kept and now.mono - one.spoken_at >= self.options.renew_s):
                one.spoken_at = now.mono
                outputs.append(_say(one, Follow(tuple(pieces)), id))
        if self._entrusted:
            self._agenda.set("follow", now.mono + self.options.follow_s)
        return outputs

    def _news(self, one: _Entrusted) -> list[Piece]:
        news: list[Piece] = []
        for number, choice in enumerate(one.charter.choices):
            flight = self.flight(choice.flight)
            log = flight.log if flight is not None else []
            begin = one.told[number]
            fresh = log[begin : begin + PIECES_PER_FOLLOW - len(news)]
            one.told[number] += len(fresh)
            news += [Piece.of(number, chunk) for chunk in fresh if chunk.ids]
        return news

    # -- claims of others -------------------------------------------------------------------------

    def seek(self, now: Now, id: int) -> list[Output]:
        """Ask who keeps a claim; a WAKE of its id says that `finding` knows."""
        if id in self._searches or len(self._searches) >= self.options.seeks_max:
            return []
        asked = ranking(id, self.peers())[: self.options.ask_max]
        search = self._searches[id] = _Search(set(asked))
        self.statistics.sought += 1
        trust = self.trustee.find(id)
        if trust is not None:
            search.best = Finding(trust.charter, trust.tenure, trust.entry, tuple(trust.pieces))
        self._agenda.set(("seek", id), now.mono + self.options.seek_s)
        return [SendFrame(node, Seek().frame(id)) for node in asked] or [Wake(id)]

    def is_sought(self, id: int) -> bool:
        """Whether answers are still awaited."""
        search = self._searches.get(id)
        return search is not None and bool(search.pending)

    def finding(self, id: int) -> Finding | None:
        """Take what a search has found, which is over."""
        search = self._searches.pop(id, None)
        self._agenda.cancel(("seek", id))
        self._agenda.cancel(("over", id))
        if search is None or search.best is None:
            return None
        self.statistics.found += 1
        return search.best

    def _sought(self, node: str, frame: Frame) -> list[Output]:
        """Answer a peer that seeks: what is kept here, or is this entry's own."""
        one = self._entrusted.get(frame.flight)
        if one is None:
            return [*self.trustee.seek(node, frame)]
        found = Found((one.charter,), tuple(self._pieces(one)))
        return [SendFrame(node, found.frame(frame.flight, one.tenure))]

    def _pieces(self, one: _Entrusted) -> list[Piece]:
        flights = [self.flight(choice.flight) for choice in one.charter.choices]
        logs = [flight.log if flight is not None else [] for flight in flights]
        pieces = [Piece.of(number, chunk) for number, log in enumerate(logs) for chunk in log if chunk.ids]
        return pieces[:PIECES_PER_FOLLOW]

    def _heard_of(self, node: str, frame: Frame) -> list[Output]:
        search = self._searches.get(frame.flight)
        if search is None or node not in search.pending:
            return []
        search.pending.discard(node)
        found = Found.read(frame)
        if found.charter and (search.best is None or frame.attempt > search.best.tenure):
            entry = found.entry or node
            search.best = Finding(found.charter[0], frame.attempt, entry, found.pieces)
        return [] if search.pending else [Wake(frame.flight)]

    def _asked(self, now: Now, node: str, frame: Frame) -> list[Output]:
        """Take a charter into custody, unless this node has itself succeeded its entry."""
        one = self._entrusted.get(frame.flight)
        if one is not None and frame.attempt < one.tenure:
            return [SendFrame(node, Taken().frame(frame.flight, frame.attempt))]
        return [*self.trustee.keep(now, node, frame)]

    def take_over(self, id: int, finding: Finding) -> list[Output]:
        """Tell the entry of a claim, should it live, that this node has succeeded it."""
        return [SendFrame(finding.entry, Taken().frame(id, finding.tenure + 1))]

    # -- frames and time --------------------------------------------------------------------------

    def receive(self, now: Now, node: str, frame: Frame) -> list[Output]:
        """Take a peer's frame of one of KINDS. Raises DecodeError."""
        match frame.kind:
            case Kind.KEEP:
                return self._asked(now, node, frame)
            case Kind.FOLLOW:
                return [*self.trustee.follow(now, node, frame)]
            case Kind.UNKEEP:
                return [*self.trustee.unkeep(node, frame)]
            case Kind.SEEK:
                return self._sought(node, frame)
            case Kind.KEPT:
                return self._answered(now, node, frame)
            case Kind.FOUND:
                return self._heard_of(node, frame)
            case Kind.TAKEN:
                return self._taken(frame)
        raise DecodeError(f"a frame of type {frame.kind} is not custody's")

    def next_deadline(self) -> float | None:
        """When `tick` must be called."""
        deadlines = [self._agenda.next_deadline(), self.trustee.next_deadline()]
        return min((one for one in deadlines if one is not None), default=None)

    def tick(self, now: Now) -> list[Output]:
        """Carry out what is due."""
        self.trustee.tick(now)
        outputs: list[Output] = []
        for key in self._agenda.due(now.mono):
            outputs += self._follow(now) if key == "follow" else self._late(now, *key)
        return outputs

    def _late(self, now: Now, name: str, id: int) -> list[Output]:
        if name == "ack":
            return self._ask(now, id, after=self._entrusted[id].keeper)
        search = self._searches[id]
        if name == "seek" and search.pending:
            search.pending.clear()
            self._agenda.set(("over", id), now.mono + self.options.seek_s)
            return [Wake(id)]
        del self._searches[id]
        return []


def _say(one: _Entrusted, verb: Verb, id: int) -> SendFrame:
    return SendFrame(one.keeper, verb.frame(id, one.tenure))

"""Custody in a mesh of a few nodes: a claim outlives its entry, and has one entry at a time."""

import contextlib

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.attempt import Attempt, Parameters, Segment
from mesh.charter import Charter, Choice, Follow, Kept, Piece
from mesh.claims import Claim, Claims
from mesh.custody import KINDS, Custody, CustodyOptions, Finding, ranking
from mesh.effects import SendFrame, Wake
from mesh.errors import DecodeError
from mesh.facts import ClaimEnded, ClaimTaken
from mesh.flight import Chunk, Flight, Started
from mesh.frames import Frame, Kind
from mesh.now import Now
from mesh.trustee import Trustee, TrusteeOptions

NODES = ["a", "b", "c", "d", "e"]
REQUEST = Attempt("m", (Segment("text", "hi"),), Parameters(), 7)
STARTED = Started(3, 1, "m", "p", "w", "x")
CHARTER = Charter((Choice.of(1, STARTED),), b"note")


def flight(id: int, chunks: tuple[Chunk, ...] = ()) -> Flight:
    made = Flight(id, REQUEST)
    made.restore(STARTED, chunks)
    return made


@attrs.define
class Mesh:
    """Nodes whose frames arrive in order and without loss, unless one end has died."""

    now: float = 0.0
    alive: dict[str, Custody] = attrs.Factory(dict)
    flights: dict[str, dict[int, Flight]] = attrs.Factory(dict)
    frames: list[tuple[str, SendFrame]] = attrs.Factory(list)
    options: CustodyOptions = CustodyOptions()

    def __attrs_post_init__(self) -> None:
        for node in NODES:
            flights = self.flights[node] = {}
            claims = Claims(lambda flight: 0)
            self.alive[node] = Custody(claims, lambda node=node: self.peers(node), flights.get, self.options)

    @property
    def at(self) -> Now:
        return Now(self.now, self.now)

    def peers(self, node: str) -> list[str]:
        return [other for other in self.alive if other != node]

    def carry(self, node: str, outputs: list) -> None:
        for output in outputs:
            match output:
                case SendFrame():
                    self.frames.append((node, output))
                case ClaimTaken(claim):
                    self.carry(node, self.alive[node].claims.end(claim))
                case ClaimEnded(claim, flights):
                    for id in flights:
                        self.flights[node].pop(id, None)
                    self.carry(node, self.alive[node].ended(claim))
                case Wake():
                    pass

    def deliver(self) -> None:
        while self.frames:
            source, send = self.frames.pop(0)
            if source in self.alive and send.node in self.alive:
                frame = Frame(send.frame.kind, send.frame.flight, send.frame.attempt, send.frame.body)
                self.carry(send.node, self.alive[send.node].receive(self.at, source, frame))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.deliver()
            due = [(d, n) for n, one in self.alive.items() if (d := one.next_deadline()) is not None]
            if not due or min(due)[0] > end:
                break
            self.now = max(self.now, min(due)[0])
            for node in [*self.alive]:
                self.carry(node, self.alive[node].tick(self.at))
        self.now = end

    def begin(self, node: str, id: int) -> None:
        self.flights[node][id] = flight(id)
        self.alive[node].claims.add(Claim(id, (id,), b"note %d" % id))
        self.carry(node, self.alive[node].entrust(self.at, id, 1))

    def grow(self, node: str, id: int, count: int = 1) -> None:
        one = self.flights[node][id]
        for _ in range(count):
            position = one.delivered
            one._append(Chunk(position, (position,), f"{position} "))

    def find(self, node: str, id: int) -> Finding | None:
        self.carry(node, self.alive[node].seek(self.at, id))
        self.deliver()
        if self.alive[node].is_sought(id):
            self.run(self.options.seek_s)
        return self.alive[node].finding(id)

    def take_over(self, node: str, id: int, finding: Finding) -> None:
        self.flights[node][id] = flight(id, finding.chunks(0))
        self.alive[node].claims.add(Claim(id, (id,), finding.charter.note))
        self.carry(node, self.alive[node].entrust(self.at, id, finding.tenure + 1))
        self.carry(node, self.alive[node].take_over(id, finding))

    def die(self, node: str) -> None:
        del self.alive[node]
        for other in self.alive:
            self.carry(other, self.alive[other].view_changed(self.at))

    def entries(self, id: int) -> list[str]:
        return [node for node, one in self.alive.items() if id in one.claims.held]


def test_a_client_is_served_once_a_peer_has_the_charter():
    mesh = Mesh()
    mesh.begin("a", 1)
    custody = mesh.alive["a"]
    assert (custody.is_settled(1), custody.keeper(1)) == (False, "")
    mesh.deliver()
    assert (custody.is_settled(1), custody.keeper(1)) == (True, ranking(1, ["b", "c", "d", "e"])[0])


def test_who_does_not_answer_is_passed_over_and_at_last_the_claim_goes_uncovered():
    mesh = Mesh()
    mesh.begin("a", 1)
    asked = []
    for _ in range(3):
        asked.append(mesh.frames[-1][1].node)
        mesh.frames.clear()
        mesh.now += mesh.options.ack_s
        mesh.carry("a", mesh.alive["a"].tick(mesh.at))
    assert asked == ranking(1, ["b", "c", "d", "e"])[:3]
    custody = mesh.alive["a"]
    assert (custody.is_settled(1), custody.keeper(1), custody.statistics.uncovered) == (True, "", 1)


def test_a_lone_node_serves_at_once():
    mesh = Mesh()
    for node in NODES[1:]:
        del mesh.alive[node]
    mesh.begin("a", 1)
    assert mesh.alive["a"].is_settled(1)


def test_a_full_peer_says_so_and_the_next_is_asked():
    mesh = Mesh(options=CustodyOptions(trustee=TrusteeOptions(bytes_max=3)))
    mesh.begin("a", 1)
    mesh.deliver()
    assert mesh.alive["a"].is_settled(1)
    assert sum(one.trustee.statistics.refused for one in mesh.alive.values()) == 3


def test_what_is_over_is_forgotten_at_once_and_what_nobody_speaks_of_in_time():
    mesh = Mesh()
    mesh.begin("a", 1)
    mesh.begin("a", 2)
    mesh.run(200)
    kept = [one.trustee.statistics.requests for one in mesh.alive.values()]
    assert sum(kept) == 2, "an idle claim is renewed"
    mesh.carry("a", mesh.alive["a"].claims.end(1))
    mesh.deliver()
    assert sum(one.trustee.statistics.requests for one in mesh.alive.values()) == 1
    mesh.die("a")
    mesh.run(mesh.options.trustee.lease_s - 11)
    assert sum(one.trustee.statistics.requests for one in mesh.alive.values()) == 1
    mesh.run(12)
    assert [one.trustee.trusts for one in mesh.alive.values()] == [{}] * 4


def test_the_entry_is_told_that_it_has_been_succeeded_and_lets_go():
    mesh = Mesh()
    mesh.begin("a", 1)
    mesh.run(1)
    finding = mesh.find("b", 1)
    assert (finding.tenure, finding.entry, finding.charter.note) == (1, "a", b"note 1")
    mesh.take_over("b", 1, finding)
    mesh.run(1)
    assert (mesh.entries(1), mesh.flights["a"], mesh.alive["a"].statistics.taken) == (["b"], {}, 1)


def test_logs_beyond_their_bound_are_not_kept_and_leave_no_gap():
    trustee = Trustee(TrusteeOptions(log_bytes_max=1000))
    trustee.keep(Now(0, 0), "a", CHARTER.frame(1, 1))
    for position, size in ((0, 100), (1, 900), (1, 100), (3, 1), (2, 1)):
        piece = Piece(0, position, (position,), "x" * size)
        assert trustee.follow(Now(0, 0), "a", Follow((piece,)).frame(1, 1)) == []
    trust = trustee.find(1)
    assert [(piece.position, len(piece.text)) for piece in trust.pieces] == [(0, 100), (1, 100)]
    assert trustee.statistics.bytes == trust.bytes <= 1004


def test_words_of_who_is_not_the_entry_change_nothing():
    trustee = Trustee()
    trustee.keep(Now(0, 0), "a", CHARTER.frame(1, 2))
    for node, tenure in (("b", 2), ("a", 1), ("b", 1)):
        [taken] = trustee.follow(Now(0, 0), node, Follow((Piece(0, 0, (1,)),)).frame(1, tenure))
        assert (taken.node, taken.frame.kind) == (node, Kind.TAKEN)
        trustee.unkeep(node, Frame(Kind.UNKEEP, 1, tenure))
    assert trustee.find(1).pieces == []
    [answer] = trustee.follow(Now(0, 0), "a", Follow().frame(9, 1))
    assert Kept.read(answer.frame) == Kept(False)


class Life(RuleBasedStateMachine):
    """Entries, keepers and seekers die one at a time, in between tokens; the claim is never lost."""

    @initialize()
    def begin(self) -> None:
        self.mesh, self.entry, self.longest = Mesh(), "a", 0
        self.mesh.begin("a", 1)
        self.mesh.deliver()

    @rule(count=st.integers(1, 30))
    def grow(self, count: int) -> None:
        self.mesh.grow(self.entry, 1, count)

    @rule(seconds=st.floats(0.1, 30))
    def wait(self, seconds: float) -> None:
        self.mesh.run(seconds)

    @precondition(lambda self: len(self.mesh.alive) > 2)
    @rule(data=st.data())
    def a_bystander_dies(self, data: st.DataObject) -> None:
        """The keeper, perhaps."""
        self.mesh.die(data.draw(st.sampled_from(self.mesh.peers(self.entry))))
        self.mesh.deliver()

    @precondition(lambda self: len(self.mesh.alive) > 2)
    @rule(data=st.data(), dies=st.booleans())
    def the_client_goes_elsewhere(self, data: st.DataObject, dies: bool) -> None:
        old, log = self.entry, self.mesh.flights[self.entry][1].log
        self.entry = data.draw(st.sampled_from(self.mesh.peers(old)))
        if dies:
            self.mesh.die(old)
        finding = self.mesh.find(self.entry, 1)
        assert finding is not None, "the claim is lost"
        assert finding.charter.note == b"note 1"
        known = finding.chunks(0)
        assert list(known) == log[: len(known)]
        self.mesh.take_over(self.entry, 1, finding)
        self.mesh.deliver()

    @invariant()
    def it_has_one_entry(self) -> None:
        if hasattr(self, "mesh"):
            assert self.mesh.entries(1) == [self.entry]
            assert self.mesh.alive[self.entry].is_settled(1)


TestLife = Life.TestCase


def test_every_frame_of_custody_is_total():
    custody = Mesh().alive["a"]
    for kind in KINDS:
        for body in (b"", b"\x90", b"\xc0", b"\x91\x91\x90"):
            with contextlib.suppress(DecodeError):
                custody.receive(Now(0, 0), "b", Frame(kind, 1, 1, body))

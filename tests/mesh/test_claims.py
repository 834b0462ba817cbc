"""Claims: kept while somebody reads, for a while after, and within their bytes."""

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesh.claims import Claim, ClaimOptions, Claims
from mesh.facts import ClaimEnded
from mesh.now import Now

OPTIONS = ClaimOptions(return_s=10.0, waiting_bytes_max=1000)


class Cloakroom(RuleBasedStateMachine):
    """Clients make claims, go, come back or do not, while their logs grow; against a model of a few lines."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.sizes: dict[int, int] = {}
        self.readers: dict[int, int] = {}
        self.left: dict[int, float] = {}
        self.claims = Claims(lambda flight: self.sizes[flight], OPTIONS)

    def settle(self, facts: list) -> list[int]:
        for fact in facts:
            assert isinstance(fact, ClaimEnded)
            assert fact.flights == (fact.claim, fact.claim + 1)
            assert not self.readers.pop(fact.claim), "somebody reads it"
            del self.left[fact.claim]
        return [fact.claim for fact in facts]

    @rule(size=st.integers(0, 400))
    def make(self, size: int) -> None:
        id = 2 * len(self.sizes) + 2
        self.sizes |= {id: size, id + 1: 0}
        self.claims.add(Claim(id, (id, id + 1), b"x" * 10))
        self.readers[id] = 1

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        reading = [id for id, readers in self.readers.items() if readers]
        if not reading:
            return
        id = data.draw(st.sampled_from(reading))
        self.readers[id] -= 1
        if not self.readers[id]:
            self.left[id] = self.now
        self.settle(self.claims.detach(Now(self.now, 0), self.claims.held[id]))

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from([*self.readers, 1]))
        claim = self.claims.attach(id)
        assert (claim is not None) == (id in self.readers)
        if claim is not None:
            self.readers[id] += 1
            self.left.pop(id, None)

    @rule(data=st.data(), more=st.integers(0, 300))
    def grow(self, data: st.DataObject, more: int) -> None:
        if self.sizes:
            self.sizes[data.draw(st.sampled_from([*self.sizes]))] += more

    @rule(seconds=st.floats(0.1, 8))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.claims.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.settle(self.claims.tick(Now(self.now, 0)))
        self.now = end
        assert all(self.now - left < OPTIONS.return_s for left in self.left.values())
        assert seconds < 1 or self.waiting_bytes() <= OPTIONS.waiting_bytes_max

    def waiting_bytes(self) -> int:
        return sum(10 + self.sizes[id] + self.sizes[id + 1] for id in self.left)

    @invariant()
    def what_is_held_is_what_is_owed(self) -> None:
        if not hasattr(self, "claims"):
            return
        assert set(self.claims.held) == set(self.readers)
        assert self.claims.waiting_flights == 2 * len(self.left)
        assert attrs.asdict(self.claims.statistics)["waiting"] == len(self.left)
        assert (self.claims.next_deadline() is not None) == bool(self.left)


TestCloakroom = Cloakroom.TestCase


def test_the_longest_waiting_goes_first():
    claims = Claims(lambda flight: 400, OPTIONS)
    for id in (1, 2, 3):
        claims.add(Claim(id, (id,), b""))
    ended = [claims.detach(Now(id, 0), claims.held[id]) for id in (2, 1, 3)]
    assert ended == [[], [], [ClaimEnded(2, (2,))]]
    assert (claims.statistics.evicted, claims.statistics.waiting) == (1, 2)


def test_a_claim_that_is_ended_is_ended_once():
    claims = Claims(lambda flight: 0, OPTIONS)
    claim = Claim(1, (1,), b"")
    claims.add(claim)
    assert claims.end(1) == [ClaimEnded(1, (1,))]
    assert (claims.end(1), claims.detach(Now(0, 0), claim), claims.attach(1)) == ([], [], None)
    claims.add(Claim(1, (1,), b""))
    assert claims.detach(Now(0, 0), claim) == []
    assert claims.readers(1) == 1

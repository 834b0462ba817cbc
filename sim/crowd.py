"""A crowd: thousands of membership cores in virtual time, and nothing else.

`sim.world` runs whole nodes. Here are `mesh.swim.Swim` and the real bytes alone, no engines and no
links, so that experiments of papers, meshes of ten thousand and long campaigns are affordable:

    crowd = Crowd(seed=7, options=CrowdOptions(swim=SwimOptions.lan()))
    crowd.form(128)                                  # node-1 .. node-128, who know one another already
    crowd.run_for(15.0)
    crowd.crash(5)
    crowd.run_until(lambda: crowd.everybody_sees(5, Liveness.DEAD), within_s=30.0)

Nodes are called by number, from 1; rules call them by name, `node-5` (`crowd.name(5)`).

What can be done
    begin     form(n) (they know one another), start(i, seeds=[..]) (joins through seeds),
              `swim=` and `skew_s=` for one node
    die       crash(i), restart(i) (a new generation: rumours of the old one are still about),
              leave(i), move(i, address) (NAT: the same process, another address)
    stall     pause(i) / resume(i): SIGSTOP. Packets queue up in the socket, timers come late; after
              it, what waits is read, 256 packets at most, before the first tick, as the driver does
              block(i) / unblock(i): Lifeguard's anomaly (section V-C). What the node sends and what it
              should receive is withheld while its timers run on; then all of it goes at once, in order
    network   lay(name, Rule(..)), lift(name), heal(): `sim.rule.Rule` by node names: cut, loss,
              duplicate, delay, jitter, of some senders to some receivers. cut(some, others),
              partition(group, group)
    clocks    crowd[i].skew_s, crowd[i].drift: the wall clock. Each life has its own monotonic origin
    else      at(time, act): anything, when its time comes. call(i, "publish_load", record): any input
What can be seen
    crowd[i] (`sim.peer.Peer`), core(i), sees(a, b), everybody_sees(i, liveness), converged()
    log       (time, number, fact or report), unless `keep_log` is off
    taps      each is called as tap(peer, outputs) after every input of every core
    counts    what was sent, delivered, lost; trace_digest() covers every byte delivered, in order,
              and every line of the log

What is sent reliably arrives after three trips of a path (a handshake and the data), later by a doubling
wait for each segment that is lost; a cut path loses it. With `refusals`, a sender is given evidence when
nobody listens at an address, as the link layer does; it is off because meshes of cores alone have no links.

One heap holds packets, one timer per node, and planned acts, ordered by (time, order of planning). Chance
comes from one stream per node and one per sender, derived from the seed, so a seed has one history.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mesh.codec import DATAGRAM_BYTES_MAX, RELIABLE_BYTES_MAX
from mesh.effects import Address, Effect, SendDatagram, SendReliable
from mesh.facts import Fact
from mesh.member import Liveness, Member
from mesh.roll import NOBODY, Roll
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from sim.crowd_options import CrowdCounts, CrowdOptions
from sim.paths import Paths
from sim.peer import Peer
from sim.rule import Groups, Rule, partition
from sim.stream import random_of

IP_UDP_BYTES = 28
DRAIN_MAX = 256
"""Packets that the driver reads before it ticks, however many wait."""
TRAIL_PACKETS = 256
"""Packets that enter the digest together."""

Tap = Callable[[Peer, Sequence[Effect | Fact]], None]


class Crowd:
    """One history. Deterministic in (seed, options, what is done to it)."""

    def __init__(self, seed: int = 0, options: CrowdOptions | None = None) -> None:
        self.seed = seed
        self.options = options or CrowdOptions()
        self.time = 0.0
        self.counts = CrowdCounts()
        self.peers: dict[int, Peer] = {}
        self.log: list[tuple[float, int, Effect | Fact]] = []
        self.taps: list[Tap] = []
        self.paths = Paths(self.options.network, self.counts)
        self._at_address: dict[Address, Peer] = {}
        self._heap: list[tuple[float, int, Peer | None, Any, Address | None, bool]] = []
        self._planned = 0
        self._trail: list[bytes] = []
        self._hash = hashlib.blake2b(digest_size=16)

    def __getitem__(self, index: int) -> Peer:
        return self.peers[index]

    # -- who --------------------------------------------------------------------------------------

    def name(self, index: int) -> str:
        """What rules call a node."""
        return f"node-{index}"

    def names(self, indices: Iterable[int]) -> frozenset[str]:
        """What rules call some nodes."""
        return frozenset(map(self.name, indices))

    def core(self, index: int) -> Swim:
        """The running core of a node."""
        core = self.peers[index].core
        assert core is not None, f"node-{index} is down"
        return core

    @property
    def running(self) -> list[Peer]:
        """Those whose process is up, stopped ones included."""
        return [peer for peer in self.peers.values() if peer.core is not None]

    def node(self, index: int) -> str:
        """The node id."""
        return self._account(index, 1).node

    def sees(self, observer: int, subject: int) -> Liveness | None:
        """What one believes of another; None if it never heard of it."""
        row = self.core(observer).member(self.node(subject))
        return row.liveness if row is not None else None

    def everybody_sees(self, subject: int, *liveness: Liveness) -> bool:
        """Whether all who run, the subject apart, believe one of these of it."""
        node = self.node(subject)
        rows = [peer.core.member(node) for peer in self.running if peer.index != subject and peer.core]
        return all(row is not None and row.liveness in liveness for row in rows)

    def converged(self) -> bool:
        """Whether all who run hold the same live view, in which all of them are alive."""
        cores = [peer.core for peer in self.running if peer.core]
        digests = {core.view_digest() for core in cores}
        return len(digests) <= 1 and all(
            row is not None and row.liveness is Liveness.ALIVE
            for core in cores[:1]
            for row in [core.member(other.me.node) for other in cores]
        )

    # -- life and death ---------------------------------------------------------------------------

    def form(self, count: int, swim: SwimOptions | None = None) -> None:
        """Start node-1 to node-`count`, who know one another and are seeds of one another."""
        assert not self.peers, "a crowd is formed once, first of all"
        known = Roll.of(self._account(index, 1) for index in range(1, count + 1))
        for index in range(1, count + 1):
            self._enter(self._seat(index, swim), known)

    def start(
        self,
        index: int,
        seeds: Iterable[int] = (),
        swim: SwimOptions | None = None,
        skew_s: float = 0.0,
        generation: int | None = None,
    ) -> Swim:
        """Start a node that joins through seeds; again after a crash: its next generation, or the one given."""
        peer = self._seat(index, swim)
        assert peer.core is None, f"{peer.name} runs already"
        peer.skew_s = skew_s or peer.skew_s
        peer.generation = generation - 1 if generation is not None else peer.generation
        self._enter(peer)
        self.call(index, "join", [self._seat(seed).address for seed in seeds])
        return self.core(index)

    def restart(self, index: int, seeds: Iterable[int] = ()) -> Swim:
        """Crash a node, if it runs, and start its next generation."""
        if self.peers[index].core is not None:
            self.crash(index)
        return self.start(index, seeds)

    def crash(self, index: int) -> None:
        """End a process at once; what it has sent still arrives."""
        peer = self.peers[index]
        self._note(f"crash {index}")
        peer.core = None
        peer.reset(0.0)

    def leave(self, index: int) -> None:
        """Let a node say goodbye; its process goes on, as the driver lets it for about a second."""
        self.call(index, "leave")

    def move(self, index: int, address: Address) -> None:
        """Give a running node another address, of which only packets tell."""
        peer = self.peers[index]
        del self._at_address[peer.address]
        peer.address = address
        self._at_address[address] = peer

    def pause(self, index: int) -> None:
        """Stop a process as SIGSTOP does."""
        self._note(f"pause {index}")
        self.peers[index].paused = True

    def resume(self, index: int) -> None:
        """Let a stopped process go on: it reads what waits, up to a bound, and then looks at its timers."""
        peer = self.peers[index]
        if peer.paused:
            self._note(f"resume {index}")
            peer.paused = False
            self._drain(peer, DRAIN_MAX)
            self._tick(peer)
            self._drain(peer, len(peer.inbox))

    def block(self, index: int) -> None:
        """Withhold what a node sends and what it should read, while its timers run on."""
        self._note(f"block {index}")
        self.peers[index].blocked = True

    def unblock(self, index: int) -> None:
        """Let a blocked node read and send, all at once and in order."""
        peer = self.peers[index]
        if peer.blocked:
            self._note(f"unblock {index}")
            peer.blocked = False
            waiting, peer.outbox = peer.outbox, []
            for output in waiting:
                self._post(peer, output)
            self._drain(peer, len(peer.inbox))

    def call(self, index: int, name: str, *arguments: Any, **keywords: Any) -> None:
        """Hand an input to a core by its name, `now` apart."""
        peer = self.peers[index]
        core = self.core(index)
        self._carry_out(peer, getattr(core, name)(peer.now(self.time), *arguments, **keywords))

    # -- the network ------------------------------------------------------------------------------

    def lay(self, name: str, *rules: Rule) -> None:
        """Put rules in force under a name, instead of those it had."""
        self.paths.lay(name, *rules)

    def lift(self, name: str) -> None:
        """Take back the rules of a name, if it has any."""
        self.paths.lift(name)

    def heal(self) -> None:
        """Take back every rule."""
        self.paths.heal()

    def cut(self, some: Iterable[int], others: Iterable[int], both_ways: bool = True) -> None:
        """Cut what some send to others, until the network is healed."""
        one, other = self.names(some), self.names(others)
        rules = [Rule(one, other, cut=True), *([Rule(other, one, cut=True)] if both_ways else [])]
        self.lay(f"cut {self._planned}", *rules)
        self._planned += 1

    def partition(self, *groups: Iterable[int]) -> None:
        """Cut groups from one another, until the network is healed."""
        named: Groups = tuple(tuple(map(self.name, group)) for group in groups)
        self.lay("partition", *partition(named))

    # -- time -------------------------------------------------------------------------------------

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Plan something."""
        self._push(max(time, self.time), None, act, None, False)

    def run_for(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.time + seconds
        heap, step = self._heap, self.step
        while heap and heap[0][0] <= end:
            step()
        self.time = end

    def run_until(self, holds: Callable[[], bool], within_s: float, every_s: float = 0.0) -> float | None:
        """Let time pass until something holds; return how long it took, None if it did not within the bound.

        `every_s` is how often it is asked; 0 is after every event.
        """
        start, end = self.time, self.time + within_s
        while not holds():
            if every_s:
                if self.time >= end:
                    return None
                self.run_for(min(every_s, end - self.time))
            elif self._heap and self._heap[0][0] <= end:
                self.step()
            else:
                self.time = end
                return self.time - start if holds() else None
        return self.time - start

    def step(self) -> None:
        """Let the next event happen."""
        self.time, _, peer, data, source, reliable = heapq.heappop(self._heap)
        self.counts.events += 1
        if source is not None:
            self._arrive(peer, data, source, reliable)
        elif peer is not None:
            self._wake(peer)
        else:
            data()

    def trace_digest(self) -> str:
        """The digest of everything so far, as hex."""
        digest = self._hash.copy()
        digest.update(b"".join(self._trail) + repr(self.time).encode())
        return digest.hexdigest()

    # -- inside -----------------------------------------------------------------------------------

    def _account(self, index: int, generation: int) -> Member:
        peer = self.peers.get(index)
        address = peer.address if peer is not None else self.options.address(index)
        return self.options.account(self.seed, index, generation, address)

    def _seat(self, index: int, swim: SwimOptions | None = None) -> Peer:
        peer = self.peers.get(index)
        if peer is None:
            chance = random_of(self.seed, "sender", index)
            address = self.options.address(index)
            peer = Peer(index, self.name(index), address, swim or self.options.swim, chance)
            self.peers[index] = self._at_address[address] = peer
        if swim is not None:
            peer.options = swim
        return peer

    def _enter(self, peer: Peer, known: Roll = NOBODY) -> None:
        peer.generation += 1
        rng = random_of(self.seed, "node", peer.index, peer.generation)
        peer.reset(float(rng.randrange(2**20)))
        me = self._account(peer.index, peer.generation)
        self._note(f"start {peer.index} {peer.generation}")
        peer.core = self.options.core(peer.options, me, rng, known)
        if len(known):
            self._carry_out(peer, peer.core.tick(peer.now(self.time)))

    def _push(self, at: float, peer: Peer | None, data: Any, source: Address | None, reliable: bool) -> None:
        self._planned += 1
        heapq.heappush(self._heap, (at, self._planned, peer, data, source, reliable))

    def _wake(self, peer: Peer) -> None:
        """The timer of a peer comes up, which may have been set for something that was cancelled."""
        if peer.timer_at != self.time:
            return
        peer.timer_at = None
        if peer.running:
            self._tick(peer)

    def _tick(self, peer: Peer) -> None:
        core = peer.core
        deadline = core.next_deadline() if core is not None else None
        if core is None or deadline is None:
            return
        if deadline - peer.origin_s > self.time:
            self._arm(peer)
            return
        self.counts.ticks += 1
        self._carry_out(peer, core.tick(peer.tick_now(self.time, deadline)))

    def _arm(self, peer: Peer) -> None:
        core = peer.core
        deadline = core.next_deadline() if core is not None else None
        if deadline is None or peer.paused:
            return
        due_at = deadline - peer.origin_s
        if peer.timer_at is None or due_at < peer.timer_at:
            peer.timer_at = due_at = due_at if due_at > self.time else self.time
            self._push(due_at, peer, None, None, False)

    def _arrive(self, peer: Peer, data: bytes, source: Address, reliable: bool) -> None:
        if peer.core is None:
            self.counts.nobody += 1
        elif not peer.paused and not peer.blocked:
            self._receive(peer, data, source, reliable)
        elif not peer.hold(data, source, reliable):
            self.counts.overflowed += 1

    def _drain(self, peer: Peer, most: int) -> None:
        for _ in range(min(most, len(peer.inbox))):
            if peer.core is not None and peer.inbox:
                self._receive(peer, *peer.read())

    def _receive(self, peer: Peer, data: bytes, source: Address, reliable: bool) -> None:
        self.counts.delivered += 1
        self._trail.append(data)
        if len(self._trail) >= TRAIL_PACKETS:
            self._flush_trail()
        core = peer.core
        assert core is not None, "nothing is delivered to who is down"
        self._carry_out(peer, core.receive(peer.now(self.time), data, source, reliable))

    def _carry_out(self, peer: Peer, outputs: list[Effect | Fact]) -> None:
        for output in outputs:
            kind = type(output)
            if kind is SendDatagram or kind is SendReliable:
                self._post(peer, output)
            else:
                self._hear(peer, output)
        self._arm(peer)
        for tap in self.taps:
            tap(peer, outputs)

    def _hear(self, peer: Peer, output: Effect | Fact) -> None:
        self._note(f"{peer.index} {output!r}")
        if self.options.keep_log:
            self.log.append((self.time, peer.index, output))

    def _post(self, peer: Peer, output: SendDatagram | SendReliable) -> None:
        if peer.blocked:
            peer.outbox.append(output)
            return
        reliable = type(output) is SendReliable
        size, counts = len(output.data), self.counts
        assert size <= (RELIABLE_BYTES_MAX if reliable else DATAGRAM_BYTES_MAX), f"a packet of {size} bytes"
        counts.packets += 1
        counts.bytes += size + IP_UDP_BYTES
        target = self._at_address.get(output.address)
        if target is None or (reliable and target.core is None):
            self._refuse(peer, output.address, reliable)
            return
        for wait_s in self.paths.trips_s(peer.chance, peer.name, target.name, reliable):
            self._push(self.time + wait_s, target, output.data, peer.address, reliable)

    def _refuse(self, peer: Peer, address: Address, reliable: bool) -> None:
        self.counts.nobody += 1
        core = peer.core
        if not (reliable and self.options.refusals and core is not None):
            return
        node = next((row.node for row in core.members() if row.address == address), None)
        if node is not None:
            self.at(self.time + self.options.network.delay_s, lambda: self._tell_refused(peer, core, node))

    def _tell_refused(self, peer: Peer, core: Swim, node: str) -> None:
        if peer.core is core and not peer.paused:
            self._carry_out(peer, core.evidence(peer.now(self.time), node, "refused"))

    def _note(self, line: str) -> None:
        if self._trail:
            self._flush_trail()
        self._hash.update(f"{self.time!r} {line}\n".encode())

    def _flush_trail(self) -> None:
        self._hash.update(b"".join(self._trail) + repr(self.time).encode())
        self._trail.clear()

"""A host: one machine, on which one life of a node runs after another.

It is the driver of `node.core.NodeCore` in virtual time: it hands in inputs with
the node's own clocks, in the order that `sim.loop` decides, carries out effects,
and keeps one tick due at the core's next deadline. Each life has a monotonic
origin of its own, so clocks of different nodes cannot be compared by mistake.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from mesh.effects import (
    Address,
    CloseLink,
    Dial,
    Effect,
    FlushLink,
    KeepGeneration,
    KillEngine,
    LinkId,
    Report,
    SendDatagram,
    StartEngine,
    Stop,
    ViewMoved,
    Wake,
)
from mesh.identity import Identity
from mesh.member import Member
from mesh.now import Now
from node.core import NodeCore
from sim.clock import Clock
from sim.engine import LOAD_S, SPAWN_S, Device, Engine
from sim.loop import Input, Loop
from sim.pipe import End
from sim.stream import random_of, seed_of

if TYPE_CHECKING:
    from sim.world import World

EPOCH_S = 1_700_000_000.0
"""The wall clock at virtual time 0."""

SOCKET_BYTES = 212_992
"""What a stopped process's UDP socket holds (Linux's default rmem); more is dropped."""

LEAVE_S = 1.0
"""Time between a node's goodbye and the end of its process: the goodbye has spread by then."""

SAMPLE_S = 0.25
"""How often the driver samples its engines' progress."""

ROUNDING_S = 1e-6
"""A tick this much too early is only the rounding of the clock's origin."""

Reader = Callable[[], None]


@attrs.define(eq=False)
class Host:
    """One machine and the node on it."""

    world: "World"
    name: str
    address: Address
    models: dict[str, str]
    """Replica -> model of the engines that it runs."""
    seeds: tuple[Address, ...]
    device: Device = Device()
    node: str = ""
    """Its node id, as its data directory has it; derived from the name unless it was copied from another."""
    label: str = ""
    """What its node calls itself; the host's own name unless two nodes are called the same."""
    generation: int = -1
    """Generation with which the running or last life began."""
    kept: int = -1
    """The generation that the data directory has, where the core has raised its own meanwhile."""
    core: NodeCore | None = None
    """The running node; None while it is down."""
    powered: bool = True
    paused: bool = False
    cost_s: float = 0.0
    """Processor time that each input takes; 0 is an idle machine."""
    skew_s: float = 0.0
    """How far the wall clock is ahead."""
    clock: Clock = attrs.Factory(Clock)
    disk_full: bool = False
    """Whether the data directory takes nothing: no life can begin, since its generation cannot be kept."""
    seen_as: Address | None = None
    """The source address that others see, where a gateway translates it."""
    sends_per_s: float | None = None
    """Most datagrams that its kernel takes in a second; the rest is an error to the sender. None is no limit."""
    socket_bytes: int = SOCKET_BYTES
    """What its UDP socket holds."""
    spoke_at: float = 0.0
    """When it last sent anything."""
    leaving: bool = False
    astray: bool = False
    """Whether its list of seeds names nobody; whoever has said goodbye and comes back so finds nobody."""
    moved: bool = False
    """Whether it has another address than those who remember it know."""
    farewell: bool = False
    """Whether it ever said goodbye: who has is not looked for."""
    newcomer: bool = False
    """Whether a fault has added it; it stays, but is not started again."""
    beyond: bool = False
    """Whether it was left broken and out of reach when the others were healed."""
    watched: bool = False
    """Whether checks that are costly look at it."""
    copied: bool = False
    """Whether another host has a copy of its data directory, or it is that copy."""
    heard_at: float = 0.0
    """When anything last came from another host."""
    inputs: int = 0
    """Inputs of this life so far."""
    ticks: int = 0
    engines: dict[str, Engine] = attrs.Factory(dict)
    readers: dict[int, Reader] = attrs.Factory(dict)
    """Who serves which flight's client."""
    _ends: dict[LinkId, End] = attrs.field(init=False, factory=dict)
    _loop: Loop | None = attrs.field(init=False, default=None)
    """The running life's."""
    _buffered: int = attrs.field(init=False, default=0)
    """Bytes in the UDP socket."""
    _overflowed: int = attrs.field(init=False, default=0)
    """Datagrams that found it full since the last tick."""
    _origin_s: float = attrs.field(init=False, default=0.0)
    _mono: float = attrs.field(init=False, default=0.0)
    _pids: int = attrs.field(init=False, default=0)
    _tokens: float = attrs.field(init=False, default=0.0)
    _refilled_at: float = attrs.field(init=False, default=0.0)
    _births: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.label = self.label or self.name
        self.node = self.node or self._fresh_id()

    def _fresh_id(self) -> str:
        births = (self._births,) if self._births else ()
        return f"{seed_of(self.world.seed, 'id', self.name, *births):016x}"

    # -- who and when -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The node id; the same in every life, as long as the data directory lasts."""
        return self.node

    @property
    def listening(self) -> bool:
        """Whether a process holds the node's port; a stopped one does."""
        return self.core is not None

    @property
    def is_well(self) -> bool:
        """Whether its node runs, means to stay, and may still reach the others."""
        return self.core is not None and not self.paused and not self.leaving and not self.beyond

    @property
    def is_copy(self) -> bool:
        """Whether it is a machine's copy, not the machine."""
        return self.copied and self.newcomer

    def now(self) -> Now:
        """Return the node's clocks."""
        local = self.clock.local(self.world.time)
        self._mono = max(self._mono, local + self._origin_s)
        return Now(self._mono, EPOCH_S + local + self.skew_s)

    # -- life and death ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life: a generation above the last, as the data directory remembers."""
        assert self.core is None, f"{self.name} runs already"
        if self.disk_full:
            self.world.note(self.name, "start_refused", reason="disk full")
            self.world.bite("FullDisk")
            return
        self.generation = max(self.generation, self.kept) + 1
        rng = random_of(self.world.seed, "node", self.name, self.generation, *self._lives())
        self.powered, self.paused, self.inputs, self.ticks, self.leaving = True, False, 0, 0, False
        self._origin_s, self._mono = float(rng.randrange(2**20)), 0.0
        self.heard_at = self.world.time
        self._loop = Loop(self, lambda: self.world.time, self.world.at)
        me = Member(
            Identity(self.id, self.generation), self.label, self.address, models=tuple(self.models.values())
        )
        self.core = self.world.options.core(me, self.models, self.world.options.node, rng)
        self.world.lives.setdefault(self.id, []).append(self)
        self.world.note(self.name, "started", generation=self.generation)
        self.give(lambda core, now: core.start(now, self.seeds))

    def _lives(self) -> tuple[int, ...]:
        return (self._births,) if self._births else ()

    def forget(self) -> None:
        """Lose the data directory: the next life is that of a new node."""
        assert self.core is None, f"{self.name} runs, and holds its data directory"
        self._births += 1
        self.node, self.generation, self.kept = self._fresh_id(), -1, -1

    def leave(self) -> None:
        """End the life with a goodbye, as an operator's SIGTERM does."""
        if self.core is None or self.leaving:
            return
        self.leaving = self.farewell = True
        core = self.core
        self.world.note(self.name, "leaving")
        self.give(lambda core, now: core.leave(now))
        self.world.at(self.world.time + LEAVE_S, lambda: self._left(core))

    def _left(self, core: NodeCore) -> None:
        if self.core is core:
            self.crash()

    def mend(self) -> None:
        """Undo everything that faults have done to the machine, but for its clock's reading and its frozen engines."""
        self.cost_s, self.sends_per_s, self.socket_bytes = 0.0, None, SOCKET_BYTES
        self.disk_full = False
        if self.seen_as is not None:
            self.world.network.hosts.pop(self.seen_as, None)
            self.seen_as = None
        self.clock.drift(self.world.time, 1.0)
        for engine in self.engines.values():
            engine.slowness = 1.0

    def crash(self, power: bool = False) -> None:
        """End the process at once. With `power` its machine goes too, and tells nobody."""
        if self.core is None:
            return
        self.world.note(self.name, "crashed", power=power)
        self._loop.closed = True
        self.core, self._loop, self.powered, self.paused, self._buffered = None, None, not power, False, 0
        self._overflowed = 0
        for end in self._ends.values():
            (self.world.pipes.vanish if power else self.world.pipes.close)(end)
        for engine in self.engines.values():
            engine.alive = False
        readers, self.readers = self.readers, {}
        self._ends, self.engines = {}, {}
        for reader in readers.values():
            reader()

    def pause(self, engines: bool = False) -> None:
        """Stop the process as SIGSTOP does: its kernel goes on. With `engines` they freeze for good."""
        self.paused = True
        self.world.note(self.name, "paused", engines=engines)
        if engines:
            for engine in self.engines.values():
                engine.freeze()

    def resume(self) -> None:
        """Let a stopped process go on: first with what has arrived, then with its timers."""
        if self.paused:
            self.paused = False
            self.world.note(self.name, "resumed")
            self._loop.run()

    # -- inputs -----------------------------------------------------------------------------------

    def give(self, take: Input) -> None:
        """Hand an input to the core, now or when the process gets to it; lost if it is down."""
        if self._loop is not None:
            self._loop.give(take)

    def take(self, give: Input) -> None:
        """Hand an input to the core and carry out what it wants. The loop's turn."""
        core, loop = self.core, self._loop
        assert core is not None and loop is not None, "a crash closes the loop"
        effects = give(core, self.now())
        self.inputs += 1
        if self.cost_s:
            loop.busy_until = self.world.time + self.cost_s
            self.world.bite("SlowNode")
        for effect in effects:
            self._carry_out(effect)
        loop.arm(self.clock.world(core.next_deadline() - self._origin_s))
        self.world.inspect(self, effects)

    def tick(self, core: NodeCore, now: Now) -> list[Effect]:
        """Tick the core, after telling it what its socket has dropped. The loop's turn."""
        self.ticks += 1
        early_s = core.next_deadline() - now.mono
        if 0.0 < early_s < ROUNDING_S:
            self._mono += early_s
            now = self.now()
        lost, self._overflowed = self._overflowed, 0
        return [*(core.lost_input(now, lost) if lost else ()), *core.tick(now)]

    @property
    def waited_s(self) -> float:
        """Longest that anything waited for this life's process to run."""
        return self._loop.waited_s if self._loop is not None else 0.0

    @property
    def overrun_s(self) -> float:
        """Longest that an input of this life waited through two ticks and more."""
        return self._loop.overrun_s if self._loop is not None else 0.0

    def datagram(self, source: Address, data: bytes) -> bool:
        """Take a datagram into the socket; return whether there was a socket, and room."""
        if self.core is None or self._buffered + len(data) > self.socket_bytes:
            self._overflowed += self.core is not None
            if self.core is not None and self.socket_bytes != SOCKET_BYTES:
                self.world.bite("SmallSocket")
            return False
        self._buffered += len(data)
        self.give(partial(self._receive, source, data))
        return True

    def _receive(self, source: Address, data: bytes, core: NodeCore, now: Now) -> list[Effect]:
        self._buffered -= len(data)
        self.heard_at = self.world.time
        self.world.trace.carried(self.world.time, source[0], self.name, data)
        return core.receive(now, data, source)

    # -- as an owner of streams' ends -------------------------------------------------------------

    def _sends(self) -> bool:
        """Whether the kernel takes one more datagram now (a token bucket of a tenth of a second)."""
        self.spoke_at = self.world.time
        if self.sends_per_s is None:
            return True
        refill = (self.world.time - self._refilled_at) * self.sends_per_s
        self._tokens = min(self.sends_per_s / 10, self._tokens + refill)
        self._refilled_at = self.world.time
        if self._tokens < 1.0:
            self.world.bite("FullSendBuffer" if self.sends_per_s else "SendDenied")
            return False
        self._tokens -= 1.0
        return True

    def output(self, end: End, bytes_max: int) -> bytes:
        """Give bytes to a connection or an engine."""
        return self.core.link_output(end.link, bytes_max) if self.core and end.link is not None else b""

    def accepted(self, end: End) -> None:
        """The kernel has taken a connection."""
        self.give(partial(self._accept, end))

    def _accept(self, end: End, core: NodeCore, now: Now) -> list[Effect]:
        end.link, effects = core.link_accepted(now)
        self._ends[end.link] = end
        return effects

    def opened(self, end: End) -> None:
        """A dial has succeeded."""
        self.give(lambda core, now: core.link_opened(now, end.link))

    def arrived(self, end: End, data: bytes) -> None:
        """Bytes wait in a connection."""
        self.give(partial(self._read, end, data))

    def _read(self, end: End, data: bytes, core: NodeCore, now: Now) -> list[Effect]:
        if not end.open:
            return []
        self.world.pipes.taken(end, len(data))
        if not isinstance(end.other.owner, Engine):
            self.heard_at = self.world.time
        self.world.trace.carried(self.world.time, end.other.owner.name, self.name, data)
        return core.link_data(now, end.link, data)

    def lost(self, end: End, reason: str) -> None:
        """A connection, or an engine's process, is gone."""
        self.give(partial(self._gone, end, reason))

    def _gone(self, end: End, reason: str, core: NodeCore, now: Now) -> list[Effect]:
        if end.link is None or self._ends.pop(end.link, None) is None:
            return []
        if end.other is not None and isinstance(end.other.owner, Engine):
            engine = end.other.owner
            del self.engines[engine.replica]
            return core.engine_exited(now, engine.replica, engine.reason)
        return core.link_lost(now, end.link, reason)

    # -- effects ----------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendDatagram(address, data):
                if self._sends():
                    self.world.network.send(self, address, data)
            case FlushLink(link):
                if link in self._ends:
                    self.spoke_at = self.world.time
                    self.world.pipes.flush(self._ends[link])
            case Dial(link, address):
                self._ends[link] = self.world.pipes.dial(self, link, address)
            case CloseLink(link, _):
                if link in self._ends:
                    self.world.pipes.close(self._ends.pop(link))
            case _:
                self._carry_out_here(effect)

    def _carry_out_here(self, effect: Effect) -> None:
        match effect:
            case StartEngine(replica, link):
                self._spawn(replica, link)
            case KillEngine(replica, reason):
                if replica in self.engines:
                    self.engines[replica].die(reason)
            case Wake(flight):
                if flight in self.readers:
                    self.world.at(self.world.time, self.readers[flight])
            case ViewMoved():
                pass
            case KeepGeneration(generation):
                self._keep(generation)
            case Stop(reason):
                self.world.trace.write(self.world.time, self.name, "stopped", (("reason", reason),))
                self.world.at(self.world.time, self.crash)
            case Report(event, fields):
                self.world.trace.write(self.world.time, self.name, event, fields)
            case _:
                raise AssertionError(f"{effect!r} is not for drivers")

    def _keep(self, generation: int) -> None:
        """Write down that the core has raised its generation; a disk that is full keeps the old one."""
        if self.disk_full:
            self.world.bite("FullDisk")
        else:
            self.kept = max(self.kept, generation)

    # -- engines ----------------------------------------------------------------------------------

    def _spawn(self, replica: str, link: LinkId) -> None:
        self._pids += 1
        engine = Engine(self, replica, self.models[replica], self._pids)
        end, engine.end = self.world.pipes.pair(self, engine)
        end.link = link
        self._ends[link] = end
        self.engines[replica] = engine
        self.world.at(self.world.time + SPAWN_S, partial(self._spawned, engine))

    def _spawned(self, engine: Engine) -> None:
        if not engine.alive:
            return
        self.give(lambda core, now: core.engine_started(now, engine.replica, engine.pid))
        self.world.at(self.world.time + LOAD_S, engine.load)
        self.world.at(self.world.time + SAMPLE_S, partial(self._sample, engine))

    def _sample(self, engine: Engine) -> None:
        if engine.alive:
            if not self.paused:
                self.give(lambda core, now: core.engine_progress(now, engine.replica, *engine.progress))
            self.world.at(self.world.time + SAMPLE_S, partial(self._sample, engine))

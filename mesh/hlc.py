"""Hybrid logical clocks: stamps that order writes across machines and never run backwards.

Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014), figure 5, in milliseconds. A stamp is
(wall ms, counter, node), compared in that order. Invariants:

- monotone: each stamp that a clock issues is greater than any that it has issued or observed;
- causal: hence a write made after another was seen is the greater, whatever the two wall clocks say;
- bounded: no stamp is issued or observed that is more than DRIFT_MS_MAX ahead of the physical
  clock, so that one machine with a bad clock cannot drag the mesh into the future;
- total: the node breaks ties.

The physical clock is this machine's, held within LEASH_MS of the median of what the mesh says
(`MeshTime`): a machine whose clock is hours off neither goes deaf nor floods the others with
stamps that they must refuse, so long as it hears two others.
"""

import statistics

import attrs

from mesh.errors import ClockError, DecodeError, shown
from mesh.identity import is_node_id
from mesh.now import Now
from mesh.wire import field, integer

WALL_MS_MAX = 2**48 - 1
"""The year 10889."""
COUNTER_MAX = 2**16 - 1
"""Writes within one millisecond; one more borrows the next millisecond."""
DRIFT_MS_MAX = 60_000
"""How far ahead of the physical clock a stamp may be: machines without NTP drift by seconds a day,
so a minute is somebody's mistake."""
LEASH_MS = 30_000
"""How far from the mesh's median this machine's own clock is believed: half the drift, so that what a
node on the leash stamps is within the drift of everybody near the median."""
VOICES_MAX = 15
"""Peers whose clocks are remembered; the one heard longest ago makes room."""


def node_id(value: object) -> str:
    """Read a node id."""
    if type(value) is not str or not is_node_id(value):
        raise DecodeError(f"`{shown(value)}` is no node id")
    return value


@attrs.frozen(order=True)
class Stamp:
    """When and by whom something was written."""

    wall_ms: int = field(integer(0, WALL_MS_MAX))
    counter: int = field(integer(0, COUNTER_MAX))
    node: str = field(node_id)
    """The author."""


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, within what a stamp can hold."""
    return max(0, min(WALL_MS_MAX, int(seconds * 1000)))


@attrs.define
class MeshTime:
    """The physical clock: this machine's, unless two or more others agree that it is far off."""

    _voices: dict[str, int] = attrs.field(init=False, factory=dict)
    """Of each peer: its wall clock minus our monotonic one, in ms, so that a jump of ours shows at once."""

    def heard(self, now: Now, node: str, wall_ms: int) -> None:
        """A peer says that its clock shows `wall_ms`. What it lost on the way makes it look a little late."""
        self._voices.pop(node, None)
        self._voices[node] = wall_ms - milliseconds(now.mono)
        if len(self._voices) > VOICES_MAX:
            del self._voices[next(iter(self._voices))]

    def ahead_ms(self, now: Now) -> int:
        """How far this machine's clock is ahead of the median, its own included; 0 if nobody was heard."""
        mine = milliseconds(now.wall)
        said = [offset + milliseconds(now.mono) for offset in self._voices.values()]
        return mine - statistics.median_low([mine, *said])

    @property
    def is_on_leash(self) -> bool:
        """Whether enough others were heard to know whose clock is wrong."""
        return len(self._voices) >= 2

    def is_far_ahead(self, now: Now) -> bool:
        """Whether the only peer heard is so far behind that it would refuse our stamps."""
        return len(self._voices) == 1 and self.ahead_ms(now) > DRIFT_MS_MAX

    def physical_ms(self, now: Now) -> int:
        """What the clock shows, on the leash. With one peer nobody can say who is wrong."""
        mine = milliseconds(now.wall)
        if not self.is_on_leash:
            return mine
        ahead_ms = self.ahead_ms(now)
        return mine - ahead_ms + max(-LEASH_MS, min(LEASH_MS, ahead_ms))


@attrs.define
class HybridClock:
    """Issues and observes the stamps of one node."""

    node: str
    _last: tuple[int, int] = attrs.field(init=False, default=(0, 0))

    @property
    def reading(self) -> tuple[int, int]:
        """(wall ms, counter) of the greatest stamp issued or observed; never falls."""
        return self._last

    def issue(self, physical_ms: int) -> Stamp:
        """The next stamp. Raises ClockError, nothing changed, if it would be too far ahead of the clock."""
        wall_ms, counter = self._last
        following = max((physical_ms, 0), _after(wall_ms, counter))
        if following[0] > min(physical_ms + DRIFT_MS_MAX, WALL_MS_MAX):
            raise ClockError(
                f"this machine's clock has gone back by {(wall_ms - physical_ms) / 1000:.0f} s,"
                f" over the limit of {DRIFT_MS_MAX // 1000} s\n"
                "hint: set the clock right and start the node again"
            )
        self._last = following
        return Stamp(*following, self.node)

    def observe(self, stamp: Stamp, physical_ms: int) -> bool:
        """Take in another's stamp. Returns False, nothing changed, if it is too far ahead of the clock."""
        if is_ahead(stamp, physical_ms):
            return False
        self._last = max(self._last, (stamp.wall_ms, stamp.counter))
        return True


def is_ahead(stamp: Stamp, physical_ms: int) -> bool:
    """Whether a stamp lies further in the future than any sane clock could."""
    return stamp.wall_ms > physical_ms + DRIFT_MS_MAX


def _after(wall_ms: int, counter: int) -> tuple[int, int]:
    return (wall_ms, counter + 1) if counter < COUNTER_MAX else (wall_ms + 1, 0)

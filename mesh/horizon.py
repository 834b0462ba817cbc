"""When tombstones may go: who may claim to know everything that was written before some time.

A claim too bold kills what it does not know (`mesh.records`, "the floor"), so it takes all of:

- agreement: the claim is made at the moment when a peer has shown the same digest and a clock within
  a minute of ours; or alone, in a mesh that nobody else has part in;
- the horizon: only what is older is claimed, so each write has had so long to get here. Floors are
  multiples of the epoch, so that those of all nodes are nearly always equal;
- the majority: more than half of those who took part and have not left are here (of two halves, the
  one with the least id), and have been, without a break, for a whole horizon: who has just come, or
  come back, claims nothing, and takes the floor of a peer whose rows it has. While there is no
  majority nobody is forgotten, so those who were cut off never claim against the rest, for however
  long; with it, the gone are forgotten after a horizon;
- a common history: tables whose floors have risen apart from one another, as in two meshes that were
  founded separately, do not merge at all. `founded_ms`, the least stamp ever seen, tells.

So whoever is absent for longer than the horizon comes back to find the others' floor above its own:
of what lies below it, copies that the others do not hold go; what was written later survives.
"""

import attrs

from mesh.hlc import DRIFT_MS_MAX

DAY_S = 86_400.0
HORIZON_S_MIN = 2 * DRIFT_MS_MAX / 1000
"""What clocks may differ by, both ways: within less, a floor could overtake what is being written."""


@attrs.frozen
class HorizonOptions:
    """Constants of a mesh: all nodes should have the same."""

    horizon_s: float = attrs.field(default=7 * DAY_S, validator=attrs.validators.ge(HORIZON_S_MIN))
    """How long a tombstone is kept at least, seconds. Longer: who was away for long loses less, and
    deletions take room for longer. As long as the dead are remembered (`remember_gone_s`)."""
    epoch_s: float = 3600.0
    """Floors are multiples of this, seconds. Shorter: tables are compared at unequal floors more often."""


@attrs.define
class Horizon:
    """Who takes part, and what may be claimed."""

    _me: str
    _options: HorizonOptions
    founded_ms: int = attrs.field(init=False, default=0)
    """Least wall time of any stamp ever seen; 0 before the first."""
    _present: dict[str, None] = attrs.field(init=False, factory=dict)
    _gone_at: dict[str, float] = attrs.field(init=False, factory=dict)
    _majority_since: float | None = attrs.field(init=False, default=None)
    """Monotonic seconds; None before the first input and while there is no majority."""

    def __attrs_post_init__(self) -> None:
        self._present[self._me] = None

    # Who takes part.

    def came(self, node: str, mono_s: float) -> None:
        """A member is live."""
        self._gone_at.pop(node, None)
        self._present[node] = None
        self._note_majority(mono_s)

    def went(self, node: str, mono_s: float, for_good: bool) -> None:
        """A member has died, or has left `for_good`: then it has no part any more.

        Those count, too, of whose death a newcomer only hears: it must not think the few here to be all.
        """
        self._present.pop(node, None)
        if for_good:
            self._gone_at.pop(node, None)
        else:
            self._gone_at.setdefault(node, mono_s)
        self._note_majority(mono_s)

    def _note_majority(self, mono_s: float) -> None:
        if not self.has_majority:
            self._majority_since = None
        elif self._majority_since is None:
            self._majority_since = mono_s

    @property
    def has_majority(self) -> bool:
        """Whether more than half of those who take part are here, or the better half."""
        here, gone = len(self._present), len(self._gone_at)
        return here > gone or (here == gone and min(self._present) < min(self._gone_at))

    @property
    def is_alone(self) -> bool:
        """Whether nobody else has part."""
        return len(self._present) == 1 and not self._gone_at

    def expire(self, mono_s: float) -> None:
        """Forget who has been gone for longer than the horizon, unless they are the majority."""
        if self.has_majority:
            oldest = mono_s - self._options.horizon_s
            self._gone_at = {node: since for node, since in self._gone_at.items() if since > oldest}

    # What may be claimed.

    def saw(self, wall_ms: int) -> None:
        """A stamp was seen."""
        if wall_ms and (not self.founded_ms or wall_ms < self.founded_ms):
            self.founded_ms = wall_ms

    def is_foreign(self, floor_ms: int, their_floor_ms: int, their_founded_ms: int) -> bool:
        """Whether a peer's table has another history than ours, so that neither may overrule the other."""
        return bool(floor_ms and their_floor_ms and self.founded_ms != their_founded_ms)

    def met(self, floor_ms: int, their_floor_ms: int, their_founded_ms: int) -> None:
        """Take a peer's word on when all this began. A table with a floor never changes its own."""
        if not floor_ms:
            if their_floor_ms:
                self.founded_ms = their_founded_ms
            else:
                self.saw(their_founded_ms)

    def is_sane(self, floor_ms: int, physical_ms: int) -> bool:
        """Whether a floor lies at least a horizon back, give or take a clock's error."""
        return floor_ms <= max(0, physical_ms - self._horizon_ms + DRIFT_MS_MAX)

    def claim_ms(self, physical_ms: int, their_ms: int, mono_s: float) -> int:
        """The floor that may be claimed now, in agreement with a peer whose clock shows `their_ms`; or 0."""
        self._note_majority(mono_s)
        since = self._majority_since
        if since is None or mono_s - since < self._options.horizon_s:
            return 0
        if abs(physical_ms - their_ms) > DRIFT_MS_MAX:
            return 0
        before_ms = min(physical_ms, their_ms) - self._horizon_ms
        floor_ms = before_ms - before_ms % int(self._options.epoch_s * 1000)
        return floor_ms if 0 < self.founded_ms < floor_ms else 0

    @property
    def _horizon_ms(self) -> int:
        return int(self._options.horizon_s * 1000)

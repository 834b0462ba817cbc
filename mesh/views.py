"""The view as applications follow it: a snapshot first, then changes, in order and few.

Theory of operation. Membership changes in bursts: a rack dies, a thousand nodes join. Whoever rebuilds a
routing table or a page per change is the second casualty (of 2,000 joins memberlist tells its host
1,858 times, Rapid 4 times: ATC 2018). So changes are held back

    (still)    -- change -->                                     GATHERING
    GATHERING  -- change -->                                     GATHERING, QUIET_S from now, but
    GATHERING  -- QUIET_S since the last change,
                  or LONGEST_S since the first: tell them -->    (still)

and what has been undone meanwhile is not told at all. What counts is who is there, in which life, and what it
says of itself; doubts and incarnations that change none of that are membership's own business.

Invariants: changes are numbered from 1 without a gap; the snapshot of number k, and the changes k + 1, k + 2, ...
laid over it, give the view at each of them; the newest KEPT changes can be had again.
"""

import collections
import enum

import attrs

from mesh.agenda import Agenda
from mesh.effects import ViewMoved
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.now import Now

QUIET_S = 0.2
"""A burst is over when nothing has changed for so long (research: Rapid batches by quiet periods)."""
LONGEST_S = 1.0
"""Changes are told so late at most, however long a burst lasts."""
KEPT = 64
"""Changes remembered for followers; who is further behind begins with a snapshot again."""


class ViewTimer(enum.Enum):
    """Agenda key: a burst of changes is over, or has lasted long enough."""

    TELL = "tell"


@attrs.frozen
class ViewChange:
    """Members that came, went or changed their word, each as it is now; whole, so the newest may simply be kept."""

    number: int
    at_s: float
    """Monotonic seconds."""
    members: tuple[Member, ...]
    """By node id. Suspects count as alive. Who is dead or has left is no longer in the view."""


class Views:
    """The numbered changes of the view of one node. Bounded by the table of members, and by KEPT."""

    def __init__(self, members: Members, agenda: Agenda) -> None:
        self._members = members
        self._agenda = agenda
        self._before: dict[str, Member | None] = {}
        """What followers were last told of those who have changed since."""
        self._first_at = 0.0
        self._changes: collections.deque[ViewChange] = collections.deque(maxlen=KEPT)
        self.number = 0
        """Of the newest change that was told."""

    def note(self, now: Now, before: Member | None, after: Member) -> None:
        """An account was added or replaced."""
        if _face(before) == _face(after):
            return
        if not self._before:
            self._first_at = now.mono
        self._before.setdefault(after.node, before)
        self._agenda.set(ViewTimer.TELL, min(now.mono + QUIET_S, self._first_at + LONGEST_S))

    def due(self, now: Now) -> ViewMoved | None:
        """Tell what has changed. None if it has all been undone."""
        changed = {
            node: before for node, before in self._before.items() if _face(before) != _face(self._row(node))
        }
        self._before = {}
        rows = [row for node in sorted(changed) if (row := self._row(node)) is not None]
        if not rows:
            return None
        self.number += 1
        self._changes.append(ViewChange(self.number, now.mono, tuple(map(_plain, rows))))
        return ViewMoved(self.number)

    def snapshot(self, now: Now) -> ViewChange:
        """Everybody who is there now, this node included, under the number of the newest change."""
        rows = sorted((row for row in self._members.all() if row.is_live), key=lambda row: row.node)
        return ViewChange(self.number, now.mono, tuple(map(_plain, rows)))

    def since(self, number: int) -> tuple[ViewChange, ...] | None:
        """The changes after `number`, in order; None if they are no longer all kept: take a snapshot."""
        if number < self.number - len(self._changes) or number > self.number:
            return None
        return tuple(change for change in self._changes if change.number > number)

    def _row(self, node: str) -> Member | None:
        return self._members.get(node)


def _plain(row: Member) -> Member:
    """As followers see it: a suspect is still there."""
    return attrs.evolve(row, liveness=Liveness.ALIVE) if row.liveness is Liveness.SUSPECT else row


def _face(row: Member | None) -> object:
    """What followers care about: nothing of who is not there, else all but doubts and incarnations."""
    if row is None or not row.is_live:
        return None
    identity = attrs.evolve(row.identity, incarnation=0)
    return attrs.evolve(row, identity=identity, liveness=Liveness.ALIVE)

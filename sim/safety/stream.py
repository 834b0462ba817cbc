"""A check of the view as applications follow it: a follower of each node's stream, who must see what is."""

from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect, ViewMoved
from mesh.member import Member
from mesh.views import LONGEST_S, ViewChange
from sim.safety.life import SLOWEST, Life, life, object_to

if TYPE_CHECKING:
    from sim.host import Host

PATIENCE_S = 2 * LONGEST_S / SLOWEST
"""Changes are told within `LONGEST_S`, if the process runs."""


@attrs.define
class Follower:
    """What one follower believes: where each live node is, and in which life."""

    number: int
    view: dict[str, tuple[object, ...]]
    differs_since: float | None = None

    def take(self, change: ViewChange) -> None:
        """Lay a change over what is believed."""
        self.number = change.number
        for row in change.members:
            self.view.pop(row.node, None)
            if row.is_live:
                self.view[row.node] = seen(row)


def seen(row: Member) -> tuple[object, ...]:
    """What a follower routes by."""
    return row.identity.generation, row.address, row.models, row.draining, row.zone


@attrs.define
class StreamCheck:
    """stream_true."""

    _followers: dict[Life, Follower] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Begin with a snapshot; take each change as it is told, and compare now and then."""
        views = host.core.swim.views
        follower = self._followers.get(life(host))
        if follower is None:
            snapshot = views.snapshot(host.now())
            first = {row.node: seen(row) for row in snapshot.members}
            self._followers[life(host)] = Follower(snapshot.number, first)
        elif any(isinstance(effect, ViewMoved) for effect in effects):
            for change in views.since(follower.number) or ():
                follower.take(change)
            host.world.reach("view_moved")
            self._compare(host, follower)
        elif host.inputs % 32 == 0:
            self._compare(host, follower)

    def _compare(self, host: "Host", follower: Follower) -> None:
        true = {row.node: seen(row) for row in host.core.swim.members() if row.is_live}
        if true == follower.view or host.leaving or host.paused:
            follower.differs_since = None
        elif follower.differs_since is None:
            follower.differs_since = host.world.time
        elif host.world.time - follower.differs_since > PATIENCE_S + host.waited_s:
            wrong = [node for node in {**true, **follower.view} if true.get(node) != follower.view.get(node)]
            object_to(host, "stream_true", f"its followers see {wrong} wrongly, at number {follower.number}")

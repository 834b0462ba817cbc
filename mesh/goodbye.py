"""A goodbye of a member that somebody else tells us: heard, and not yet believed.

Theory of operation. A goodbye that comes from its own subject, from where that subject is known to be, is
believed at once. Told by another it may be a lie, so that its subject is looked at first, and the rumour is passed
on only once it is believed. The stages are those of the last look before a death (`mesh.inquest`):

    stage   moved by                                              to        what the owner does
    (none)  somebody says that a live peer has left, and a ping   LOOK      a round with as many asks as loss
            of ours was just answered                                       demands
    (none)  the same, and none was                                DEAF      ping a few others; where loss says that we
                                                                            are deaf, nothing: turns to probe go on
    DEAF    an echo                                               LOOK      a round, as above
    LOOK    it answers, us or a helper                            (none)    it stays what it was
    LOOK    it sends, and answers nobody                          DEAF      look again with an echo of the next period
    LOOK    the round fails, and its machine refused              (none)    left: its process is gone
    LOOK    the round fails                                       HEAR      ping a few others
    HEAR    an echo, and traffic from it since the look began     DEAF      as above
    HEAR    an echo of a later ping                               (none)    left
    any     its own account, which the rumour does not top        (none)    the rumour is void

A process that says goodbye answers no ping, though it may send while it ends (its streams drain), so that mere
traffic neither proves nor refutes it; the look costs a true goodbye one round, or some until it has ended. At most
one rumour is kept of each live peer, the one that stands highest. Where our own machine drops datagrams, a look goes
on for a verdict more, twice at most (`mesh.inquest`).
"""

import attrs

from mesh.inquest import Inquest, Stage
from mesh.member import Member, merge
from mesh.probe import HELD_MAX


@attrs.frozen
class Goodbye:
    """One rumour. Times are monotonic seconds."""

    said: Member
    """The account that is rumoured, LEFT."""
    inquest: Inquest
    born_at: float
    """When it was first said, as far as is known."""
    ours: bool = False
    """Whether an operator of this node has said it: he is told what became of it."""

    def told_again(self, said: Member, ours: bool) -> "Goodbye":
        """The rumour with this account, if it stands higher; the look goes on."""
        return attrs.evolve(self, said=merge(said, self.said), ours=self.ours or ours)

    def looked_at(self, now_s: float) -> "Goodbye":
        """The look begins (again)."""
        return attrs.evolve(self, inquest=Inquest(self.said.identity, Stage.LOOK, now_s, now_s))

    def unanswered(self, now_s: float) -> "Goodbye":
        """The look has failed."""
        return attrs.evolve(self, inquest=self.inquest.failed(now_s))

    def deferred(self, since_s: float) -> "Goodbye":
        """The look begins anew with the echo of a ping sent at `since_s` or later."""
        return attrs.evolve(self, inquest=attrs.evolve(self.inquest, stage=Stage.DEAF, since=since_s))

    def held_on(self, now_s: float) -> "Goodbye":
        """Our own input was lost: the look goes on."""
        return attrs.evolve(self, inquest=self.inquest.held_on(now_s))

    def deaf(self) -> "Goodbye":
        """This process was away: the look begins anew once it hears."""
        return attrs.evolve(self, inquest=attrs.evolve(self.inquest, stage=Stage.DEAF))


@attrs.define
class Goodbyes:
    """The rumours that are looked into, at most one of each live peer."""

    _rumours: dict[str, Goodbye] = attrs.field(factory=dict, init=False)

    def __contains__(self, node: str) -> bool:
        return node in self._rumours

    def __getitem__(self, node: str) -> Goodbye:
        return self._rumours[node]

    def hear(self, now_s: float, said: Member, born_at: float, ours: bool) -> bool:
        """Keep a rumour. Returns whether it is the first of its subject."""
        known = self._rumours.get(said.node)
        inquest = Inquest(said.identity, Stage.DEAF, now_s, now_s)
        new = known.told_again(said, ours) if known is not None else Goodbye(said, inquest, born_at, ours)
        self._rumours[said.node] = new
        return known is None

    def look(self, now_s: float, node: str) -> None:
        """The look begins."""
        self._rumours[node] = self._rumours[node].looked_at(now_s)

    def unanswered(self, now_s: float, node: str) -> bool:
        """A round has failed. Returns whether it was a look; then an echo decides."""
        goodbye = self._rumours.get(node)
        if goodbye is None or goodbye.inquest.stage is not Stage.LOOK:
            return False
        self._rumours[node] = goodbye.unanswered(now_s)
        return True

    def defer(self, node: str, since_s: float) -> None:
        """It sends, and answers nobody, as one who ends: look again with an echo of a ping sent after `since_s`."""
        if node in self._rumours:
            self._rumours[node] = self._rumours[node].deferred(since_s)

    def hold_on(self, now_s: float) -> list[str]:
        """Our own input was lost: return those to be looked at further, twice each at most."""
        held = [
            node
            for node, goodbye in self._rumours.items()
            if goodbye.inquest.stage is Stage.HEAR and goodbye.inquest.held < HELD_MAX
        ]
        for node in held:
            self._rumours[node] = self._rumours[node].held_on(now_s)
        return held

    def waiting(self, sent_at: float) -> list[tuple[str, Inquest]]:
        """Those about whom the echo of a ping sent at `sent_at` says something."""
        if not self._rumours:
            return []
        inquests = [(node, goodbye.inquest) for node, goodbye in self._rumours.items()]
        return [(node, it) for node, it in inquests if it.stage is not Stage.LOOK and sent_at >= it.since]

    def take(self, node: str) -> Goodbye | None:
        """Keep it no longer."""
        return self._rumours.pop(node, None)

    def deafen(self) -> None:
        """This process was away."""
        self._rumours = {node: goodbye.deaf() for node, goodbye in self._rumours.items()}

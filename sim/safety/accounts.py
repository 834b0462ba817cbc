"""Checks of the table of members: what each node believes of each."""

from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect
from mesh.member import Liveness, Member
from sim.safety.life import Life, life, object_to

if TYPE_CHECKING:
    from sim.host import Host

Age = tuple[int, int]
View = tuple[tuple[str, int, int, int], ...]

PEACE_S = 20.0
"""Deaths that were under way when the healing began are over by then, at the slowest preset."""


@attrs.define
class AccountCheck:
    """Looks at each account that an input has changed."""

    _rows: dict[Life, tuple[Member, ...]] = attrs.field(init=False, factory=dict)
    _truth: dict[tuple[str, int, int], tuple[object, ...]] = attrs.field(init=False, factory=dict)
    _own: dict[tuple[str, str], Age] = attrs.field(init=False, factory=dict)
    _newest: dict[str, Age] = attrs.field(init=False, factory=dict)
    """The greatest age that each node has given itself."""
    _goodbyes: dict[tuple[str, int], bool] = attrs.field(init=False, factory=dict)
    _views: dict[bytes, View] = attrs.field(init=False, factory=dict)
    _digests: dict[View, bytes] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look at the accounts that this input has changed."""
        self._note_doubts(host)
        rows = host.core.swim.members()
        known = self._rows.get(life(host), ())
        if rows == known:
            return
        self._rows[life(host)] = rows
        before = {row.node: row for row in known}
        for row in rows:
            old = before.get(row.node)
            if row is not old and row != old:
                self._changed(host, old, row)
        self._digest(host, rows)

    def _changed(self, host: "Host", old: Member | None, new: Member) -> None:
        host.world.reach(new.liveness.name.lower())
        if new.node == host.id:
            self._own_account(host, new)
        if old is not None:
            self._moved(host, old, new)
        self._one_truth(host, new)
        self._own_word(host, new)
        if new.liveness is Liveness.DEAD and old is not None and old.is_live:
            self._false_death(host, new)
        if new.liveness is Liveness.LEFT and (new.node, new.identity.generation) not in self._goodbyes:
            if old is not None:
                self._false_death(host, new)
            object_to(host, "left_itself", f"{new.name} has left, and has never said so")

    def _note_doubts(self, host: "Host") -> None:
        """Remember since when it has had a case against whom, until that is settled."""
        swim, doubts = host.core.swim, host.world.doubted.setdefault(life(host), {})
        open_against = swim.doubted
        for identity in tuple(doubts):
            row = swim.member(identity.node)
            lives = row is not None and row.identity == identity and row.liveness is Liveness.ALIVE
            if lives and identity.node not in open_against:
                del doubts[identity]
        for node in open_against:
            row = swim.member(node)
            assert row is not None, "cases are of members"
            doubts.setdefault(row.identity, host.world.time)

    def _moved(self, host: "Host", old: Member, new: Member) -> None:
        if new.identity.age < old.identity.age:
            object_to(host, "account_ages", f"{new.name} fell from {old.identity.age} to {new.identity.age}")
        returned = old.liveness >= Liveness.DEAD and new.liveness < old.liveness
        host.world.reach("returned" if returned else "changed")
        if returned and new.identity.age <= old.identity.age:
            was, now = old.liveness.name, new.liveness.name
            object_to(host, "gone_returns", f"{new.name} went from {was} to {now} at {new.identity.age}")

    def _own_account(self, host: "Host", me: Member) -> None:
        key = (host.name, host.id)
        if me.identity.age < self._own.get(key, (0, 0)):
            object_to(host, "own_age", f"{me.identity.age} comes after {self._own[key]}")
        self._own[key] = me.identity.age
        self._newest[me.node] = max(me.identity.age, self._newest.get(me.node, (0, 0)))
        if me.liveness is Liveness.LEFT:
            self._goodbyes[me.node, me.identity.generation] = True
        if me.liveness in (Liveness.SUSPECT, Liveness.DEAD):
            object_to(host, "own_life", f"it believes itself {me.liveness.name}")

    def _one_truth(self, host: "Host", row: Member) -> None:
        facts = attrs.astuple(attrs.evolve(row, liveness=Liveness.ALIVE), recurse=False)[1:]
        if self._truth.setdefault((row.node, *row.identity.age), facts) != facts:
            object_to(host, "one_truth", f"two accounts of {row.name} at {row.identity.age} differ")

    def _own_word(self, host: "Host", row: Member) -> None:
        if row.node not in host.world.lives:
            object_to(host, "strangers", f"{row.name} ({row.node}) is nobody")
        elif row.identity.age > self._newest.get(row.node, (-1, -1)):
            object_to(host, "own_word", f"{row.name} is held at {row.identity.age}, which it never was")

    def _false_death(self, host: "Host", row: Member) -> None:
        world = host.world
        subject = world.lives[row.node][-1] if row.node in world.lives else None
        runs = subject is not None and subject.is_well and host.is_well and subject.id == row.node
        if not runs or row.identity.generation != subject.core.me.identity.generation:
            world.reach("true_death")
            return
        object_to(host, "false_death", f"{row.name} runs, and is held {row.liveness.name}")
        if world.healed_at is not None and world.time > world.healed_at + PEACE_S:
            object_to(host, "peace", f"{row.name} is held {row.liveness.name} although all faults are over")

    def _digest(self, host: "Host", rows: tuple[Member, ...]) -> None:
        """Hold every digest against every view of the whole run."""
        live = (row for row in rows if row.is_live)
        view = tuple(sorted((row.node, *row.identity.age, int(row.liveness)) for row in live))
        digest = host.core.swim.view_digest()
        if self._views.setdefault(digest, view) != view or self._digests.setdefault(view, digest) != digest:
            object_to(
                host, "digest_truth", f"digest {digest.hex()} does not tell views apart, or tells one twice"
            )

"""What nodes tell each other about their load, and how old each figure is.

Theory of operation. Figures cost bytes only while they are news:

    figures changed      the owner gives them the next number; everybody passes the record on a limited
                         number of times, and hearing it from another counts as one of them (rumour
                         mongering with feedback and counter: Demers et al., PODC 1987, section 1.4)
    figures unchanged    the number stays; pings and their answers say in ten bytes which record of
                         their sender still holds (`LoadStill`)
    a record was missed  a ping also says which record of its receiver is held (`LoadHeld`), and
                         the answer brings a newer one

so an idle mesh carries no records, and whoever missed one has it after its next probe of the owner.

Invariants:
- a record is versioned by its owner alone: (generation, sequence), the greater wins; one version
  has one set of figures;
- a record carries its age. Whoever forwards it adds the time for which it held it, so a
  router anywhere knows the age without synchronised clocks; ages are rounded up, and the
  time in flight (half a round trip per hop) is the only part not counted. Only the owner can make
  a copy younger, so that time does not add up when copies go in circles;
- this node sends one version at most `sends_max` times, answers to those who lack it apart;
- load never enters the view digest: a busy mesh is not a changing one.
"""

import collections
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import attrs

from mesh.now import Now

AGE_MS_MAX = 2**32 - 1
SEQUENCE_MAX = 2**48 - 1
"""At the bound a forged record stands until its owner's next life."""
SENDS_MAX = 32
"""No record is sent more often, whatever is asked: 3 * ln(n + 1) for 40,000 nodes."""
LAG_STEP_MS = 50
"""A lag that changes within one step is no news: four such steps are the least patience of `local`."""


@attrs.frozen
class ModelLoad:
    """The load of one model replica."""

    name: str
    """Name that clients use, at most 96 characters."""
    digest: str = ""
    """Digest of the weights, at most 64 characters (16 hex digits will do: a record must fit a
    datagram); empty for an upstream engine."""
    policy: str = ""
    """Digest of the numerical policy, likewise; empty means not exact."""
    ready: bool = False
    """Loaded, warm and willing."""
    context_max: int = 0
    """Tokens of prompt and answer together that one sequence may have."""
    queued_tokens: int = 0
    """Prompt tokens waiting for prefill."""
    running: int = 0
    """Sequences that decode."""
    kv_free_ratio: float = 0.0
    """Share of KV blocks that are free, 0 to 1."""
    prefill_tokens_per_s: float = 0.0
    """Measured; 0 means not measured yet."""
    decode_tokens_per_s: float = 0.0
    """Measured, over all running sequences; 0 means not measured yet."""


@attrs.frozen
class LoadRecord:
    """What one node says about its load."""

    node: str
    generation: int = 0
    """Life of the owner."""
    sequence: int = 0
    """Raised by the owner with each record of one life."""
    age_ms: int = 0
    """Milliseconds since the owner measured, as of when this copy was sent or read."""
    models: tuple[ModelLoad, ...] = ()
    """At most 16."""
    draining: bool = False
    zone: str = ""
    lag_ms: int = 0
    """How late the owner's own event loop ran lately: observers wait four times that before they judge."""

    @property
    def version(self) -> tuple[int, int]:
        """What to compare between two records of one node."""
        return (self.generation, self.sequence)


@attrs.frozen
class LoadMark:
    """A record without its figures: what tells whether they are news."""

    node: str
    generation: int
    sequence: int
    age_ms: int

    @property
    def version(self) -> tuple[int, int]:
        """What to compare between two records of one node."""
        return (self.generation, self.sequence)


@attrs.frozen
class LoadHeld:
    """Rides on a ping: the newest record of the receiver that its sender holds; zeros for none."""

    generation: int
    sequence: int


@attrs.frozen
class LoadStill:
    """Rides on a ping and on the answer: this record of the sender's is still true."""

    generation: int
    sequence: int
    age_ms: int
    """Milliseconds since the owner looked."""


class AgedItem(Protocol):
    """An encoded record, but for its age."""

    def at(self, age_ms: int) -> bytes:
        """The item with this age."""


Encode = Callable[[LoadRecord], AgedItem]
"""How a record becomes an item: the codec's business, handed in."""

NONE_HELD = LoadHeld(0, 0)


@attrs.define(eq=False)
class _Held:
    record: LoadRecord
    age_ms: int
    """Of the figures, at `held_from`."""
    held_from: float
    """Monotonic seconds."""
    source: str
    """Who brought it: it need not be told."""
    sends: int = 0
    item: AgedItem | None = None
    """Encoded once, when it is first sent."""

    def age_at(self, now: Now) -> int:
        """Milliseconds since the owner measured, rounded up."""
        held_ms = math.ceil(max(0.0, now.mono - self.held_from) * 1000)
        return min(AGE_MS_MAX, self.age_ms + held_ms)

    def renew(self, now: Now, age_ms: int) -> None:
        """The owner says that so long ago this was still true."""
        if age_ms < self.age_at(now):
            self.age_ms, self.held_from = age_ms, now.mono


class LoadTable:
    """The newest record of each node. Bounded by whoever admits nodes: see `Swim`."""

    def __init__(self, me: str, encode: Encode) -> None:
        """`me` owns the records that `publish` takes."""
        self._me = me
        self._encode = encode
        self._held: dict[str, _Held] = {}
        self._holders: collections.Counter[str] = collections.Counter()
        """How many records name each model."""
        self._news: dict[int, dict[str, _Held]] = {}
        """Those that have been sent so often, by node; a number of sends that none has is not here."""

    def __len__(self) -> int:
        return len(self._held)

    # What is known.

    def publish(self, now: Now, record: LoadRecord) -> LoadRecord:
        """Take this node's own figures, number them if they are news, and return what will be sent."""
        assert record.node == self._me, "only we give figures of ourselves"
        before = self._held.get(self._me)
        if before is not None and _is_unchanged(record, before.record):
            before.renew(now, 0)
            return before.record
        of_this_life = before is not None and before.record.generation == record.generation
        sequence = before.record.sequence + 1 if before is not None and of_this_life else 1
        record = attrs.evolve(record, sequence=sequence, age_ms=0)
        self._hold(_Held(record, 0, now.mono, self._me))
        return record

    def observe(self, now: Now, record: LoadRecord, source: str = "", waited_s: float = 0.0) -> bool:
        """Take a record that `source` sent, and that waited here to be read. Returns whether it was news."""
        if self.holds(record):
            return False
        self._hold(_Held(record, record.age_ms, now.mono - waited_s, source))
        return True

    def holds(self, mark: LoadMark | LoadRecord) -> bool:
        """Whether the record of this version, or a newer one, is held."""
        held = self._held.get(mark.node)
        return held is not None and mark.version <= held.record.version

    def heard_again(self, now: Now, mark: LoadMark, source: str, waited_s: float = 0.0) -> None:
        """What we hold came once more: from its owner, who knows its age, or from who passes it on like us."""
        held = self._held.get(mark.node)
        if held is None or held.record.version != mark.version:
            return
        if source == mark.node:
            held.renew(now, min(AGE_MS_MAX, mark.age_ms + math.ceil(waited_s * 1000)))
        else:
            self._count(held)

    def get(self, now: Now, node: str) -> LoadRecord | None:
        """The newest record of `node`, with its age as of now, or None."""
        held = self._held.get(node)
        return attrs.evolve(held.record, age_ms=held.age_at(now)) if held is not None else None

    def lag_s(self, node: str) -> float:
        """How late the event loop of `node` ran lately, by its own word; 0 if it said nothing."""
        held = self._held.get(node)
        return held.record.lag_ms / 1000 if held is not None else 0.0

    def model_names(self) -> tuple[str, ...]:
        """Every model that a held record names, ready or not. O(models), whatever the size of the mesh."""
        return tuple(self._holders)

    def forget(self, node: str) -> None:
        """Drop the record of a node that is gone."""
        held = self._held.pop(node, None)
        if held is not None:
            self._unlist(held)
            for model in held.record.models:
                self._holders[model.name] -= 1
                if not self._holders[model.name]:
                    del self._holders[model.name]

    # What is said.

    def items(self, now: Now) -> list[bytes]:
        """Every record, encoded."""
        return [self._item(held, now) for held in self._held.values()]

    def held_of(self, node: str) -> LoadHeld:
        """Which record of `node` is held."""
        held = self._held.get(node)
        return LoadHeld(*held.record.version) if held is not None else NONE_HELD

    def still(self, now: Now) -> LoadStill | None:
        """Which record of ours is true, and since when; None if we have none."""
        mine = self._held.get(self._me)
        return LoadStill(*mine.record.version, mine.age_at(now)) if mine is not None else None

    def missing(self, now: Now, theirs: LoadHeld) -> bytes | None:
        """Our record, encoded, for one who holds only `theirs` of us; None if that is the same.

        Who holds a later one of this life than we ever gave was lied to: ours is numbered above it.
        """
        mine = self._held.get(self._me)
        if mine is None or mine.record.version == (theirs.generation, theirs.sequence):
            return None
        if theirs.generation == mine.record.generation and theirs.sequence > mine.record.sequence:
            mine = self._outbid(now, mine, theirs.sequence)
        return self._item(mine, now)

    def _outbid(self, now: Now, mine: _Held, sequence: int) -> _Held:
        record = attrs.evolve(mine.record, sequence=min(sequence + 1, SEQUENCE_MAX))
        above = _Held(record, mine.age_at(now), now.mono, self._me)
        self._hold(above)
        return above

    def has_news(self, sends_max: int) -> bool:
        """Whether any record has been sent fewer than `sends_max` times, of this node or another's."""
        return bool(self._news) and min(self._news) < sends_max

    def fill(
        self, now: Now, room_bytes: int, budget_bytes: int, sends_max: int, excluding: tuple[str, ...] = ()
    ) -> list[bytes]:
        """Choose news to ride on a packet: unsent first, of those the latest; then by turns. O(taken).

        The first may take all the room there is, so that a large record is not starved; more follow
        while all together stay within the budget. What one of `excluding` owns or has told us stays here.
        """
        parts: list[bytes] = []
        sent: list[_Held] = []
        for held in self._waiting(sends_max, excluding):
            part = self._item(held, now)
            if len(part) > (min(room_bytes, budget_bytes) if parts else room_bytes):
                break
            room_bytes -= len(part)
            budget_bytes -= len(part)
            parts.append(part)
            sent.append(held)
        for held in sent:
            self._count(held)
        return parts

    def _waiting(self, sends_max: int, excluding: tuple[str, ...]) -> Iterator[_Held]:
        for sends in range(sends_max):
            news = self._news.get(sends, {})
            for held in news.values() if sends else reversed(news.values()):
                if held.record.node not in excluding and held.source not in excluding:
                    yield held

    def _hold(self, held: _Held) -> None:
        self.forget(held.record.node)
        self._held[held.record.node] = held
        self._holders.update(model.name for model in held.record.models)
        self._list(held)

    def _item(self, held: _Held, now: Now) -> bytes:
        if held.item is None:
            held.item = self._encode(held.record)
        return held.item.at(held.age_at(now))

    def _count(self, held: _Held) -> None:
        self._unlist(held)
        held.sends += 1
        self._list(held)

    def _list(self, held: _Held) -> None:
        if held.sends < SENDS_MAX:
            self._news.setdefault(held.sends, {})[held.record.node] = held

    def _unlist(self, held: _Held) -> None:
        news = self._news.get(held.sends)
        if news is not None and news.pop(held.record.node, None) is not None and not news:
            del self._news[held.sends]


def _is_unchanged(new: LoadRecord, old: LoadRecord) -> bool:
    same = attrs.evolve(new, sequence=old.sequence, age_ms=old.age_ms, lag_ms=old.lag_ms) == old
    return same and new.lag_ms // LAG_STEP_MS == old.lag_ms // LAG_STEP_MS

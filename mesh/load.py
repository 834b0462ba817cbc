"""What nodes tell each other about their load, and how old each figure is.

Invariants:
- a record is versioned by its owner alone: (generation, sequence), the greater wins;
- a record carries its age. Whoever forwards it adds the time for which it held it, so a
  router anywhere knows the age without synchronised clocks; ages are rounded up, and the
  time in flight (half a round trip per hop) is the only part not counted;
- load never enters the view digest: a busy mesh is not a changing one.
"""

import math
from collections.abc import Callable

import attrs

from mesh.now import Now

AGE_MS_MAX = 2**32 - 1


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


Encode = Callable[[LoadRecord], bytes]
"""How a record becomes an item: the codec's business, handed in."""


@attrs.define
class _Held:
    record: LoadRecord
    held_from: float
    """Monotonic seconds at which `record.age_ms` was true."""
    sends: int = 0


@attrs.define
class LoadTable:
    """The newest record of each node. Bounded by whoever admits nodes: see `Swim`."""

    _held: dict[str, _Held] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._held)

    def publish(self, now: Now, record: LoadRecord) -> LoadRecord:
        """Take this node's own new figures, number them, and return the record as it will be sent."""
        before = self._held.get(record.node)
        newer = before is not None and before.record.generation == record.generation
        sequence = before.record.sequence + 1 if before is not None and newer else 1
        record = attrs.evolve(record, sequence=sequence, age_ms=0)
        self._held[record.node] = _Held(record, now.mono)
        return record

    def observe(self, now: Now, record: LoadRecord) -> bool:
        """Take a record that arrived now. Returns whether it was news."""
        held = self._held.get(record.node)
        if held is not None and record.version <= held.record.version:
            return False
        self._held[record.node] = _Held(record, now.mono)
        return True

    def get(self, now: Now, node: str) -> LoadRecord | None:
        """The newest record of `node`, with its age as of now, or None."""
        held = self._held.get(node)
        return _aged(held, now) if held is not None else None

    def all(self, now: Now) -> tuple[LoadRecord, ...]:
        """Every record, aged as of now."""
        return tuple(_aged(held, now) for held in self._held.values())

    def fill(
        self, now: Now, room_bytes: int, budget_bytes: int, sends_max: int, encode: Encode
    ) -> list[bytes]:
        """Choose records to ride on a packet: fewest sent first, then freshest. O(n log n).

        The first may take all the room there is, so that a large record is not starved; more follow
        while all together stay within the budget. A record is sent at most `sends_max` times by
        this node; a newer one starts anew.
        """
        waiting = [held for held in self._held.values() if held.sends < sends_max]
        waiting.sort(key=lambda held: (held.sends, -held.held_from))
        parts: list[bytes] = []
        for held in waiting:
            part = encode(_aged(held, now))
            if len(part) > (min(room_bytes, budget_bytes) if parts else room_bytes):
                break
            room_bytes -= len(part)
            budget_bytes -= len(part)
            held.sends += 1
            parts.append(part)
        return parts

    def forget(self, node: str) -> None:
        """Drop the record of a node that is gone."""
        self._held.pop(node, None)


def _aged(held: _Held, now: Now) -> LoadRecord:
    held_ms = math.ceil(max(0.0, now.mono - held.held_from) * 1000)
    return attrs.evolve(held.record, age_ms=min(AGE_MS_MAX, held.record.age_ms + held_ms))

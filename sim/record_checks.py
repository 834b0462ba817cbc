"""What must hold of replicated records: after every input, and in the end.

no_resurrection  a node that knew a record deleted never again, in that life, holds an older value
stamps_monotone  a life's hybrid clock never runs back
records_agree    (liveness) those who are well hold the same rows, as the highest floor would have them
"""

import statistics
from typing import TYPE_CHECKING

import attrs

from mesh.effects import Effect
from mesh.hlc import DRIFT_MS_MAX, LEASH_MS, Stamp
from mesh.records import Key, Table
from sim.host import EPOCH_S

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import World

Life = tuple[str, str, int]


@attrs.define
class RecordCheck:
    """no_resurrection and stamps_monotone."""

    _changes: dict[Life, int] = attrs.field(init=False, factory=dict)
    _buried: dict[tuple[Life, Key], Stamp] = attrs.field(init=False, factory=dict)
    _reading: dict[Life, tuple[int, int]] = attrs.field(init=False, factory=dict)

    def after(self, host: "Host", effects: list[Effect]) -> None:
        """Look at the clock, and at the rows if any has changed."""
        life = (host.name, host.id, host.generation)
        records = host.core.records
        self._clock(host, life, records.clock.reading)
        if records.table.changes != self._changes.get(life, 0):
            self._changes[life] = records.table.changes
            self._rows(host, life, records.table)

    def _clock(self, host: "Host", life: Life, reading: tuple[int, int]) -> None:
        if reading < self._reading.get(life, reading):
            _doubt(host, "stamps_monotone", f"its clock ran back from {self._reading[life]} to {reading}")
        self._reading[life] = reading

    def _rows(self, host: "Host", life: Life, table: Table) -> None:
        for row in table.rows():
            record = row.record
            buried = self._buried.get((life, record.key))
            if not record.is_live:
                if record.stamp.wall_ms <= _true_ms(host.world) + DRIFT_MS_MAX:
                    self._buried[life, record.key] = max(record.stamp, buried or record.stamp)
            elif buried is not None and record.stamp < buried:
                what = f"{record.namespace}/{record.id} of {record.stamp}"
                _doubt(host, "no_resurrection", f"{what} is back, deleted at {buried}")


def _doubt(host: "Host", check: str, message: str) -> None:
    host.world.doubt(check, f"{host.name}: {message}")


def _true_ms(world: "World") -> int:
    return int((EPOCH_S + world.time) * 1000)


def records_differ(world: "World") -> str:
    """Say whose records differ; empty if nobody's do, or if their clocks keep them from agreeing."""
    tables = {host.name: host.core.records.table for host in world.well}
    if _clocks_forbid(world, list(tables.values())):
        return ""
    floor_ms = max((table.floor_ms for table in tables.values()), default=0)
    digests = {name: table.digest(floor_ms).hex() for name, table in tables.items()}
    usual = statistics.mode(digests.values()) if digests else ""
    others = [name for name, digest in digests.items() if digest != usual]
    return f"{others} hold other records than the rest" if others else ""


def _clocks_forbid(world: "World", tables: list[Table]) -> bool:
    """Whether some rows must be refused by somebody: they lie in the future by the clock of the mesh.

    That is the median of all; of two nodes whose clocks are far apart nobody can say who is wrong.
    """
    walls_ms = [int(host.now().wall * 1000) for host in world.well]
    if not walls_ms:
        return True
    if len(walls_ms) <= 2:
        latest_ms = min(walls_ms) + DRIFT_MS_MAX
    else:
        latest_ms = statistics.median_low(walls_ms) + DRIFT_MS_MAX - LEASH_MS
    return any(row.record.stamp.wall_ms > latest_ms for table in tables for row in table.rows())

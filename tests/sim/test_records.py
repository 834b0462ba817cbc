"""Replicated records in whole nodes: they converge through every trouble, and each check sees its planted bug."""

import attrs
import pytest

from mesh.hlc import HybridClock, Stamp
from mesh.horizon import HorizonOptions
from mesh.records import Merge, Row, Table
from mesh.replication import Replication
from mesh.replication_options import ReplicationOptions
from sim.fault import Fault, Strike
from sim.faults import (
    ClockBack,
    ClockSkew,
    CrashRestart,
    Loss,
    Partition,
    Pause,
    RecordStorm,
    TcpCut,
    UdpCut,
)
from sim.liveness import Bounds
from sim.scenario import Result, Scenario, run
from sim.world import WorldOptions

NAMES = tuple(f"node-{index}" for index in range(5))
STORM = (2.0, RecordStorm(7, 10.0, 8.0))
SHORT = Bounds(views_s=15.0, records_s=30.0)
QUICK = ReplicationOptions(exchange_period_s=2.0, horizon=HorizonOptions(120.0, 10.0))
DEFAULTS = WorldOptions(attrs.evolve(WorldOptions().node, records=QUICK))


def played(*faults: tuple[float, Fault], end_s: float = 11.0, seed: int = 3) -> Result:
    strikes = tuple(Strike(at, fault) for at, fault in faults)
    return run(Scenario("records", seed, 5, 1, (), strikes, end_s, NAMES, options=DEFAULTS, bounds=SHORT))


def caught(*faults: tuple[float, Fault], **more: float) -> str:
    violation = played(*faults, **more).violation
    return violation.check if violation else ""


TROUBLES = {
    "calm": (),
    "loss": ((1.0, Loss(0.5, 9.0)),),
    "no datagrams": ((1.0, UdpCut(NAMES[:2], 9.0)),),
    "no links": ((1.0, TcpCut(NAMES[:2], 9.0)),),
    "partition": ((3.0, Partition(("node-3", "node-4"), 6.0)),),
    "pause": ((3.0, Pause("node-2", 5.0)),),
    "restart": ((4.0, CrashRestart("node-1", 1.0)), (6.0, CrashRestart("node-4", 2.0, power=True))),
    "clocks": ((5.0, ClockSkew("node-1", 86400.0)), (6.0, ClockBack("node-2", 3600.0))),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_records_agree_after(trouble: str):
    result = played(STORM, *TROUBLES[trouble])
    assert result.violation is None, str(result.violation)
    tables = [host.core.records.table for host in result.world.well]
    assert len(tables) == 5
    assert len(tables[0]) >= 8


ABSENCE = (
    (2.0, RecordStorm(1, 10.0, 3.0)),
    (10.0, Partition(("node-4",), 200.0)),
    (12.0, RecordStorm(51, 2.0, 8.0)),
)


def test_records_agree_after_an_absence_beyond_the_horizon():
    result = played(*ABSENCE, end_s=215.0)
    assert result.violation is None, str(result.violation)
    cores = [host.core.records for host in result.world.well]
    assert all(core.table.floor_ms > 0 for core in cores)
    assert sum(core.statistics().collected for core in cores) > 0


def test_no_resurrection_catches_a_table_that_forgets_its_floor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Table, "_is_below", lambda self, row, held: False)
    assert caught(*ABSENCE, end_s=215.0) == "no_resurrection"


def test_no_resurrection_catches_a_table_that_takes_whatever_comes_last(monkeypatch: pytest.MonkeyPatch):
    def last(self: Table, row: Row, held: Row | None) -> Merge:
        return Merge.TAKEN if held is None or row.rank != held.rank else Merge.KNOWN

    monkeypatch.setattr(Table, "_judge", last)
    assert caught(STORM) == "no_resurrection"


def test_stamps_monotone_catches_a_clock_that_trusts_the_wall(monkeypatch: pytest.MonkeyPatch):
    def naive(self: HybridClock, physical_ms: int) -> Stamp:
        self._last = (physical_ms, 0)
        return Stamp(physical_ms, 0, self.node)

    monkeypatch.setattr(HybridClock, "issue", naive)
    assert caught(STORM, (5.0, ClockBack("node-2", 20.0))) in ("stamps_monotone", "exception")


def test_records_agree_catches_a_mesh_that_never_compares(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Replication, "_hear_digest", lambda self, now, message: None)
    assert caught(STORM, (3.0, Partition(("node-3", "node-4"), 7.0))) == "records_agree"


def test_a_write_at_one_node_is_read_at_every_other():
    result = played()
    world = result.world
    host = world["node-1"]
    host.give(lambda core, now: core.put_record(now, "config", "a", b"v"))
    world.run_for(2.0)
    values = [node.core.records.get("config", "a").value for node in world.well]
    assert values == [b"v"] * 5

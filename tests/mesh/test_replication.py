"""Replicated records: they spread, they converge, they stay deleted."""

import pytest

from mesh import records_wire
from mesh.effects import SendDatagram, SendReliable
from mesh.errors import ClockError, LimitError, RevokedError
from mesh.facts import RecordChanged
from mesh.hlc import Stamp
from mesh.member import Liveness
from mesh.records import Record, Row
from mesh.records_wire import Claim, RecordDigest, RecordNews
from mesh.replication_options import ReplicationOptions
from tests.mesh.record_mesh import EPOCH_S, QUICK, Mesh

# Spreading.


def test_a_write_is_everywhere_within_a_second():
    mesh = Mesh(16)
    mesh.call(3, "put", "keys", "a", b"v")
    assert mesh.run(5, until=mesh.agreed) < 1.0
    assert set(map(tuple, mesh.values().values())) == {(("a", b"v"),)}


def test_the_later_write_wins_everywhere():
    mesh = Mesh(8)
    mesh.call(1, "put", "keys", "a", b"first")
    mesh.run(2)
    mesh.call(5, "put", "keys", "a", b"second")
    mesh.call(6, "put", "keys", "b", b"other")
    mesh.run(5, until=mesh.agreed)
    assert all(held == [("a", b"second"), ("b", b"other")] for held in mesh.values().values())


def test_what_gossip_loses_is_found_by_comparing():
    mesh = Mesh(8, loss=0.6)
    for index in range(40):
        mesh.call(index % 8 + 1, "put", "keys", f"{index:02}", bytes(10))
    mesh.run(30, until=mesh.agreed)
    assert all(len(held) == 40 for held in mesh.values().values())


def test_a_large_value_travels_reliably():
    mesh = Mesh(6)
    mesh.call(1, "put", "config", "a", bytes(16_000))
    assert mesh.run(5, until=mesh.agreed) < 2.0
    assert mesh.cores[6].get("config", "a").value == bytes(16_000)


def test_writes_at_the_same_time_converge_on_one():
    mesh = Mesh(8)
    for index in range(1, 9):
        mesh.call(index, "put", "keys", "a", f"{index}".encode())
    mesh.run(10, until=mesh.agreed)
    assert len(set(map(tuple, mesh.values().values()))) == 1


def test_a_newcomer_gets_everything():
    mesh = Mesh(4)
    for index in range(900):
        mesh.call(1, "put", "keys", f"{index:04}", bytes(100))
    mesh.run(60, until=lambda: mesh.agreed() and not any(c.statistics().news for c in mesh.cores.values()))
    mesh.start(5)
    mesh.join(range(1, 6))
    assert mesh.run(10, until=mesh.agreed) < 3.0
    assert len(mesh.values()[5]) == 900


def test_halves_that_wrote_apart_hold_the_union_soon_after():
    mesh = Mesh(8)
    mesh.split((1, 2, 3), (4, 5, 6, 7, 8))
    for index in range(30):
        mesh.call(1, "put", "keys", f"left{index}", b"")
        mesh.call(8, "put", "keys", f"right{index}", b"")
    mesh.run(60)
    mesh.heal()
    assert mesh.run(20, until=mesh.agreed) < 10.0
    assert all(len(held) == 60 for held in mesh.values().values())


def test_only_what_differs_is_sent():
    mesh = Mesh(2)
    for index in range(500):
        mesh.call(1, "put", "keys", f"{index}", bytes(200))
    mesh.run(30, until=mesh.agreed)
    mesh.split((1,), (2,))
    mesh.call(1, "put", "keys", "new", bytes(200))
    mesh.run(5)
    before = mesh.bytes
    mesh.heal()
    mesh.run(10, until=mesh.agreed)
    assert mesh.agreed()
    assert mesh.bytes - before < 10_000


def test_a_still_mesh_costs_next_to_nothing():
    mesh = Mesh(4, options=ReplicationOptions())
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(20, until=mesh.agreed)
    mesh.run(60)
    before = mesh.bytes
    mesh.run(600)
    assert (mesh.bytes - before) / 4 / 600 < 20


def test_changes_are_told_with_what_was_before():
    mesh = Mesh(2)
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(2)
    mesh.call(2, "delete", "keys", "a")
    mesh.run(2)
    told = [(index, fact.before, fact.after) for _at, index, fact in mesh.changes]
    assert [index for index, _before, _after in told] == [1, 2, 2, 1]
    assert told[0][1] is None
    assert told[3][1].value == b"v"
    assert not told[3][2].is_live


# Limits.


def test_bytes_are_bounded_and_what_was_put_off_comes_later():
    options = ReplicationOptions(exchange_period_s=1.0, bytes_per_s=10_000, burst_bytes=60_000)
    mesh = Mesh(2, options=options, connected=False)
    for index in range(800):
        mesh.call(1, "put", "keys", f"{index}", bytes(300))
    mesh.join((1, 2))
    mesh.run(5)
    assert mesh.bytes < 2 * 60_000 + 5 * 2 * 10_000
    assert not mesh.agreed()
    mesh.run(200, until=mesh.agreed)
    assert mesh.agreed()
    assert mesh.cores[1].statistics().put_off > 0


def test_a_full_table_says_so():
    mesh = Mesh(1, options=ReplicationOptions(rows_max=10))
    for index in range(9):
        mesh.call(1, "put", "keys", f"{index}", b"")
    with pytest.raises(LimitError, match="full"):
        mesh.call(1, "put", "keys", "x", b"")
    assert len(mesh.values()[1]) == 9


# Deleting.


def test_a_deletion_spreads_and_its_tombstone_goes_after_the_horizon():
    mesh = Mesh(4)
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(2)
    mesh.call(2, "delete", "keys", "a")
    mesh.run(2)
    assert [core.table.tombstones for core in mesh.cores.values()] == [1] * 4
    mesh.run(100)
    assert [core.table.tombstones for core in mesh.cores.values()] == [1] * 4
    mesh.run(60)
    assert [len(core.table) for core in mesh.cores.values()] == [0] * 4


def test_who_was_away_for_longer_than_the_horizon_does_not_bring_back_the_deleted():
    mesh = Mesh(6)
    for name in ("kept", "deleted"):
        mesh.call(1, "put", "keys", name, b"v")
    mesh.run(5)
    mesh.split((6,), (1, 2, 3, 4, 5))
    mesh.call(2, "delete", "keys", "deleted")
    mesh.run(300)
    assert [core.table.tombstones for core in mesh.cores.values()] == [0] * 6
    mesh.call(6, "put", "keys", "late", b"v")
    assert len(mesh.values()[6]) == 3
    mesh.heal()
    mesh.changes.clear()
    mesh.run(20, until=mesh.agreed)
    assert all([name for name, _ in held] == ["kept", "late"] for held in mesh.values().values())
    assert not [fact for _, _, fact in mesh.changes if fact.after.id == "deleted" and fact.after.is_live]
    assert mesh.cores[6].statistics().rows_lost == 1


def test_a_minority_never_overrules_the_rest_however_long_it_was_away():
    mesh = Mesh(5)
    mesh.run(2)
    mesh.split((1, 2), (3, 4, 5))
    mesh.call(4, "put", "keys", "theirs", b"v")
    mesh.run(1000)
    assert mesh.cores[1].table.floor_ms == 0
    mesh.heal()
    mesh.run(20, until=mesh.agreed)
    assert all(held == [("theirs", b"v")] for held in mesh.values().values())


def test_of_two_halves_neither_loses_what_it_wrote_lately_and_one_alone_collects():
    mesh = Mesh(4)
    mesh.call(1, "put", "keys", "old", b"v")
    mesh.run(2)
    mesh.split((1, 2), (3, 4))
    mesh.run(300)
    floors = [core.table.floor_ms > 0 for core in mesh.cores.values()]
    assert floors == [True, True, False, False]
    mesh.call(1, "put", "keys", "left", b"v")
    mesh.call(3, "put", "keys", "right", b"v")
    mesh.heal()
    mesh.run(20, until=mesh.agreed)
    assert all([name for name, _ in held] == ["left", "old", "right"] for held in mesh.values().values())


def test_a_newcomer_with_an_empty_table_overrules_nobody():
    mesh = Mesh(3)
    mesh.call(1, "put", "keys", "old", b"v")
    mesh.run(1000)
    mesh.start(4)
    mesh.start(5)
    mesh.join((4, 5))
    mesh.run(5)
    mesh.join(range(1, 6))
    mesh.run(20, until=mesh.agreed)
    assert all(held == [("old", b"v")] for held in mesh.values().values())


def test_meshes_with_histories_of_their_own_do_not_touch_each_other():
    mesh = Mesh(4, connected=False)
    mesh.join((1, 2))
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(3)
    mesh.join((3, 4))
    mesh.call(3, "put", "keys", "b", b"v")
    mesh.run(1000)
    mesh.join((1, 2, 3, 4))
    mesh.run(30)
    assert [held[0][0] for held in mesh.values().values()] == ["a", "a", "b", "b"]
    assert all(core.statistics().foreign > 0 for core in mesh.cores.values())


def test_a_revoked_key_stays_revoked_while_it_could_be_used():
    mesh = Mesh(3)
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(2)
    mesh.call(2, "revoke", "keys", "a", EPOCH_S + 1000.0)
    mesh.run(2)
    with pytest.raises(RevokedError):
        mesh.call(3, "put", "keys", "a", b"again")
    mesh.run(800)
    assert [core.table.tombstones for core in mesh.cores.values()] == [1] * 3
    mesh.run(500)
    assert [core.table.tombstones for core in mesh.cores.values()] == [0] * 3


def test_what_is_not_known_here_can_be_revoked_for_ever():
    mesh = Mesh(2)
    mesh.call(1, "revoke", "keys", "a", float("inf"))
    mesh.run(1000)
    assert [core.table.tombstones for core in mesh.cores.values()] == [1, 1]


def test_one_node_alone_collects_too():
    mesh = Mesh(1)
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.call(1, "delete", "keys", "a")
    mesh.run(300)
    assert len(mesh.cores[1].table) == 0


def test_who_has_left_for_good_does_not_hold_up_collection():
    mesh = Mesh(3)
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.call(1, "delete", "keys", "a")
    mesh.run(2)
    for gone in (2, 3):
        mesh.hear(1, gone, Liveness.LEFT)
        del mesh.cores[gone]
    mesh.run(300)
    assert len(mesh.cores[1].table) == 0


# Clocks.


@pytest.mark.parametrize("skew_s", [-86_400.0, -90.0, 90.0, 86_400.0])
def test_a_node_whose_clock_is_far_off_takes_part_as_long_as_it_hears_two_others(skew_s):
    mesh = Mesh(4)
    mesh.call(2, "put", "keys", "early", b"v")
    mesh.run(20, until=lambda: len(mesh.cores[4]._time._voices) >= 2)
    mesh.skews[4] = skew_s
    mesh.call(4, "put", "keys", "mine", b"v")
    mesh.run(2)
    mesh.call(1, "put", "keys", "yours", b"v")
    mesh.run(20, until=mesh.agreed)
    assert all(len(held) == 3 for held in mesh.values().values())


def test_of_two_nodes_the_one_ahead_may_not_write():
    mesh = Mesh(2)
    mesh.call(2, "put", "keys", "early", b"v")
    mesh.run(5)
    mesh.skews[1] = 3600.0
    with pytest.raises(ClockError, match="hint:"):
        mesh.call(1, "put", "keys", "a", b"v")
    mesh.call(2, "put", "keys", "b", b"v")
    mesh.run(5, until=mesh.agreed)
    assert [name for name, _ in mesh.values()[1]] == ["b", "early"]


def test_who_finds_its_clock_hours_ahead_forgets_what_it_wrote_in_the_future():
    mesh = Mesh(3, connected=False)
    mesh.skews[3] = 7200.0
    mesh.call(3, "put", "keys", "future", b"v")
    mesh.join((1, 2, 3))
    mesh.call(1, "put", "keys", "now", b"v")
    mesh.run(30, until=mesh.agreed)
    assert all(held == [("now", b"v")] for held in mesh.values().values())


def test_rows_of_the_far_future_are_refused_and_counted():
    mesh = Mesh(2, connected=False)
    mesh.skews[2] = 7200.0
    mesh.call(2, "put", "keys", "future", b"v")
    mesh.join((1, 2))
    mesh.run(10)
    assert mesh.values() == {1: [], 2: [("future", b"v")]}
    assert mesh.cores[1].statistics().rows_ahead > 0
    mesh.run(7200)
    mesh.run(20, until=mesh.agreed)
    assert mesh.values()[1] == [("future", b"v")]


# Strangers and nonsense.


def packet(source=2, floor_ms=0, rows=(), digest=None):
    claim = Claim(f"{source:016x}", int(EPOCH_S * 1000), floor_ms, floor_ms and 1)
    return records_wire.encode(RecordDigest(claim, digest) if digest else RecordNews(claim, tuple(rows)))


def test_who_is_no_live_member_is_neither_heard_nor_answered():
    mesh = Mesh(2)
    row = Row.of(Record("keys", "a", Stamp(5, 0, f"{9:016x}"), b"v"))
    assert mesh.cores[1].receive(mesh.now(1), packet(9, rows=[row.blob])) == []
    assert mesh.cores[1].receive(mesh.now(1), packet(9, digest=bytes(8))) == []
    assert mesh.cores[1].statistics().strangers == 2


def test_a_row_that_means_nothing_spoils_no_other():
    mesh = Mesh(2)
    row = Row.of(Record("keys", "a", Stamp(5, 0, f"{9:016x}"), b"v"))
    facts = mesh.cores[1].receive(mesh.now(1), packet(rows=[b"nonsense", row.blob, b""]))
    assert [fact.after.id for fact in facts if isinstance(fact, RecordChanged)] == ["a"]
    assert mesh.cores[1].statistics().rows_unread == 2


def test_a_floor_that_claims_the_present_changes_nothing():
    mesh = Mesh(2)
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(1)
    mesh.cores[1].receive(mesh.now(1), packet(floor_ms=int(EPOCH_S * 1000)))
    assert mesh.cores[1].statistics().floors_refused == 1
    assert mesh.cores[1].table.floor_ms == 0


def test_an_answer_is_never_larger_than_the_table_calls_for():
    mesh = Mesh(2)
    outputs = mesh.cores[1].receive(mesh.now(1), packet(digest=bytes(7) + b"x"))
    assert [type(output) for output in outputs] == [SendReliable]
    equal = mesh.cores[1].receive(mesh.now(1), packet(digest=mesh.cores[1].table.digest()))
    assert equal == []


def test_packets_that_mean_nothing_are_counted():
    mesh = Mesh(2)
    for data in (b"", b"\x01\x00\x40", packet()[:-1], packet() + b"x", b"\x02" + packet()[1:]):
        assert mesh.cores[1].receive(mesh.now(1), data) == []
    assert mesh.cores[1].statistics().decode_errors == 5


def test_quick_options_keep_every_default_but_the_times():
    assert QUICK.rows_max == ReplicationOptions().rows_max


def test_a_datagram_of_news_fits():
    mesh = Mesh(3)
    sizes = []
    mesh._post = lambda _source, output: sizes.append(
        len(output.data) if isinstance(output, SendDatagram) else 0
    )
    for index in range(100):
        mesh.call(1, "put", "keys", f"{index}", bytes(index * 9))
    mesh.run(3)
    assert 1200 < max(sizes) <= 1400


def test_what_all_hold_stays_though_all_clocks_are_set_back():
    mesh = Mesh(4)
    for index in range(1, 5):
        mesh.skews[index] = 86_400.0
    mesh.call(1, "put", "keys", "a", b"v")
    mesh.run(20)
    for index in range(1, 5):
        mesh.skews[index] = 0.0
    mesh.run(60)
    assert all(held == [("a", b"v")] for held in mesh.values().values())

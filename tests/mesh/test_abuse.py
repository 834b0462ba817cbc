"""Hostile input against a working node: from outside, with recorded traffic, and from a member that lies."""

import struct

import msgpack
import pytest

from mesh import codec
from mesh.effects import CloseLink
from mesh.frames import Kind
from mesh.link import HEADER
from mesh.member import Liveness
from sim.troubles.traitors import Liar
from sim.world import World, WorldOptions
from tests.bench import abuse

FORGED_IN_CI = 60_000
"""About two seconds; `python -m tests.bench.abuse` sends five million."""


def test_nothing_hostile_is_opened_answered_at_length_or_remembered_and_the_mesh_does_not_notice():
    tallies, wrong = abuse.run(FORGED_IN_CI)
    assert wrong == []
    assert {name: tally.opened for name, tally in tallies.items()} == {k.__name__: 0 for k in abuse.KINDS}
    assert sum(tally.sent for tally in tallies.values()) >= FORGED_IN_CI


def test_the_bench_sees_what_is_opened():
    """A genuine datagram, counted as an attacker's, must be found."""
    target = abuse.mesh()
    sender = target.world["node-1"]
    (effect,) = sender.core.seal.send(sender.now(), target.address, b"\1\0genuine, and long enough")

    def genuine(_target, _rng):
        return effect.data, sender.address

    tallies: dict[str, abuse.Tally] = {}
    kinds, abuse.KINDS = abuse.KINDS, (genuine,)
    try:
        abuse.bombard(target, None, tallies, 3)
    finally:
        abuse.KINDS = kinds
    assert tallies["genuine"].opened == 1
    same = abuse.Footprint.of(target.core)
    assert abuse.complaints(target, tallies, same, same) == ["genuine: 1 opened"]


# -- a holder of the key that says what cannot be ---------------------------------------------------


def raw_item(number: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BH", number, len(payload) if length is None else length) + payload


NODE, NONCE = 2**64 - 2, 5
IDENTITY = [NODE, 1, 0]
MEMBER = [IDENTITY, 0, "liar", ["10.9.9.9", 7946]]
PING = raw_item(1, msgpack.packb([NODE, NONCE, 1]))
MODEL = ["m", "", "", True, 1, 1, 1]

CLAIMS = {
    "an incarnation of 2^64-1": PING + raw_item(32, msgpack.packb([[[NODE, 1, 2**64 - 1], *MEMBER[1:]], []])),
    "a generation of 2^64-1": PING + raw_item(32, msgpack.packb([[[NODE, 2**64 - 1, 0], *MEMBER[1:]], []])),
    "a negative incarnation": PING + raw_item(32, msgpack.packb([[[NODE, 1, -1], *MEMBER[1:]], []])),
    "free memory of NaN": PING + raw_item(33, msgpack.packb([NODE, 1, 1, 0, [[*MODEL, float("nan")]]])),
    "infinite speed": PING + raw_item(33, msgpack.packb([NODE, 1, 1, 0, [[*MODEL, 0.5, float("inf")]]])),
    "an array of 4 billion": PING + raw_item(32, b"\xdd\xff\xff\xff\xff"),
    "a string of 4 GiB": PING + raw_item(32, b"\xdb\xff\xff\xff\xff"),
    "bytes of 20 MiB": PING + raw_item(32, b"\xc6" + (20 * 2**20).to_bytes(4, "big")),
    "an item longer than the packet": PING + raw_item(32, b"x", length=65535),
    "arrays a thousand deep": PING + raw_item(32, b"\x91" * 1000 + b"\x90"),
    "no message at all": raw_item(32, msgpack.packb([MEMBER, []])),
    "two messages": PING + PING,
    "a name of one megabyte": PING + raw_item(32, b"\x94" + b"\xdb\x00\x10\x00\x00"),
    "an address that is a name": PING
    + raw_item(32, msgpack.packb([[IDENTITY, 0, "liar", ["evil.example", 1]], []])),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_member_may_claim_what_it_likes(claim):
    target = abuse.mesh()
    sender, before = target.world["node-1"], target.core.statistics()["swim"]
    sent = sender.core.seal.send(sender.now(), target.address, b"\1\0" + claim)
    for effect in sent:
        assert target.core.receive(target.world["node-0"].now(), effect.data, sender.address) == []
    after = target.core.statistics()["swim"]
    assert after["decode_errors"] == before["decode_errors"] + 1
    assert (after["members"], after["digest"]) == (before["members"], before["digest"])
    target.world.run_for(2)
    assert target.core.statistics()["swim"]["members"]["alive"] == 4


@pytest.mark.parametrize("length", [20 * 2**20, 2**32 - 1, 65537])
def test_a_frame_that_claims_too_much_closes_its_link_at_once(length):
    target = abuse.mesh()
    now = target.world["node-0"].now()
    link, _ = target.core.link_accepted(now)
    effects = target.core.link_data(now, link, HEADER.pack(Kind.HELLO, 0, 0, length, 0))
    assert [effect.link for effect in effects if isinstance(effect, CloseLink)] == [link]


def test_a_snapshot_of_more_than_its_bound_is_not_even_read():
    assert codec.RELIABLE_BYTES_MAX < 20 * 2**20
    target = abuse.mesh()
    before = target.core.statistics()["swim"]
    huge = b"\1\0" + raw_item(6, msgpack.packb([NODE])) + bytes(codec.RELIABLE_BYTES_MAX)
    target.core.swim.receive(target.world["node-0"].now(), huge, ("10.9.9.9", 1), reliable=True)
    assert target.core.statistics()["swim"]["decode_errors"] == before["decode_errors"] + 1


# -- a member that lies about another ---------------------------------------------------------------


def buried_by(world: World, victim: str) -> list[str]:
    node = world[victim].id
    return [
        host.name
        for host in world.running
        if host.name != victim and host.core.swim.member(node).liveness in (Liveness.DEAD, Liveness.LEFT)
    ]


def longest_absences(lie: str, ahead: int) -> dict[str, int]:
    """How many looks in a row, ten a second, each host held the victim gone while another lied about it."""
    world = World(3, WorldOptions())
    world.cluster(8, workers=0)
    world.run_for(6)
    Liar("node-7", "node-2", lie, ahead, 8.0).strike(world)
    running, longest = dict.fromkeys(world.hosts, 0), dict.fromkeys(world.hosts, 0)
    for _ in range(100):
        world.run_for(0.1)
        buried = buried_by(world, "node-2")
        for name in world.hosts:
            running[name] = running[name] + 1 if name in buried else 0
            longest[name] = max(longest[name], running[name])
    assert sum(world.bitten.values()) > 100, "it did lie"
    world.run_for(3)
    assert all(host.core.statistics()["swim"]["members"]["alive"] == 8 for host in world.running)
    return {name: looks for name, looks in longest.items() if looks and name != "node-7"}


@pytest.mark.parametrize("lie", ["suspect", "dead", "left"])
@pytest.mark.parametrize("ahead", [0, 1, 7])
def test_one_lying_member_cannot_remove_a_healthy_one(lie, ahead):
    assert longest_absences(lie, ahead) == {}

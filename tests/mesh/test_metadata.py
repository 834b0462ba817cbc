"""Metadata: what each member publishes is held by all, whoever lies, and forgotten with its member."""

import random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec
from mesh.effects import SendDatagram, SendReliable
from mesh.errors import DecodeError, LimitError
from mesh.facts import MetadataChanged
from mesh.member import Liveness
from mesh.messages import Ack, Gossip, MetadataAnswer, MetadataAsk, MetadataPiece, Ping, Snapshot, Update
from mesh.now import Now
from mesh.pulls import PULL_S, PULLS_MAX, RETRY_MAX_S
from mesh.shelf import Shelf, digest_of
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of
from sim.network import Rule

LOCAL = SwimOptions.local()
LARGEST = codec.METADATA_BYTES_MAX


def formed(count, seed=1, **options):
    crowd = Crowd(seed, CrowdOptions(swim=LOCAL, keep_log=False, **options))
    crowd.form(count)
    crowd.run_for(2.0)
    return crowd


def value_of(index, size):
    return random.Random(index).randbytes(size)


def all_hold(crowd, values):
    """Whether all who run hold what each publishes."""
    return all(
        peer.core.metadata.get(crowd.node(index)) == value
        for peer in crowd.running
        for index, value in values.items()
    )


# Meshes.


@pytest.mark.parametrize("seed", range(2))
def test_all_of_64_nodes_hold_all_values_although_a_tenth_of_the_packets_is_lost(seed):
    crowd = formed(64, seed)
    crowd.lay("loss", Rule(loss=0.1))
    rng = random.Random(seed)
    sizes = [1, 100, codec.PIECE_BYTES_MAX, codec.PIECE_BYTES_MAX + 1, 5000, LARGEST]
    values = {
        index: value_of(index, sizes[index] if index < 6 else rng.randint(1, 2000)) for index in range(1, 65)
    }
    for index, value in values.items():
        crowd.call(index, "publish_metadata", value)
    assert crowd.run_until(lambda: all_hold(crowd, values), 60.0, 1.0) is not None
    assert all(peer.core.metadata.missing == 0 for peer in crowd.running)
    assert all(peer.core.statistics().metadata_refused == 0 for peer in crowd.running)


def test_copies_of_a_large_value_multiply_and_its_subject_serves_few():
    crowd = formed(128)
    sent = dict.fromkeys(crowd.peers, 0)

    def tap(peer, outputs):
        sent[peer.index] += sum(len(output.data) for output in outputs if isinstance(output, SendReliable))

    crowd.taps.append(tap)
    crowd.call(9, "publish_metadata", value_of(9, LARGEST))
    assert crowd.run_until(lambda: all_hold(crowd, {9: value_of(9, LARGEST)}), 5.0, 0.1) is not None
    assert sent[9] < 32 * LARGEST, "a quarter of the mesh"


def test_a_small_value_reaches_all_at_once_without_a_pull():
    crowd = formed(32)
    crowd.call(7, "publish_metadata", b"zone = 'b'")
    assert crowd.run_until(lambda: all_hold(crowd, {7: b"zone = 'b'"}), 1.0, 0.05) is not None
    crowd.run_for(5.0)
    assert not any(peer.core.statistics().metadata_asks for peer in crowd.running)


def test_a_change_replaces_the_value_everywhere_and_nothing_is_left_of_the_old_one():
    crowd = formed(8)
    for value in (value_of(1, 3000), value_of(2, 4000), b"small", b""):
        crowd.call(3, "publish_metadata", value)
        assert crowd.run_until(lambda value=value: all_hold(crowd, {3: value}), 10.0, 0.1) is not None
        assert {peer.core.metadata.held_bytes for peer in crowd.running} == {len(value)}


def test_who_joins_later_gets_everything_from_few():
    crowd = formed(24)
    values = {index: value_of(index, 200 * index) for index in range(1, 25)}
    for index, value in values.items():
        crowd.call(index, "publish_metadata", value)
    crowd.run_until(lambda: all_hold(crowd, values), 30.0, 0.5)
    crowd.start(25, seeds=[1])
    assert crowd.run_until(lambda: all_hold(crowd, values), 10.0, 0.1) is not None
    assert crowd.core(25).statistics().metadata_asks <= 6, "what one peer holds is asked for together"


def test_halves_that_published_while_apart_hold_all_once_they_are_one():
    crowd = formed(12)
    crowd.partition(range(1, 7), range(7, 13))
    crowd.run_for(20.0)
    values = {index: value_of(index, 2000) for index in (2, 9)}
    for index, value in values.items():
        crowd.call(index, "publish_metadata", value)
    crowd.run_for(5.0)
    assert crowd.core(1).metadata.get(crowd.node(9)) == b""
    crowd.heal()
    assert crowd.run_until(lambda: all_hold(crowd, values), 30.0, 0.2) is not None


def test_a_restarted_member_is_without_its_value_until_it_publishes_again():
    crowd = formed(6)
    crowd.call(2, "publish_metadata", value_of(2, 5000))
    crowd.run_for(5.0)
    crowd.restart(2, seeds=[1])
    crowd.run_for(5.0)
    assert {peer.core.metadata.get(crowd.node(2)) for peer in crowd.running} == {b""}
    crowd.call(2, "publish_metadata", value_of(2, 5000))
    assert crowd.run_until(lambda: all_hold(crowd, {2: value_of(2, 5000)}), 5.0, 0.1) is not None


def test_of_the_dead_the_value_is_kept_until_they_are_forgotten():
    short = attrs.evolve(LOCAL, remember_gone_s=30.0)
    crowd = Crowd(3, CrowdOptions(swim=short, keep_log=False))
    crowd.form(5)
    told = []
    crowd.taps.append(
        lambda peer, outputs: told.extend(
            o for o in outputs if peer.index == 1 and isinstance(o, MetadataChanged)
        )
    )
    crowd.call(5, "publish_metadata", value_of(5, 3000))
    crowd.run_for(5.0)
    crowd.crash(5)
    crowd.run_for(15.0)
    assert crowd.sees(1, 5) is Liveness.DEAD
    assert crowd.core(1).metadata.get(crowd.node(5)) == value_of(5, 3000)
    crowd.run_for(60.0)
    assert crowd.core(1).metadata.get(crowd.node(5)) is None and crowd.core(1).metadata.held_bytes == 0
    assert told == [MetadataChanged(crowd.node(5), value_of(5, 3000)), MetadataChanged(crowd.node(5), None)]


class Older(Swim):
    """What protocol 2 does: it knows no metadata, and passes accounts on without it."""

    def receive(self, now, data, source, reliable=False):
        packet = codec.decode(data, codec.RELIABLE_BYTES_MAX)
        assert not isinstance(packet.message, MetadataAsk | MetadataAnswer), "it would count an error"
        plain = [_plain(update) for update in packet.updates]
        riders = (*packet.loads, *packet.held, *packet.still, *packet.spans, *packet.marks, *packet.events)
        items = [codec.item(value) for value in (packet.message, *plain, *riders, *packet.ages)]
        return super().receive(now, codec.packet(items, codec.RELIABLE_BYTES_MAX), source, reliable)


def _plain(update):
    return attrs.evolve(update, member=attrs.evolve(update.member, metadata_digest=b"", metadata_bytes=0))


def _account(seed, index, generation, address):
    plain = account_of(seed, index, generation, address)
    return attrs.evolve(plain, protocol=2) if index % 2 else plain


def test_members_of_the_version_before_neither_hold_nor_hinder():
    crowd = Crowd(2, CrowdOptions(swim=LOCAL, keep_log=False, account=_account, core=_either))
    crowd.form(12)
    values = {2: b"small", 4: value_of(4, 5000), 6: value_of(6, LARGEST)}
    for index, value in values.items():
        crowd.call(index, "publish_metadata", value)
    newer = [crowd.core(index) for index in range(2, 13, 2)]
    held = [crowd.run_until(lambda core=core: _holds(crowd, core, values), 40.0, 0.5) for core in newer]
    assert None not in held
    assert crowd.core(1).metadata.held_bytes == 0 and crowd.converged()


def _either(options, me, rng, known):
    return (Older if me.protocol == 2 else Swim)(options, me, rng, known)


def _holds(crowd, core, values):
    return all(core.metadata.get(crowd.node(index)) == value for index, value in values.items())


# Liars, against one core.


ME = account_of(1, 1, 1, ("10.0.0.1", 7946))
PEERS = [account_of(1, index, 1, (f"10.0.0.{index}", 7946)) for index in range(2, 12)]


class Lone:
    """One core, among peers that do what a test says."""

    def __init__(self, options=LOCAL):
        self.core = Swim(options, ME, random.Random(1))
        self.at = 1.0
        self.asked = []
        self.told = []
        for row in PEERS:
            self.hear(row, codec.item(Update(row)))

    def hear(self, source, *items, message=None, reliable=False):
        data = codec.packet([codec.item(message or Gossip(source.node)), *items], codec.RELIABLE_BYTES_MAX)
        return self.note(self.core.receive(Now(self.at, self.at), data, source.address, reliable))

    def note(self, outputs):
        for output in outputs:
            if isinstance(output, MetadataChanged):
                self.told.append(output)
            if isinstance(output, SendReliable | SendDatagram):
                self.note_message(output.address, codec.decode(output.data, codec.RELIABLE_BYTES_MAX).message)
        return outputs

    def note_message(self, address, message):
        if isinstance(message, MetadataAsk):
            self.asked.append((address, message.digests))
        if isinstance(message, Ping):
            source = next(row for row in PEERS if row.address == address)
            ack = Ack(source.node, message.nonce, self.core.view_digest())
            self.hear(source, message=ack)

    def publishes(self, row, digest, size):
        account = attrs.evolve(
            row, identity=row.identity.above(), metadata_digest=digest, metadata_bytes=size
        )
        self.hear(row, codec.item(Update(account)))
        return account

    def rest(self, seconds):
        """Let time pass; everybody answers pings, and nothing else."""
        end = self.at + seconds
        while self.at < end:
            self.at = min(end, max(self.at, self.core.next_deadline()))
            self.note(self.core.tick(Now(self.at, self.at)))


def pieces(value, step=codec.PIECE_BYTES_MAX, digest=None):
    digest = digest_of(value) if digest is None else digest
    return [
        codec.item(MetadataPiece(digest, len(value), at, value[at : at + step]))
        for at in range(0, len(value), step)
    ]


def test_a_value_that_nobody_publishes_is_not_kept():
    lone = Lone()
    lone.hear(PEERS[0], *pieces(b"unasked"))
    assert lone.core.metadata.held_bytes == 0 and not lone.told


def test_a_value_with_a_wrong_digest_is_refused_counted_and_asked_of_another():
    lone = Lone()
    value = value_of(1, 2000)
    lone.publishes(PEERS[0], digest_of(value), len(value))
    lone.rest(1.0)
    assert [address for address, _ in lone.asked] == [PEERS[0].address]
    forged = pieces(bytes(2000), digest=digest_of(value))
    lone.hear(PEERS[0], *forged, message=MetadataAnswer(PEERS[0].node), reliable=True)
    assert lone.core.statistics().metadata_refused == 1 and lone.core.metadata.get(PEERS[0].node) is None
    lone.rest(2.0)
    (address, _) = lone.asked[-1]
    assert address != PEERS[0].address
    source = next(row for row in PEERS if row.address == address)
    lone.hear(source, *pieces(value), message=MetadataAnswer(source.node), reliable=True)
    assert lone.core.metadata.get(PEERS[0].node) == value
    assert lone.told == [MetadataChanged(PEERS[0].node, value)]


def test_who_never_answers_costs_a_few_small_packets_a_minute():
    lone = Lone()
    lone.publishes(PEERS[0], bytes(16), LARGEST)
    lone.rest(600.0)
    assert len({address for address, _ in lone.asked}) > 3, "others are asked too"
    assert 10 < len(lone.asked) < 30
    lone.asked.clear()
    lone.rest(240.0)
    assert len(lone.asked) <= 240.0 / (RETRY_MAX_S / 2 + PULL_S) + 1


def test_pieces_come_in_any_order_and_from_others_or_by_datagram_they_do_no_harm():
    lone = Lone()
    value = value_of(1, 3000)
    lone.publishes(PEERS[0], digest_of(value), len(value))
    lone.rest(1.0)
    good = pieces(value)
    lone.hear(PEERS[1], *good, message=MetadataAnswer(PEERS[1].node), reliable=True)
    lone.hear(PEERS[0], good[0], message=MetadataAnswer(PEERS[0].node), reliable=False)
    counted = lone.core.statistics()
    assert (counted.metadata_refused, counted.misplaced) == (len(good), 1)
    lone.hear(PEERS[0], good[3], good[1], good[1], message=MetadataAnswer(PEERS[0].node), reliable=True)
    assert lone.core.metadata.get(PEERS[0].node) is None
    lone.hear(PEERS[0], good[2], good[0], message=MetadataAnswer(PEERS[0].node), reliable=True)
    assert lone.core.metadata.get(PEERS[0].node) == value


def test_a_claim_of_20_mib_is_refused_with_its_packet():
    lone = Lone()
    with pytest.raises(DecodeError):
        codec.decode(_claim(20 * 2**20))
    before = lone.core.statistics().decode_errors
    lone.note(lone.core.receive(Now(2.0, 2.0), _claim(20 * 2**20), PEERS[0].address))
    assert lone.core.statistics().decode_errors == before + 1


def _claim(size):
    account = attrs.evolve(PEERS[0], metadata_digest=bytes(16), metadata_bytes=size)
    return codec.packet([codec.item(Gossip(PEERS[0].node)), codec.item(Update(account))])


def test_a_liar_about_the_length_of_anothers_value_does_not_keep_it_from_us():
    lone = Lone()
    value = value_of(1, 3000)
    lone.publishes(PEERS[1], digest_of(value), 5)
    lone.publishes(PEERS[0], digest_of(value), len(value))
    lone.rest(1.0)
    (address, digests) = lone.asked[0]
    assert digests == (digest_of(value),)
    source = next(row for row in PEERS if row.address == address)
    lone.hear(source, *pieces(value), message=MetadataAnswer(source.node), reliable=True)
    assert lone.core.metadata.get(PEERS[0].node) == value
    assert lone.core.metadata.held_bytes == len(value), "held once"


def test_few_are_asked_at_once_and_within_the_budget_of_bytes():
    lone = Lone(attrs.evolve(LOCAL, metadata_bytes_per_s=2 * LARGEST))
    for row in PEERS:
        lone.publishes(row, digest_of(row.node.encode()), LARGEST)
    lone.rest(1.0)
    assert len(lone.asked) <= PULLS_MAX
    for _ in range(20):
        lone.rest(0.5)
        for row in PEERS:
            lone.hear(row, message=MetadataAnswer(row.node, lone.asked[-1][1]), reliable=True)
    assert len(lone.asked) * LARGEST <= 2 * LARGEST * (11.0 + 1.0) + LARGEST


def test_what_is_given_is_bounded_and_the_rest_is_said_to_be_lacking():
    lone = Lone(attrs.evolve(LOCAL, metadata_bytes_per_s=2 * LARGEST))
    value = value_of(1, LARGEST)
    lone.core.publish_metadata(Now(lone.at, lone.at), value)
    lacking, given = 0, 0
    for _ in range(10):
        ask = MetadataAsk(PEERS[0].node, (digest_of(value), digest_of(value), bytes(16)))
        for output in lone.hear(PEERS[0], message=ask, reliable=True):
            packet = codec.decode(output.data, codec.RELIABLE_BYTES_MAX)
            given += sum(len(piece.body) for piece in packet.pieces)
            lacking += digest_of(value) in packet.message.lacking and not packet.pieces
    assert given == 2 * LARGEST and lacking == 8


def test_two_who_publish_the_same_are_both_told_of_and_the_value_is_held_and_asked_for_once():
    lone = Lone()
    value = value_of(1, 3000)
    lone.publishes(PEERS[0], digest_of(value), len(value))
    lone.rest(1.0)
    lone.hear(PEERS[0], *pieces(value), message=MetadataAnswer(PEERS[0].node), reliable=True)
    lone.publishes(PEERS[1], digest_of(value), len(value))
    lone.rest(5.0)
    assert lone.told == [MetadataChanged(row.node, value) for row in PEERS[:2]]
    assert len(lone.asked) == 1 and lone.core.metadata.held_bytes == len(value)
    again = attrs.evolve(PEERS[0].identity, incarnation=9)
    lone.hear(PEERS[0], codec.item(Update(attrs.evolve(PEERS[0], identity=again))))
    assert lone.told[-1] == MetadataChanged(PEERS[0].node, b"")
    assert lone.core.metadata.get(PEERS[1].node) == value


def test_a_full_shelf_asks_for_nothing_more_and_the_dead_make_room():
    lone = Lone()
    lone.core.metadata._shelf.size_max = 5000
    first, second = value_of(1, 3000), value_of(2, 3000)
    account = lone.publishes(PEERS[0], digest_of(first), len(first))
    lone.rest(1.0)
    lone.hear(PEERS[0], *pieces(first), message=MetadataAnswer(PEERS[0].node), reliable=True)
    lone.publishes(PEERS[1], digest_of(second), len(second))
    lone.rest(60.0)
    assert len(lone.asked) == 1 and lone.core.statistics().metadata_unheld > 0
    gone = attrs.evolve(account, liveness=Liveness.LEFT)
    lone.hear(PEERS[0], codec.item(Update(gone)))
    lone.rest(120.0)
    assert digest_of(second) in lone.asked[-1][1] and lone.core.metadata.get(PEERS[0].node) is None


def test_a_question_by_datagram_is_not_answered():
    lone = Lone()
    lone.core.publish_metadata(Now(lone.at, lone.at), b"value")
    before = lone.core.statistics().misplaced
    assert not lone.hear(PEERS[0], message=MetadataAsk(PEERS[0].node, (digest_of(b"value"),)))
    assert lone.core.statistics().misplaced == before + 1


def test_more_than_64_kib_are_refused_and_change_nothing():
    lone = Lone()
    with pytest.raises(LimitError, match="over the limit of 65536"):
        lone.core.publish_metadata(Now(1.0, 1.0), bytes(LARGEST + 1))
    assert lone.core.me == ME and lone.core.metadata.get(ME.node) == b""


def test_an_account_without_room_for_a_digest_is_refused_and_changes_nothing():
    full = attrs.evolve(ME, models=tuple("m" * 90 + f"{index:02}" for index in range(10)))
    core = Swim(LOCAL, full, random.Random(1))
    with pytest.raises(LimitError):
        core.publish_metadata(Now(1.0, 1.0), b"value")
    assert core.me == full and core.metadata.held_bytes == 0


def test_a_snapshot_of_many_is_asked_of_who_told_it():
    lone = Lone()
    digests = [digest_of(row.node.encode()) for row in PEERS]
    rows = [
        attrs.evolve(row, identity=row.identity.above(), metadata_digest=digest, metadata_bytes=16)
        for row, digest in zip(PEERS, digests, strict=True)
    ]
    lone.hear(
        PEERS[3], *(codec.item(Update(row)) for row in rows), message=Snapshot(PEERS[3].node), reliable=True
    )
    lone.rest(1.0)
    asked = {digest for address, digests in lone.asked if address == PEERS[3].address for digest in digests}
    assert asked == set(digests) and len(lone.asked) == 1


# The shelf.


NODES = st.sampled_from("abcd")
VALUES = st.sampled_from([b"", b"one", b"two", b"three", bytes(40)])


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["note", "put"]), NODES, VALUES), max_size=40))
def test_the_shelf_holds_once_what_is_published_within_its_room_and_nothing_else(steps):
    shelf, marks = Shelf(size_max=45), {}
    for step, node, value in steps:
        if step == "note":
            shelf.note(node, digest_of(value))
            marks[node] = digest_of(value)
        else:
            kept = shelf.put(value)
            assert not kept or shelf.value(digest_of(value)) == value
        published = {digest for digest in marks.values() if digest}
        held = [value for value in (b"one", b"two", b"three", bytes(40)) if digest_of(value) in shelf]
        assert {digest_of(value) for value in held} <= published
        assert shelf.size == sum(map(len, held)) <= 45
        assert {node for node, digest in marks.items() if digest} == set(shelf.nodes)
        for digest in published:
            assert set(shelf.users(digest)) == {node for node, mark in marks.items() if mark == digest}


CUTS = st.lists(st.integers(0, 3000), max_size=6)


@settings(max_examples=40)
@given(CUTS, st.integers(0, 2**32 - 1))
def test_whatever_is_mixed_in_only_the_true_value_is_ever_believed(cuts, seed):
    lone = Lone()
    value = value_of(1, 3000)
    lone.publishes(PEERS[0], digest_of(value), len(value))
    lone.rest(0.5)
    rng = random.Random(seed)
    for at in cuts:
        body = rng.choice([value[at : at + 700], rng.randbytes(700)])
        piece = MetadataPiece(digest_of(value), rng.choice([3000, at, LARGEST]), at, body)
        lone.hear(PEERS[0], codec.item(piece), message=MetadataAnswer(PEERS[0].node), reliable=True)
        assert lone.core.metadata.get(PEERS[0].node) in (None, value)
    for _ in range(30):
        if lone.core.metadata.get(PEERS[0].node) == value:
            break
        lone.rest(5.0)
        for row in PEERS:
            lone.hear(row, *pieces(value), message=MetadataAnswer(row.node), reliable=True)
    assert lone.core.metadata.get(PEERS[0].node) == value

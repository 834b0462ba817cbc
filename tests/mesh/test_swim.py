"""Conversations between membership cores in memory: the real bytes, virtual time, no sockets."""

import heapq
import random

import attrs
import pytest

from mesh import codec
from mesh.effects import Report, SendDatagram, SendReliable
from mesh.errors import LimitError
from mesh.facts import MemberChanged, Quarantined, QuarantineLifted
from mesh.identity import Identity
from mesh.load import LoadRecord, ModelLoad
from mesh.member import Liveness, Member
from mesh.messages import Ack, Gossip, Ping, Update
from mesh.now import Now
from mesh.swim import Swim
from mesh.swim_options import SwimOptions

LOCAL = SwimOptions.local()
DATAGRAM_S = 0.001
RELIABLE_S = 0.003


def account(index, generation=1, port=None):
    return Member(Identity(f"{index:016x}", generation), f"n{index}", ("127.0.0.1", port or 7000 + index))


class World:
    """A mesh in one process: a clock, a wire that can be cut, and what each core said."""

    def __init__(self, count, seed=1, options=LOCAL, loss=0.0):
        self.rng = random.Random(seed)
        self.options = options
        self.loss = loss
        self.now = 1000.0
        self.order = 0
        self.wire = []
        self.cores = {}
        self.clocks = {}
        self.down = {}
        self.asleep = {}
        self.cut = {}
        self.log = []
        self.datagrams = 0
        self.bytes = 0
        for index in range(1, count + 1):
            self.start(index, seeds=[1] if index > 1 else [])

    def start(self, index, seeds=(), generation=1):
        me = account(index, generation)
        self.down.pop(me.address, None)
        self.cores[me.address] = Swim(self.options, me, random.Random(f"{self.rng.random()}"))
        self.clocks[me.address] = self.rng.uniform(0, 1e6)
        self.call(index, "join", [account(seed).address for seed in seeds])
        return self.cores[me.address]

    def core(self, index):
        return self.cores[account(index).address]

    def call(self, index, name, *arguments, **keywords):
        self._step(account(index).address, name, *arguments, **keywords)

    def instant(self, address):
        return Now(self.now + self.clocks[address], 1.7e9 + self.now)

    def _step(self, address, name, *arguments, **keywords):
        core = self.cores[address]
        for output in getattr(core, name)(self.instant(address), *arguments, **keywords):
            if isinstance(output, SendDatagram | SendReliable):
                self._post(address, output)
            else:
                self.log.append((self.now, core.me.name, output))

    def _post(self, source, output):
        reliable = isinstance(output, SendReliable)
        assert len(output.data) <= (codec.RELIABLE_BYTES_MAX if reliable else codec.DATAGRAM_BYTES_MAX)
        self.datagrams += 1
        self.bytes += len(output.data) + 28
        if not reliable and self.rng.random() < self.loss:
            return
        delay = (RELIABLE_S if reliable else DATAGRAM_S) * self.rng.uniform(0.5, 1.5)
        self.order += 1
        heapq.heappush(
            self.wire, (self.now + delay, self.order, source, output.address, output.data, reliable)
        )

    def _arrive(self, source, target, data, reliable):
        if target not in self.cores or target in self.down or (source, target) in self.cut:
            return
        if target in self.asleep:
            self.asleep[target].append((source, data, reliable))
            return
        self._step(target, "receive", data, source, reliable)

    def run(self, seconds, until=None):
        """Let time pass; stop early when `until()` holds. Returns the seconds that passed."""
        began, end = self.now, self.now + seconds
        while until is None or not until():
            at, address = min(
                (
                    (core.next_deadline() - self.clocks[address], address)
                    for address, core in self.cores.items()
                    if address not in self.down and address not in self.asleep
                    if core.next_deadline() is not None
                ),
                default=(end, None),
            )
            if self.wire and self.wire[0][0] <= at:
                at = self.wire[0][0]
                address = None
            if at > end:
                self.now = end
                break
            self.now = max(self.now, at)
            if address is None:
                self._arrive(*heapq.heappop(self.wire)[2:])
            else:
                self._step(address, "tick")
        return self.now - began

    def crash(self, index):
        self.down[account(index).address] = True

    def pause(self, index):
        self.asleep[account(index).address] = []

    def resume(self, index):
        address = account(index).address
        for source, data, reliable in self.asleep.pop(address):
            self._step(address, "receive", data, source, reliable)

    def sever(self, some, others, both_ways=True):
        for a in some:
            for b in others:
                self.cut[account(a).address, account(b).address] = True
                if both_ways:
                    self.cut[account(b).address, account(a).address] = True

    def running(self):
        return [core for address, core in self.cores.items() if address not in self.down]

    def sees(self, observer, subject):
        row = self.core(observer).member(f"{subject:016x}")
        return row.liveness if row is not None else None

    def everybody_sees(self, subject, liveness):
        node = f"{subject:016x}"
        rows = [core.member(node) for core in self.running() if core.me.node != node]
        return all(row is not None and row.liveness is liveness for row in rows)

    def converged(self):
        cores = self.running()
        return all(
            [row.liveness for core in cores if (row := core.member(other.me.node))]
            == [Liveness.ALIVE] * len(cores)
            for other in cores
        )

    def facts(self, kind, node=None):
        return [(at, who, fact) for at, who, fact in self.log if isinstance(fact, kind)]

    def reports(self, event):
        return [(at, who, fact) for at, who, fact in self.facts(Report) if fact.event == event]


def settled(count, **options):
    world = World(count, **options)
    world.run(10, until=world.converged)
    assert world.converged()
    world.run(3)
    assert world.converged()
    world.log.clear()
    return world


# Joining.


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_all_members_meet_through_one_seed(count):
    world = World(count)
    assert world.run(3, until=world.converged) < 1.0
    world.run(3)
    assert len({core.statistics().digest for core in world.running()}) == 1


def test_a_joiner_asks_until_a_late_seed_appears():
    world = World(0)
    world.start(2, seeds=[1])
    world.run(20)
    assert len(world.reports("joining")) == 1
    assert 4 <= len(world.reports("no_seed_answers")) <= 12
    world.start(1)
    world.run(LOCAL.join_retry_max_s * 1.6, until=world.converged)
    assert world.converged()
    assert [who for _, who, _ in world.reports("joined")] == ["n2"]
    world.run(5)
    assert len(world.reports("joined")) == 1


def test_our_own_address_among_the_seeds_is_ignored():
    world = World(0)
    core = world.start(1, seeds=[1])
    world.run(10)
    assert not world.reports("joining")
    assert core.statistics().packets_sent == 0


def test_a_seed_that_was_down_at_first_is_joined_later():
    world = World(0)
    world.start(1)
    world.start(2, seeds=[1, 3])
    world.run(2)
    world.start(3)
    assert world.run(10, until=world.converged) < 5
    assert world.converged()


# Failure, seen and unseen.


@pytest.mark.parametrize("seed", range(8))
def test_an_idle_crash_is_dead_everywhere_within_the_bound(seed):
    world = settled(5, seed=seed)
    world.crash(2)
    detection_s = world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    first_probe_s = 2 * 5 * LOCAL.probe_period_s
    assert detection_s <= first_probe_s + 1.5
    changed = {fact.after.name for _, _, fact in world.facts(MemberChanged)}
    assert changed == {"n2"}, "nobody else was doubted"
    assert {fact.node for _, _, fact in world.facts(Quarantined)} == {f"{2:016x}"}


def test_quarantine_comes_before_suspicion_and_suspicion_before_death():
    world = settled(5)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    for name in ("n1", "n3", "n4", "n5"):
        story = [
            fact
            for _, who, fact in world.log
            if who == name and isinstance(fact, Quarantined | MemberChanged)
        ]
        kinds = [fact.after.liveness if isinstance(fact, MemberChanged) else "quarantine" for fact in story]
        assert kinds[-1] is Liveness.DEAD
        assert set(kinds[:-1]) == {"quarantine", Liveness.SUSPECT}
    first = world.facts(Quarantined | MemberChanged)[0][2]
    assert isinstance(first, Quarantined)


def test_evidence_of_a_lost_link_quarantines_at_once_and_one_answer_lifts_it():
    world = settled(5)
    world.call(1, "evidence", f"{2:016x}", "reset by peer")
    assert world.core(1).is_quarantined(f"{2:016x}")
    assert world.facts(Quarantined)[0][2] == Quarantined(f"{2:016x}", "reset by peer")
    assert world.run(1, until=lambda: not world.core(1).is_quarantined(f"{2:016x}")) < 0.02
    assert world.facts(QuarantineLifted)[0][2] == QuarantineLifted(f"{2:016x}")
    world.run(5)
    assert not world.facts(MemberChanged)


def test_a_crash_that_every_link_saw_is_dead_within_a_second():
    world = settled(5)
    world.crash(2)
    for observer in (1, 3, 4, 5):
        world.call(observer, "evidence", f"{2:016x}")
    assert world.run(10, until=lambda: world.everybody_sees(2, Liveness.DEAD)) < 1.0


def test_traffic_on_a_link_lifts_the_quarantine():
    world = settled(3)
    world.sever([1], [2])
    world.run(20, until=lambda: world.core(1).is_quarantined(f"{2:016x}") or world.now > 1e9)
    world.call(1, "evidence", f"{2:016x}")
    world.call(1, "heard", f"{2:016x}")
    assert not world.core(1).is_quarantined(f"{2:016x}")


def test_an_indirect_probe_saves_a_member_whose_direct_path_is_cut():
    world = settled(5)
    world.sever([1], [2])
    world.run(30)
    assert not world.facts(MemberChanged)
    assert not world.facts(Quarantined)
    assert world.core(1).statistics().rounds_failed == 0


def test_without_the_helpers_that_member_would_be_suspected():
    world = settled(5, options=attrs.evolve(LOCAL, helpers=0))
    world.sever([1], [2])
    world.run(30)
    assert world.facts(Quarantined)


def test_a_probe_over_tcp_saves_a_member_whose_datagrams_are_lost():
    world = settled(2)
    world.loss = 1.0
    world.run(20)
    assert not world.facts(MemberChanged)
    assert not world.facts(Quarantined)


def test_thirty_per_cent_loss_kills_nobody():
    world = settled(5)
    world.loss = 0.3
    world.run(120)
    assert not [1 for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]
    world.loss = 0.0
    world.run(5)
    assert world.converged()


def test_a_mesh_of_two_decides_after_the_longest_timeout():
    world = settled(2)
    world.crash(2)
    world.run(20, until=lambda: world.sees(1, 2) is Liveness.SUSPECT)
    waited_s = world.run(20, until=lambda: world.sees(1, 2) is Liveness.DEAD)
    longest_s = LOCAL.suspicion_factor * LOCAL.probe_period_s * LOCAL.suspicion_max_factor
    assert waited_s == pytest.approx(longest_s, abs=0.01)


def test_who_hears_nobody_declares_nobody_dead():
    world = settled(5)
    for other in (2, 3, 4, 5):
        world.crash(other)
    world.run(120)
    assert {world.sees(1, other) for other in (2, 3, 4, 5)} == {Liveness.SUSPECT}
    assert all(world.core(1).is_quarantined(f"{other:016x}") for other in (2, 3, 4, 5))


def test_who_hears_its_helpers_say_nack_does_not_blame_itself():
    world = settled(5)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    assert [core.statistics().health for core in world.running()] == [0, 0, 0, 0]


def test_who_is_cut_off_from_its_helpers_too_blames_itself():
    world = settled(5)
    world.sever([1], [2, 3, 4, 5])
    world.run(5)
    assert world.core(1).statistics().health >= 2
    assert all(world.core(index).statistics().health == 0 for index in (2, 3, 4, 5))


# Refutation.


def doubt(world, observer, subject, liveness, accuser=None):
    """Deliver a rumour about `subject` to `observer`, as if from member 3."""
    row = attrs.evolve(world.core(observer).member(f"{subject:016x}"), liveness=liveness)
    update = Update(row, (f"{accuser:016x}",) if accuser else ())
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(update)])
    world.call(observer, "receive", data, account(3).address)


def test_a_suspect_refutes_with_a_higher_incarnation():
    world = settled(5)
    before = world.core(2).me.identity
    doubt(world, 1, 2, Liveness.SUSPECT, accuser=4)
    assert world.sees(1, 2) is Liveness.SUSPECT
    assert world.run(2, until=lambda: world.sees(1, 2) is Liveness.ALIVE) < 0.1
    assert world.core(2).me.identity == before.above()
    world.run(5)
    assert world.converged()
    assert [who for _, who, _ in world.reports("refuted")] == ["n2"]


def test_a_ping_tells_its_target_what_is_believed_of_it():
    world = settled(2)
    doubt(world, 1, 2, Liveness.SUSPECT)
    world.run(0.01)
    assert world.sees(1, 2) is Liveness.ALIVE, "the buddy's ping asked, its ack refuted"


@pytest.mark.parametrize("liveness", [Liveness.DEAD, Liveness.SUSPECT])
def test_a_lie_about_a_living_member_is_checked_not_believed(liveness):
    world = settled(5)
    doubt(world, 1, 2, liveness)
    world.run(10)
    assert world.converged()
    assert not [1 for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]


def test_a_rumour_of_death_is_believed_after_a_failed_round_of_our_own():
    world = settled(5)
    world.crash(2)
    doubt(world, 1, 2, Liveness.DEAD)
    assert world.sees(1, 2) is Liveness.SUSPECT
    assert world.run(5, until=lambda: world.sees(1, 2) is Liveness.DEAD) <= LOCAL.verdict_min_s + 0.3


# Leaving, and coming back.


def test_leaving_is_seen_as_left_by_all_within_a_second():
    world = settled(16)
    world.call(2, "leave")
    assert world.run(5, until=lambda: world.everybody_sees(2, Liveness.LEFT)) < 0.5
    world.run(1)
    world.crash(2)
    world.run(10)
    assert world.everybody_sees(2, Liveness.LEFT)
    assert {fact.after.liveness for _, _, fact in world.facts(MemberChanged)} == {Liveness.LEFT}


def test_a_restart_with_the_same_id_is_a_new_life():
    world = settled(5)
    world.crash(2)
    world.run(0.1)
    world.start(2, seeds=[1], generation=2)
    assert world.run(5, until=world.converged) < 1.5
    world.run(5)
    assert world.converged()
    assert {core.member(f"{2:016x}").identity.generation for core in world.running()} == {2}


def test_a_restart_after_its_death_is_taken_back():
    world = settled(5)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    world.start(2, seeds=[3], generation=2)
    assert world.run(5, until=world.converged) < 1.0


def test_a_restart_that_lost_its_generation_jumps_above_the_old_one_once():
    world = settled(3)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    world.start(2, seeds=[1], generation=0)
    world.run(5, until=world.converged)
    assert world.converged()
    assert world.core(2).me.identity.generation == 2
    assert len(world.reports("generation_raised")) == 1
    assert not world.reports("identity_clash")


def test_new_facts_about_a_member_reach_everybody():
    world = settled(5)
    world.call(2, "update_me", http="127.0.0.1:8080", draining=True)
    node = f"{2:016x}"
    done = world.run(
        3, until=lambda: all(core.member(node).http == "127.0.0.1:8080" for core in world.running())
    )
    assert done < 1.0
    assert world.core(1).member(node).draining


def test_facts_too_large_for_a_datagram_are_refused_unchanged():
    world = settled(2)
    before = world.core(1).me
    with pytest.raises(LimitError, match="hint:"):
        world.call(1, "update_me", models=tuple(f"{index:096d}" for index in range(32)))
    assert world.core(1).me == before


# Pauses and partitions.


@pytest.mark.parametrize("pause_s", [1.0, 5.0, 60.0])
def test_a_paused_node_blames_itself(pause_s):
    world = settled(5)
    world.pause(2)
    world.run(pause_s)
    world.resume(2)
    world.run(5)
    assert world.converged()
    assert len(world.reports("paused")) == 1
    own = [
        fact.after for _, who, fact in world.facts(MemberChanged) if who == "n2" and fact.after.name != "n2"
    ]
    assert not own, "the sleeper doubted nobody"
    assert not [1 for _, who, _ in world.facts(Quarantined) if who == "n2"]


def test_a_suspicion_that_ran_out_during_a_pause_kills_nobody():
    world = settled(5)
    doubt(world, 1, 2, Liveness.SUSPECT)
    world.pause(1)
    world.run(10)
    world.resume(1)
    world.run(5)
    dead = [(who, fact.after.name) for _, who, fact in world.facts(MemberChanged) if fact.after.liveness > 1]
    assert {name for _, name in dead} <= {"n1"}
    assert world.converged()


@pytest.mark.parametrize("seed", range(4))
def test_two_halves_of_a_partition_heal_without_seeds(seed):
    world = World(0, seed=seed)
    world.start(1)
    for index in range(2, 7):
        world.start(index, seeds=[1])
    world.run(5)
    for index in range(1, 7):
        world.call(index, "join", [])
    left, right = [1, 2, 3], [4, 5, 6]
    world.sever(left, right)
    world.run(30)
    assert {world.sees(a, b) for a in left for b in right} == {Liveness.DEAD}
    assert {world.sees(a, b) for a in left for b in left if a != b} == {Liveness.ALIVE}
    world.cut.clear()
    world.log.clear()
    assert world.run(30, until=world.converged) < 5.0
    world.run(10)
    assert world.converged()
    assert not [1 for _, _, fact in world.facts(MemberChanged) if fact.after.liveness is Liveness.DEAD]
    assert len({core.statistics().digest for core in world.running()}) == 1


def test_tables_that_differ_are_compared_when_gossip_has_had_its_chance():
    world = settled(3)
    world.start(9)
    world.core(1)._members.apply(account(9), 0.0)
    assert world.run(15, until=world.converged) > LOCAL.sync_periods * LOCAL.probe_period_s
    assert world.converged()
    assert sum(core.statistics().syncs for core in world.running()) >= 1
    world.run(10)
    syncs = sum(core.statistics().syncs for core in world.running())
    world.run(30)
    assert syncs == sum(core.statistics().syncs for core in world.running()), "equal tables are left alone"


# One rule, one test.


def test_a_doubt_that_was_refuted_long_ago_is_refuted_again_with_the_same_incarnation():
    world = settled(5)
    stale = attrs.evolve(world.core(2).me, liveness=Liveness.SUSPECT)
    world.call(2, "update_me", zone="a")
    world.run(5)
    assert world.core(2).statistics().rumours == 0
    incarnation = world.core(2).me.identity
    data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(Update(stale))])
    world.call(2, "receive", data, account(3).address)
    assert world.core(2).statistics().rumours == 1
    assert world.core(2).me.identity == incarnation


def test_a_quarantined_member_is_asked_again_every_period():
    world = settled(16, options=attrs.evolve(LOCAL, suspicion_factor=100.0))
    world.crash(2)
    world.run(20, until=lambda: all(core.is_quarantined(f"{2:016x}") for core in world.running()))
    before = world.core(1).statistics().rounds_failed
    world.run(10 * LOCAL.probe_period_s)
    assert world.core(1).statistics().rounds_failed - before >= 8, "the round robin alone would ask once"


def test_an_answer_through_a_helper_lifts_the_quarantine_too():
    world = settled(5)
    world.sever([1], [2])
    world.call(1, "evidence", f"{2:016x}")
    assert world.run(2, until=lambda: not world.core(1).is_quarantined(f"{2:016x}")) < 0.2


def test_what_was_heard_before_a_link_was_lost_does_not_count_after():
    world = settled(5)
    world.crash(2)
    world.call(1, "probe", f"{2:016x}")
    world.run(0.005)
    world.call(1, "heard", f"{2:016x}")
    world.run(0.005)
    world.call(1, "evidence", f"{2:016x}")
    assert world.run(2, until=lambda: world.sees(1, 2) is Liveness.SUSPECT) <= LOCAL.verdict_min_s


def test_a_suspect_that_answers_us_does_not_die_though_it_never_refutes():
    world = settled(3)
    world.core(2)._hear_of_me = lambda now, rumour: None
    doubt(world, 1, 2, Liveness.SUSPECT)
    world.run(30)
    assert world.sees(1, 2) is Liveness.SUSPECT
    assert world.sees(3, 2) is Liveness.SUSPECT


def test_an_id_that_two_nodes_share_is_reported_after_one_jump():
    world = settled(3)
    for generation in (5, 9):
        clone = attrs.evolve(account(2, generation), address=("127.0.0.1", 9))
        data = codec.packet([codec.item(Gossip(f"{3:016x}")), codec.item(Update(clone))])
        world.call(2, "receive", data, account(3).address)
    assert world.core(2).me.identity.generation == 6
    assert len(world.reports("generation_raised")) == len(world.reports("identity_clash")) == 1


def test_a_ping_to_the_dead_says_that_they_are_held_dead():
    world = settled(2)
    world.crash(2)
    world.run(20)
    assert world.sees(1, 2) is Liveness.DEAD
    world.wire.clear()
    world.run(3, until=lambda: bool(world.wire))
    packet = codec.decode(world.wire[0][4])
    assert isinstance(packet.message, Ping)
    assert [update.member.liveness for update in packet.updates] == [Liveness.DEAD]


def test_gossip_rounds_go_on_until_the_rumour_has_been_sent_often_enough():
    world = settled(3)
    world.call(2, "update_me", zone="a")
    assert world.core(2).statistics().rumours == 1
    waited_s = world.run(10, until=lambda: not any(core.statistics().rumours for core in world.running()))
    assert waited_s < LOCAL.gossip_period_s * 8


def test_gossip_rounds_carry_news_round_a_large_mesh_within_a_probe_period():
    world = settled(32)
    world.call(2, "update_me", zone="a")
    node = f"{2:016x}"
    waited_s = world.run(10, until=lambda: all(core.member(node).zone == "a" for core in world.running()))
    assert waited_s < LOCAL.probe_period_s


# The wire.


def test_garbage_is_counted_and_dropped():
    world = settled(2)
    core = world.core(1)
    rng = random.Random(7)
    before = core.members()
    for length in range(200):
        world.call(1, "receive", rng.randbytes(length), ("127.0.0.1", 9))
    assert core.statistics().decode_errors == 200
    assert core.members() == before


def test_an_ack_counts_only_with_the_nonce_of_an_open_round():
    world = settled(2)
    world.crash(2)
    world.call(1, "evidence", f"{2:016x}")
    forged = codec.packet([codec.item(Ack(f"{3:016x}", 12345, bytes(8)))])
    for _ in range(40):
        world.run(0.5)
        world.call(1, "receive", forged, account(3).address)
    assert world.sees(1, 2) is Liveness.DEAD


def test_a_ping_for_another_node_is_not_answered():
    world = settled(2)
    sent = world.core(1).statistics().packets_sent
    ping = codec.packet([codec.item(Ping(f"{2:016x}", 1, f"{77:016x}"))])
    world.call(1, "receive", ping, account(2).address)
    assert world.core(1).statistics().packets_sent == sent
    assert world.core(1).statistics().misplaced == 1


def test_load_reaches_every_member_and_grows_old():
    world = settled(5)
    world.call(2, "publish_load", LoadRecord("", models=(ModelLoad("tiny", queued_tokens=7),)))
    node = f"{2:016x}"

    def everywhere():
        return all(core.loads.get(world.instant(core.me.address), node) for core in world.running())

    published = world.now
    assert world.run(10, until=everywhere) < 3.0
    world.run(1)
    for core in world.running():
        record = core.loads.get(world.instant(core.me.address), node)
        assert record.models[0].queued_tokens == 7
        assert record.age_ms / 1000 == pytest.approx(world.now - published, abs=0.05)


def test_an_idle_mesh_is_quiet_and_cheap():
    world = settled(16)
    world.datagrams = world.bytes = 0
    world.run(20)
    packets_per_s = world.datagrams / 20 / 16
    assert packets_per_s == pytest.approx(2 / LOCAL.probe_period_s, rel=0.02)
    assert world.bytes / world.datagrams <= 66
    assert not world.log


def test_the_same_seed_gives_the_same_story():
    def story():
        world = World(5, seed=3, loss=0.1)
        world.run(5)
        world.crash(2)
        world.run(10)
        return world.log, world.datagrams, world.bytes

    assert story() == story()

"""Every quarantine and every death can be explained afterwards."""

from mesh.identity import Identity
from mesh.member import Liveness
from mesh.probe import Probe
from mesh.why import VERDICTS_MAX, Why
from tests.mesh.small_world import LOCAL, settled

NODE = f"{2:016x}"


def test_a_death_is_explained_from_the_failed_round_to_the_end():
    world = settled(6)
    world.crash(2)
    world.run(20, until=lambda: world.everybody_sees(2, Liveness.DEAD))
    for core in world.running():
        story = core.explain(NODE)
        verdicts = [verdict.verdict for verdict in story]
        assert set(verdicts) == {"suspect", "quarantined", "dead"}
        assert verdicts[-1] == "dead"
        dead = story[-1]
        assert dead.accusers
        assert dead.round.outcome == "failed"
        assert len(dead.round.helpers) == LOCAL.helpers
        assert dead.round.tcp == "silent"
        assert dead.round_trip_s is None or 0 < dead.round_trip_s < 0.1
        assert dead.health == 0
        assert dead.echoed_s_ago < 4 * LOCAL.probe_period_s, "it could hear"


def test_a_refused_connection_and_a_lost_link_are_told_apart():
    world = settled(5)
    world.call(1, "evidence", NODE, "reset by peer")
    (quarantined,) = world.core(1).explain(NODE)
    assert (quarantined.verdict, quarantined.reason, quarantined.round) == (
        "quarantined",
        "reset by peer",
        None,
    )
    world.run(1)
    assert world.core(1).explain(NODE)[-1].verdict == "trusted"


def test_the_memory_is_bounded_and_of_all_members_together():
    why = Why()
    for index in range(VERDICTS_MAX + 10):
        why.note(float(index), str(index % 2), "suspect", "test", (), None, (0, 0.0, 0.0, None))
    assert len(why.explain()) == VERDICTS_MAX
    assert len(why.explain("1")) == VERDICTS_MAX // 2
    assert why.explain("2") == ()


def test_a_round_is_summed_up_as_it_went():
    probe = Probe(Identity(NODE), 1, 10.0, 0.1, 0.5, asks=2)
    for _ in range(3):
        probe.timed_out(None)
    probe.helpers, probe.refused = ("h",), True
    why = Why()
    why.round_ended(10.5, probe)
    why.note(10.5, NODE, "quarantined", "no answer", (), None, (1, 0.5, 0.0, 10.0))
    (verdict,) = why.explain()
    assert (verdict.round.asks, verdict.round.tcp, verdict.round.lasted_s) == (2, "refused", 0.5)
    assert verdict.echoed_s_ago == 0.5

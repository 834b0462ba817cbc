"""Measures of rounds and deaths: each packet of them is due at a moment that follows from the options alone."""

import itertools
import math

import attrs

from mesh.detector import NACK_SHARE
from mesh.facts import QuarantineLifted
from mesh.member import Liveness
from mesh.messages import Ack, Nack, Ping, PingRequest
from mesh.rota import moment as turn_at
from mesh.why import RoundSummary, Verdict
from sim.crowd import Crowd
from sim.peer import EPOCH_S
from sim.rule import Rule
from tests.sim.measured.wire import (
    LOCAL,
    TRIP_S,
    Said,
    Wire,
    after_echo,
    close,
    even,
    lone,
    moment,
    row,
    told,
)

ALIVE, SUSPECT, DEAD = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD
VERDICT_S, PERIOD_S, TIMEOUT_S = LOCAL.verdict_min_s, LOCAL.probe_period_s, LOCAL.probe_timeout_min_s
PING_BYTES, ACK_BYTES = 39, 34
"""Of an idle mesh without load records."""


def still_mesh_is_a_timetable() -> str:
    """In a still mesh each member is pinged once a period, at its own moment, and answers at once; no more is sent."""
    crowd = even(6)
    crowd.run_for(-(EPOCH_S + crowd.time) % (5 * PERIOD_S))
    wire = Wire(crowd)
    first = round((EPOCH_S + crowd.time) / PERIOD_S)
    crowd.run_for(5 * PERIOD_S)
    ids = sorted(crowd.node(index) for index in range(1, 7))
    due = [
        (turn_at(period, rank, 6) * PERIOD_S - EPOCH_S, ids[rank])
        for period in range(first, first + 5)
        for rank in range(6)
    ]
    pings, acks = wire.of(Ping), wire.of(Ack)
    if len(wire.all) != len(pings) + len(acks) or any(
        said.packet.updates or said.reliable for said in wire.all
    ):
        return "something else than pings and acks is sent"
    if [(round(said.at, 6), crowd.node(said.to)) for said in pings] != [
        (round(at, 6), node) for at, node in due
    ]:
        return "members are not pinged once a period, in order"
    if len({(said.by, said.to) for said in pings}) != 30:
        return "in a block of periods each pair has not had its turn once"
    for ping, ack in zip(pings, acks, strict=True):
        honest = ack.message.nonce == ping.message.nonce and ack.message.digest == crowd.core(1).view_digest()
        if not honest or (ack.by, ack.to) != (ping.to, ping.by) or not close(ack.at, ping.at + TRIP_S):
            return f"{ack} does not answer {ping}"
    sizes = {said.size for said in pings} | {said.size for said in acks}
    return "" if sizes == {PING_BYTES, ACK_BYTES} else f"packets of {sizes} bytes"


def round_robin_is_fair() -> str:
    """Without a timetable each node pings one member a period, all others within each pass of its own."""
    crowd = even(5, swim=attrs.evolve(LOCAL, shared_probing=False))
    wire = Wire(crowd)
    crowd.run_for(16 * PERIOD_S)
    for index in range(1, 6):
        pings = wire.of(Ping, by=index)
        gaps = {round(b.at - a.at, 6) for a, b in itertools.pairwise(pings)}
        if gaps != {PERIOD_S}:
            return f"it pings every {gaps} s"
        turns = [said.to for said in pings]
        passes = [tuple(turns[at : at + 4]) for at in range(4)]
        begins = [at for at in range(4) if all(len(set(turns[i : i + 4])) == 4 for i in range(at, 12, 4))]
        if not begins or index in turns or len({*passes}) < 2:
            return f"node-{index} pings {turns}"
    return ""


def unwell_take_fewer_turns() -> str:
    """Who holds itself to be less well takes its turns so many periods apart, and is well again by answers."""
    crowd = even(6)
    for _ in range(3):
        told(crowd, 5, 1, attrs.evolve(row(crowd, 5, 5), liveness=SUSPECT), crowd.node(1))
    if crowd.core(5).statistics().health != 3:
        return f"three doubts make a score of {crowd.core(5).statistics().health}"
    wire = Wire(crowd)
    crowd.run_for(14 * PERIOD_S)
    turns = [math.floor((EPOCH_S + ping.at) / PERIOD_S) for ping in wire.of(Ping, by=5)]
    waits = [later - turn for turn, later in itertools.pairwise(turns)]
    if waits != [4, 3, 2, 1, 1, 1, 1]:
        return f"turns after {waits} periods"
    if crowd.core(5).statistics().health:
        return "answers do not make it well"
    crowd = even(6, swim=attrs.evolve(LOCAL, shared_probing=False))
    for _ in range(3):
        told(crowd, 5, 1, attrs.evolve(row(crowd, 5, 5), liveness=SUSPECT), crowd.node(1))
    wire = Wire(crowd)
    crowd.run_for(14 * PERIOD_S)
    turns = [ping.at for ping in wire.of(Ping, by=5)]
    waits = [round((later - turn) / PERIOD_S, 3) for turn, later in itertools.pairwise(turns)]
    return "" if waits == [4, 3, 2, 1, 1, 1, 1] else f"without a timetable turns after {waits} periods"


def _crashed(count: int = 5, **more: object) -> tuple[Crowd, Wire, Said]:
    """A crowd in which the last node has died and was just asked for the first time since."""
    crowd = lone(count, **more)
    crowd.crash(count)
    wire = Wire(crowd)
    crowd.run_until(lambda: bool(wire.of(Ping, to=count)), 10.0)
    return crowd, wire, wire.of(Ping, to=count)[0]


def first_round() -> str:
    """A round: a ping; at the timeout helpers and TCP; nacks; at the verdict a quarantine and a doubt."""
    crowd, wire, ping = _crashed()
    by, node = ping.by, crowd.node(5)
    crowd.run_for(VERDICT_S + TIMEOUT_S)
    asks = wire.of(PingRequest, by=by)
    patience_ms = round((VERDICT_S - TIMEOUT_S) * 1000)
    if sorted(said.to for said in asks) != [index for index in range(1, 5) if index != by]:
        return f"{[said.to for said in asks]} are asked to help"
    if any(
        not close(said.at, ping.at + TIMEOUT_S) or said.message.timeout_ms != patience_ms for said in asks
    ):
        return "helpers are asked at another time, or for another time"
    links = [said for said in wire.of(Ping, by=by, to=5) if said.reliable]
    if len(links) != 1 or not close(links[0].at, ping.at + TIMEOUT_S):
        return "it is not asked over a link once"
    for helper in {said.to for said in asks}:
        relayed, nacked = wire.of(Ping, by=helper, to=5), wire.of(Nack, by=helper, to=by)
        begin = ping.at + TIMEOUT_S + TRIP_S
        if not relayed or not close(relayed[0].at, begin) or len(nacked) != 1:
            return f"node-{helper} does not help"
        if not close(nacked[0].at, begin + NACK_SHARE * patience_ms / 1000):
            return f"a nack comes at {nacked[0].at - begin}"
    if not close(moment(crowd, by, 5, SUSPECT), ping.at + VERDICT_S):
        return f"it is in doubt from {moment(crowd, by, 5, SUSPECT)}"
    core = crowd.core(by)
    helpers = tuple(crowd.node(said.to) for said in asks)
    loss = (
        1
        / 12
        * (11 / 12) ** len([a for a in wire.of(Ack, to=by, since=ping.at) if a.at < ping.at + VERDICT_S])
    )
    summary = RoundSummary("failed", 1, helpers, helpers, "silent", TIMEOUT_S, VERDICT_S)
    for verdict, why in zip(
        core.explain(node), (("quarantined", "no answer"), ("suspect", "our round failed")), strict=True
    ):
        if (verdict.verdict, verdict.reason) != why or not _is_honest(verdict, summary, loss):
            return f"it explains {verdict}"
    return "" if core.statistics().health == 0 else "all helpers heard us, and it blames itself"


def _is_honest(verdict: Verdict, summary: RoundSummary, loss: float) -> bool:
    known = verdict.round is not None and set(verdict.round.nackers) == set(summary.nackers)
    same = known and attrs.evolve(verdict.round, nackers=()) == attrs.evolve(summary, nackers=())
    measured = verdict.round_trip_s is not None and close(verdict.round_trip_s, 2 * TRIP_S)
    return bool(
        same and measured and verdict.health == 0 and close(verdict.loss, loss, 1e-4) and verdict.lag_s == 0
    )


def doubt_is_looked_into() -> str:
    """Who hears of a doubt asks the suspect at that moment; one that answers has refuted it two trips later."""
    crowd = even(5)
    at = after_echo(crowd, 1, 0.01)
    wire = Wire(crowd)
    told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 5), liveness=SUSPECT), crowd.node(2))
    crowd.run_for(0.05)
    pings = wire.of(Ping, by=1, to=5)
    if len(pings) != 1 or not close(pings[0].at, at):
        return f"it is asked at {[said.at for said in pings]}"
    if [update.member.liveness for update in pings[0].packet.updates][:1] != [SUSPECT]:
        return "it is not told that it is a suspect"
    back = moment(crowd, 1, 5, ALIVE)
    return "" if close(back, at + 2 * TRIP_S) else f"it is alive again after {back - at} s"


LEAST_S, MOST_S = PERIOD_S, 6 * PERIOD_S
"""Of the suspicion of the preset `local` in a small mesh."""
LIFEGUARD_S = (3.0, 1.75, 3.0 - 2.5 * 0.7924812503605781, 0.5)
"""How long a suspect has by how many others accuse it beyond the first, three being expected."""


def _dies(crowd: Crowd, subject: int, due: float) -> str:
    """Nothing if node-1 holds it dead when its time is out and somebody has echoed, once or twice."""
    died = moment(crowd, 1, subject, DEAD)
    echoes = [due + 2 * TRIP_S, due + 4 * TRIP_S]
    return "" if any(close(died, at) for at in echoes) else f"dead at {died}, not at {echoes}"


def death_has_its_time() -> str:
    """The more accuse a suspect the sooner it is dead, by Lifeguard's formula, and an echo of somebody else later."""
    for more, timeout_s in enumerate(LIFEGUARD_S):
        crowd = lone(6)
        crowd.crash(6)
        at = after_echo(crowd, 1, 0.01)
        suspect = attrs.evolve(row(crowd, 1, 6), liveness=SUSPECT)
        told(crowd, 1, 2, suspect, *map(crowd.node, (2, 3, 4)[:more] or (2,)))
        began = at
        crowd.run_for(4.0)
        wrong = _dies(crowd, 6, began + (timeout_s if more else LIFEGUARD_S[1]))
        if wrong:
            return f"{more} besides us: {wrong}"
    return ""


def patience_follows_round_trips() -> str:
    """Patience is the round trip and four times its variation (RFC 6298), within bounds, from the first ping."""
    crowd, core = lone(2, run_s=0.0), None
    wire, smoothed_s, variation_s = Wire(crowd), None, 0.0
    for turn, more_s in enumerate((0.05, 0.05, 0.12, 0.01, 0.01, 0.15, *[0.0] * 20)):
        crowd.lay("slow", Rule(crowd.names([2]), crowd.names([1]), delay_s=more_s))
        begun = len(wire.of(Ping, by=1))
        crowd.run_until(lambda begun=begun: len(wire.of(Ping, by=1)) > begun, 5.0)
        ping, sample_s = wire.of(Ping, by=1)[begun], 2 * TRIP_S + more_s
        wanted_s = LOCAL.probe_timeout_initial_s if smoothed_s is None else smoothed_s + 4 * variation_s
        timeout_s = min(LOCAL.probe_timeout_max_s, max(LOCAL.probe_timeout_min_s, wanted_s))
        crowd.run_for(sample_s + TRIP_S)
        links = [said.at for said in wire.of(Ping, by=1, since=ping.at) if said.reliable]
        if [round(at - ping.at, 6) for at in links] != (
            [round(timeout_s, 6)] if timeout_s < sample_s else []
        ):
            return (
                f"ping {turn}: its patience was not {timeout_s} s, as it asked by link at {links}, {ping.at}"
            )
        if smoothed_s is None:
            smoothed_s, variation_s = sample_s, sample_s / 2
        else:
            variation_s += (abs(smoothed_s - sample_s) - variation_s) / 4
            smoothed_s += (sample_s - smoothed_s) / 8
        core = crowd.core(1)
        if not close(core.round_trip_s(crowd.node(2)) or 0.0, smoothed_s):
            return f"ping {turn}: the round trip is held to be {core.round_trip_s(crowd.node(2))}, not {smoothed_s}"
    return ""


def one_way() -> str:
    """Who answers helpers and not us is quarantined, no suspect, asked each period, and back by one echo."""
    crowd, node = lone(5), ""
    node = crowd.node(5)
    crowd.cut((5,), (1,), both_ways=False)
    wire = Wire(crowd)
    crowd.run_until(lambda: bool(wire.of(Ping, by=1, to=5)), 10.0)
    at = wire.of(Ping, by=1, to=5)[0].at
    crowd.run_for(VERDICT_S + 0.01)
    core = crowd.core(1)
    said = core.explain(node)
    if [(verdict.verdict, verdict.reason) for verdict in said] != [("quarantined", "no echo")]:
        return f"{said}"
    why = said[0].round
    if why is None or (why.outcome, why.asks, len(why.helpers), why.nackers) != ("spared", 1, 3, ()):
        return f"it explains {why}"
    if not close(why.lasted_s, VERDICT_S) or crowd.sees(1, 5) is not ALIVE or core.statistics().health:
        return f"it is held {crowd.sees(1, 5)}, by one of health {core.statistics().health}"
    crowd.run_for(3.0)
    asked = [ping.at for ping in wire.of(Ping, by=1, to=5) if not ping.reliable and ping.at > at + VERDICT_S]
    if len(asked) < 5 or crowd.sees(1, 5) is not ALIVE:
        return f"it was asked {len(asked)} times in 3 s"
    crowd.heal()
    crowd.run_for(PERIOD_S + 4 * TRIP_S)
    lifted = [
        (when, out.node) for when, who, out in crowd.log if who == 1 and isinstance(out, QuarantineLifted)
    ]
    pings = [ping.at + 2 * TRIP_S for ping in wire.of(Ping, by=1, to=5)]
    if [who for _, who in lifted] != [node] or not any(close(lifted[0][0], ping) for ping in pings):
        return f"trusted again {lifted}"
    last = core.explain(node)[-1]
    return "" if (last.verdict, last.reason) == ("trusted", "it answers") else f"it explains {last}"


def lossy_rounds_ask_more() -> str:
    """Where half of all is lost, a round asks seven times before it fails: alike far apart, and each echo counts."""
    crowd = lone(5)
    crowd.core(1)._detector.loss.share = 0.5
    asks = 7
    crowd.crash(5)
    crowd.call(1, "probe", crowd.node(5))
    wire = Wire(crowd)
    at = crowd.time
    crowd.run_for(0.25)
    spacing_s = (VERDICT_S - 2 * TIMEOUT_S) / asks
    due = [at + TIMEOUT_S + spacing_s * turn for turn in range(1, asks)]
    pings = [ping.at for ping in wire.of(Ping, by=1, to=5) if not ping.reliable and ping.at < at + VERDICT_S]
    if len(pings) != len(due) or not all(map(close, pings, due)):
        return f"asked again at {[round(ping - at, 4) for ping in pings]}"
    doubted = moment(crowd, 1, 5, SUSPECT)
    if not close(doubted, at + VERDICT_S):
        return f"in doubt after {doubted - at}"
    least = crowd.core(1)._beliefs._cases[crowd.node(5)].min_s
    share = crowd.core(1).statistics().loss
    return (
        ""
        if close(least, PERIOD_S / (1 - share), 1e-3)
        else f"it has {least} s to refute at a loss of {share}"
    )


TIMELINES = (
    still_mesh_is_a_timetable,
    round_robin_is_fair,
    unwell_take_fewer_turns,
    first_round,
    doubt_is_looked_into,
    death_has_its_time,
    patience_follows_round_trips,
    one_way,
    lossy_rounds_ask_more,
)

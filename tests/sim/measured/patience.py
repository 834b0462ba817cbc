"""Measures of how long is waited and for whom: with losses, with lag, with late answers; and what is told of it."""

import attrs

from mesh import codec
from mesh.inquest import Stage
from mesh.load import LoadRecord
from mesh.member import Liveness
from mesh.messages import Ack, Nack, Ping, PingRequest
from sim.crowd import Crowd
from sim.rule import Rule
from tests.sim.measured.wire import (
    LOCAL,
    TRIP_S,
    Wire,
    after_echo,
    close,
    even,
    lone,
    moment,
    reports,
    row,
    said_gone,
    told,
)

ALIVE, SUSPECT, DEAD, LEFT = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT
VERDICT_S, PERIOD_S, TIMEOUT_S = LOCAL.verdict_min_s, LOCAL.probe_period_s, LOCAL.probe_timeout_min_s


def _slow(crowd: Crowd, by: int, more_s: float) -> None:
    crowd.lay("slow", Rule(crowd.names([by]), crowd.names([1]), delay_s=more_s))


def late_echoes_prove_nothing() -> str:
    """An echo proves that we hear if it comes within the timeout, and within as many asks as loss demands."""
    asks_s = (VERDICT_S - 2 * TIMEOUT_S) / 7
    unscaled = attrs.evolve(LOCAL, loss_scaling=False)
    for loss, swim, late_s, prompt in (
        (0.0, LOCAL, TIMEOUT_S - 0.001, True),
        (0.0, LOCAL, TIMEOUT_S + 0.001, False),
        (0.5, LOCAL, TIMEOUT_S + 6 * asks_s - 0.001, True),
        (0.5, LOCAL, TIMEOUT_S + 6 * asks_s + 0.001, False),
        (0.5, unscaled, TIMEOUT_S + 0.001, False),
    ):
        crowd = lone(5, swim=swim)
        after_echo(crowd, 1, 0.21)
        detector = crowd.core(1)._detector
        detector.loss.share = loss
        _slow(crowd, 2, late_s - 2 * TRIP_S)
        before, began = detector.echoed_at, crowd[1].now(crowd.time).mono
        crowd.call(1, "probe", crowd.node(2))
        crowd.run_for(late_s + TRIP_S)
        if detector.echoed_at != (began if prompt else before):
            return f"loss {loss}, {late_s} s late: proof {not prompt}"
    return ""


def asked_for_is_no_sample() -> str:
    """Only rounds of the timetable measure loss and health; any echo ends a run of losses."""
    crowd = lone(5)
    crowd.crash(5)
    crowd.call(1, "probe", crowd.node(5))
    crowd.run_for(VERDICT_S + 0.01)
    if crowd.core(1).statistics().loss or crowd.core(1).statistics().health:
        return "a round that was asked for measures loss, or health"
    crowd = lone(5)
    meter = crowd.core(1)._detector.loss
    for _ in range(3):
        meter.sample(True)
    deaf = meter.is_deaf
    crowd.call(1, "probe", crowd.node(2))
    crowd.run_for(0.01)
    return "" if deaf and not meter.is_deaf else "an echo does not end a run of losses"


def missing_nacks_cost_health() -> str:
    """A round of the timetable that fails without a helper's nack is held against ourselves, by one point."""
    for nacks, score in ((True, 0), (False, 1)):
        crowd = lone(5)
        crowd.crash(5)
        wire = Wire(crowd)
        crowd.run_until(lambda wire=wire: bool(wire.of(Ping, by=1, to=5)), 5.0)
        crowd.run_for(TIMEOUT_S + 3 * TRIP_S)
        if not nacks:
            crowd.cut((2, 3, 4), (1,), both_ways=False)
        crowd.run_for(VERDICT_S - TIMEOUT_S)
        if crowd.core(1).statistics().health != score:
            return f"nacks {nacks}: health {crowd.core(1).statistics().health}"
        summary = crowd.core(1).explain(crowd.node(5))[0].round
        if summary is None or len(summary.nackers) != (3 if nacks else 0):
            return f"{summary}"
    return ""


def lag_of_others_is_waited_for() -> str:
    """Who says that its loop runs late has four times its lag before it is judged, up to a bound."""
    for lag_ms, due_s in ((100, 0.4), (20, VERDICT_S), (5000, 4 * LOCAL.lag_max_s)):
        crowd = lone(3)
        crowd.call(3, "publish_load", LoadRecord("", lag_ms=lag_ms))
        crowd.call(1, "probe", crowd.node(3))
        crowd.run_for(1.0)
        if crowd.core(1).loads.lag_s(crowd.node(3)) != lag_ms / 1000:
            return f"its lag is held to be {crowd.core(1).loads.lag_s(crowd.node(3))}"
        crowd.crash(3)
        after_echo(crowd, 1, 0.0)
        wire = Wire(crowd)
        crowd.run_until(lambda wire=wire: bool(wire.of(Ping, by=1, to=3)), 5.0)
        at = wire.of(Ping, by=1, to=3)[0].at
        crowd.run_for(5.0)
        doubted = moment(crowd, 1, 3, SUSPECT)
        if not close(doubted, at + due_s):
            return f"{lag_ms} ms of lag: in doubt after {doubted - at} s, not {due_s}"
        asked = {said.message.timeout_ms for said in wire.of(PingRequest, by=1)}
        if round((due_s - TIMEOUT_S) * 1000) not in asked:
            return f"helpers are asked for {asked} ms"
    return ""


def vouched_to_the_end() -> str:
    """Where loss demands many asks, a helper's word ends the asking, and the round waits for its verdict."""
    crowd = lone(3)
    crowd.core(1)._detector.loss.share = 0.5
    crowd.cut((3,), (1,), both_ways=False)
    wire, at = Wire(crowd), crowd.time
    crowd.call(1, "probe", crowd.node(3))
    crowd.run_for(VERDICT_S + 0.1)
    lost = [(said.at_s - crowd[1].origin_s, said.reason) for said in crowd.core(1).explain(crowd.node(3))]
    if len(lost) != 1 or lost[0][1] != "no echo" or not close(lost[0][0], at + VERDICT_S):
        return f"quarantined at {lost}"
    pings = [ping for ping in wire.of(Ping, by=1, to=3) if not ping.reliable and ping.at < at + VERDICT_S]
    return "" if len(pings) == 1 else f"{len(pings)} asks"


def relays_have_their_time() -> str:
    """A helper pings where it knows the target to be, and says nack at four fifths of what is asked, 8 s at most."""
    for timeout_ms, due_s in ((1000, 0.8), (60_000, 8.0)):
        crowd = lone(4)
        crowd.crash(4)
        wire, at = Wire(crowd), crowd.time
        _request(crowd, 7, crowd.node(4), timeout_ms)
        crowd.run_for(9.0)
        asked = [said for said in wire.of(Ping, by=1, to=4) if close(said.at, at)]
        nacks = [said for said in wire.of(Nack, by=1, to=2) if said.message.nonce == 7]
        if len(asked) != 1 or len(nacks) != 1 or not close(nacks[0].at, at + due_s):
            return f"{timeout_ms} ms: {len(asked)} pings, nacks at {[said.at - at for said in nacks]}"
    crowd = lone(4)
    wire, at = Wire(crowd), crowd.time
    _request(crowd, 8, crowd.node(4), 1000)
    _request(crowd, 9, "e" * 16, 1000, ("10.7.7.7", 7))
    crowd.run_for(2.0)
    acks = [(said.message.nonce, said.at) for said in wire.of(Ack, by=1, to=2) if said.message.nonce == 8]
    if len(acks) != 1 or not close(acks[0][1], at + 2 * TRIP_S):
        return f"acks {acks}"
    if [said.message.nonce for said in wire.of(Nack, by=1, to=2)] != [9]:
        return "who was answered says nack too"
    if not any(said.address == ("10.7.7.7", 7) for said in wire.of(Ping, by=1)):
        return "it does not ask where it is told to"
    return ""


def _request(
    crowd: Crowd, nonce: int, target: str, timeout_ms: int, address: tuple[str, int] = ("10.1.1.1", 1)
) -> None:
    request = PingRequest(crowd.node(2), nonce, target, address, timeout_ms)
    crowd.call(1, "receive", codec.packet([codec.item(request)]), crowd[2].address)


def relays_are_bounded() -> str:
    """A helper works for so many at once, counts whom it refuses, and says no nack where none is wanted."""
    crowd = lone(4, swim=attrs.evolve(LOCAL, relays_max=2, nacks=False))
    crowd.crash(4)
    wire, at = Wire(crowd), crowd.time
    for nonce in range(3):
        _request(crowd, nonce, crowd.node(4), 1000)
    asked = [said for said in wire.of(Ping, by=1, to=4) if said.at == at]
    crowd.run_for(0.9)
    _request(crowd, 5, crowd.node(4), 1000)
    refused = crowd.core(1).statistics().relays_refused
    return (
        "" if (len(asked), refused, wire.of(Nack, by=1)) == (2, 1, []) else f"{len(asked)}, {refused} refused"
    )


def losses_ask_more_for_proof() -> str:
    """Where half is lost, six others are asked for an echo, and a last look takes twenty asks, and its time."""
    crowd = lone(12)
    after_echo(crowd, 1, 0.21)
    crowd.core(1)._detector.loss.share = 0.5
    wire, at = Wire(crowd), crowd.time
    said_gone(crowd, 1, 2, 12)
    controls = {said.to for said in wire.of(Ping, by=1) if said.at == at}
    if len(controls) != 6 or 12 in controls:
        return f"{len(controls)} are asked for an echo"
    crowd = lone(12)
    after_echo(crowd, 1, 0.01)
    crowd.core(1)._detector.loss.share = 0.5
    crowd.crash(12)
    wire, at = Wire(crowd), crowd.time
    said_gone(crowd, 1, 2, 12)
    crowd.run_for(1.0)
    look_s = 2 * TIMEOUT_S + 20 * TIMEOUT_S
    pings = [said for said in wire.of(Ping, by=1, to=12) if not said.reliable and said.at < at + look_s]
    if len(pings) != 20 or not close(moment(crowd, 1, 12, LEFT), at + look_s + 2 * TRIP_S):
        return f"{len(pings)} asks, {moment(crowd, 1, 12, LEFT) - at} s"
    return ""


def looks_begin_in_time() -> str:
    """However long the last look takes, it begins so early that the suspect is dead when its time is out."""
    for loss, timeout_s in ((0.0, 0.5), (0.5, 1.0)):
        crowd = lone(8)
        at = after_echo(crowd, 1, 0.01)
        crowd.core(1)._detector.loss.share = loss
        crowd.crash(8)
        told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 8), liveness=SUSPECT), *map(crowd.node, (2, 3, 4, 5)))
        crowd.run_for(3.0)
        died = moment(crowd, 1, 8, DEAD) - at
        if not timeout_s <= died <= timeout_s + 0.05:
            return f"loss {loss}: dead after {died} s, due {timeout_s}"
    return ""


def echo_of_an_earlier_ping() -> str:
    """Only the echo of a ping that was sent after the look failed proves that it is the suspect who is silent."""
    crowd = lone(7)
    after_echo(crowd, 1, 0.01)
    crowd.crash(7)
    told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 7), liveness=SUSPECT), *map(crowd.node, (2, 3, 4)))
    inquests = crowd.core(1)._beliefs._cases.inquests
    crowd.run_until(lambda: crowd.node(7) in inquests and inquests[crowd.node(7)].stage is Stage.LOOK, 5.0)
    rounds = crowd.core(1)._detector.round_with(crowd.node(7))
    assert rounds is not None, "the look is a round"
    failed = rounds.started_at + rounds.verdict_s - crowd[1].origin_s
    crowd.run_for(failed - 0.005 - crowd.time)
    _slow(crowd, 2, 0.0045)
    crowd.call(1, "probe", crowd.node(2))
    crowd.run_for(0.1)
    died = moment(crowd, 1, 7, DEAD)
    return "" if close(died, failed + 2 * TRIP_S) else f"dead {died - failed} s after its look has failed"


def nobody_is_late_by_reckoning() -> str:
    """When accusers bring a suspect's time to its end at once, that is no lateness of ours."""
    crowd = lone(6)
    after_echo(crowd, 1, 0.01)
    crowd.crash(6)
    suspect = attrs.evolve(row(crowd, 1, 6), liveness=SUSPECT)
    told(crowd, 1, 2, suspect, crowd.node(2))
    crowd.run_for(1.3)
    told(crowd, 1, 2, suspect, *map(crowd.node, (2, 3, 4, 5)))
    at = crowd.time
    crowd.run_for(1.0)
    died, lag_s = moment(crowd, 1, 6, DEAD), crowd.core(1).statistics().own_lag_s
    if lag_s or reports(crowd, 1, "paused"):
        return f"it takes itself to be {lag_s} s late"
    return (
        ""
        if close(died, at + VERDICT_S + 2 * TRIP_S) or close(died, at + VERDICT_S + 4 * TRIP_S)
        else f"{died - at}"
    )


def looks_that_shorten_wait() -> str:
    """A look that has become shorter meanwhile is begun so much later; without controls a death needs no echo."""
    unproven = attrs.evolve(LOCAL, control_echo=False)
    for swim, late_s in ((LOCAL, 4 * TRIP_S), (unproven, 0.0)):
        crowd = lone(8, swim=swim)
        at = after_echo(crowd, 1, 0.01)
        crowd.crash(8)
        crowd.core(1)._detector.loss.share = 0.5
        told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 8), liveness=SUSPECT), *map(crowd.node, (2, 3, 4, 5)))
        crowd.core(1)._detector.loss.share = 0.0
        crowd.run_for(3.0)
        took_s, due_s = moment(crowd, 1, 8, DEAD) - at, 2 * PERIOD_S
        if not due_s - 1e-6 <= took_s <= due_s + late_s + 1e-6:
            return f"control {swim.control_echo}: dead after {took_s} s, due {due_s}"
    return ""


def stopped_rounds_go_on() -> str:
    """A round in whose midst we were stopped has its whole time left, and two verdicts more."""
    crowd = lone(5, swim=attrs.evolve(LOCAL, lag_max_s=0.0))
    crowd.crash(5)
    at = after_echo(crowd, 1, 0.01)
    crowd.call(1, "probe", crowd.node(5))
    crowd.run_for(TIMEOUT_S / 2)
    crowd.pause(1)
    crowd.run_for(5.0)
    crowd.resume(1)
    gap_s = crowd.time - (at + TIMEOUT_S)
    wire = Wire(crowd)
    crowd.run_for(2.0)
    shift_s = gap_s + 2 * VERDICT_S
    asked = {round(said.at - at - shift_s, 6) for said in wire.of(PingRequest, by=1)}
    doubted = moment(crowd, 1, 5, SUSPECT) - at - shift_s
    return (
        ""
        if TIMEOUT_S in asked and close(doubted, VERDICT_S)
        else f"helpers at {asked}, in doubt at {doubted}"
    )


def proof_comes_before_the_look() -> str:
    """Who has not been answered just now asks others first, then the suspect: it costs their trip, and no more."""
    for wait_s, due_s in ((0.01, VERDICT_S + 2 * TRIP_S), (VERDICT_S + 0.01, VERDICT_S + 4 * TRIP_S)):
        crowd = lone(6)
        crowd.crash(6)
        at = after_echo(crowd, 1, wait_s)
        told(crowd, 1, 3, attrs.evolve(row(crowd, 1, 6), liveness=DEAD), crowd.node(3))
        crowd.run_for(1.0)
        took_s = moment(crowd, 1, 6, DEAD) - at
        if not close(took_s, due_s):
            return f"{wait_s} s after an echo: dead after {took_s} s, not {due_s}"
    return ""


def new_lives_are_trusted() -> str:
    """What is held against a life, a quarantine and its past, ends with it."""
    crowd = lone(5)
    crowd.call(1, "evidence", crowd.node(5))
    crowd.crash(5)
    account = row(crowd, 1, 5)
    if not crowd.core(1).is_quarantined(crowd.node(5)):
        return "a lost link costs nothing"
    identity = attrs.evolve(account.identity, generation=account.identity.generation + 1)
    told(crowd, 1, 2, attrs.evolve(account, identity=identity))
    return "it is still in quarantine" if crowd.core(1).is_quarantined(crowd.node(5)) else ""


def observers_wait() -> str:
    """An observer whose suspect is out of time waits until members say that it is dead."""
    crowd = lone(6, swim=attrs.evolve(LOCAL, observer=True))
    crowd.crash(6)
    crowd.run_for(2.0)
    told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 6), liveness=SUSPECT), *map(crowd.node, (2, 3, 4, 5)))
    crowd.run_for(20.0)
    if crowd.sees(1, 6) is not SUSPECT or reports(crowd, 1, "member_dead"):
        return f"it holds it {crowd.sees(1, 6)}"
    told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 6), liveness=DEAD), crowd.node(2))
    return "" if crowd.sees(1, 6) is DEAD else "it does not believe members"


def verdicts_tell_the_truth() -> str:
    """Nothing is explained of who is well, whatever is news of it; of who died by the word of others, whose word."""
    crowd = lone(6)
    fresh = attrs.evolve(row(crowd, 1, 5), identity=row(crowd, 1, 5).identity.above(), zone="new")
    told(crowd, 1, 2, fresh)
    if crowd.core(1).explain(crowd.node(5)):
        return f"of one who is well: {crowd.core(1).explain(crowd.node(5))}"
    crowd.crash(6)
    crowd.run_until(lambda: crowd.core(1).is_quarantined(crowd.node(6)), 10.0)
    crowd.run_for(1.0)
    told(crowd, 1, 3, attrs.evolve(row(crowd, 1, 6), liveness=DEAD), crowd.node(3))
    said = [(one.verdict, one.reason, one.accusers) for one in crowd.core(1).explain(crowd.node(6))]
    due = ("dead", "others say so", (crowd.node(1),))
    return "" if said[-1] == due and len(said) == 3 else f"{said}"


def loads_die_with_their_owners() -> str:
    """Figures of one who died, left or began anew are dropped; those of the living are kept."""
    for liveness, above, kept in ((DEAD, 0, False), (LEFT, 0, False), (ALIVE, 1, False), (SUSPECT, 0, True)):
        crowd = lone(5, swim=attrs.evolve(LOCAL, two_verdicts=False))
        crowd.call(4, "publish_load", LoadRecord("", zone="here"))
        crowd.call(1, "probe", crowd.node(4))
        crowd.run_for(1.0)
        account = row(crowd, 1, 4)
        if crowd.core(1).loads.get(crowd[1].now(crowd.time), crowd.node(4)) is None:
            return "its figures are not known"
        identity = attrs.evolve(account.identity, generation=account.identity.generation + above)
        told(crowd, 1, 2, attrs.evolve(account, identity=identity, liveness=liveness), crowd.node(2))
        if (crowd.core(1).loads.get(crowd[1].now(crowd.time), crowd.node(4)) is not None) is not kept:
            return f"{liveness.name} {above}: kept {not kept}"
    return ""


def views_follow() -> str:
    """Followers are told of who comes, goes and changes its word, a fifth of a second later, and of nothing else."""
    crowd = even(5)
    views = crowd.core(1).views
    before = views.number
    crowd.run_for(5.0)
    if views.number != before:
        return "nothing happens, and followers are told"
    crowd.call(5, "update_me", zone="new")
    crowd.run_for(1.5)
    crowd.call(1, "update_me", zone="own")
    crowd.run_for(1.5)
    crowd.leave(4)
    crowd.run_for(1.5)
    told_of = [
        [(one.name, one.zone, one.liveness) for one in change.members] for change in views.since(before) or ()
    ]
    due = [[("node-5", "new", ALIVE)], [("node-1", "own", ALIVE)], [("node-4", "", LEFT)]]
    return "" if told_of == due else f"{told_of}"


def accused_again_after_a_return() -> str:
    """Who flaps through death is quarantined as it returns, asked eight times in its probation, and then trusted."""
    crowd = lone(6)
    for turn in (1, 2):
        crowd.pause(6)
        crowd.run_until(lambda: crowd.sees(1, 6) is DEAD, 30.0)
        crowd.run_for(1.0)
        crowd.resume(6)
        crowd.run_until(lambda: crowd.sees(1, 6) is ALIVE, 10.0)
        at = crowd.time
        held = crowd.core(1).is_quarantined(crowd.node(6))
        if held is not (turn == 2):
            return f"return {turn}: quarantined {held}"
        crowd.run_for(10.0 if turn == 1 else 0.0)
    wire = Wire(crowd)
    took_s = crowd.run_until(lambda: not crowd.core(1).is_quarantined(crowd.node(6)), 60.0)
    if took_s is None or not 30.0 <= took_s <= 30.0 + 4.5:
        return f"trusted again after {took_s} s"
    return "" if len(wire.of(Ping, by=1, to=6, since=at)) >= 8 else "it is not asked"


def lag_is_forgotten() -> str:
    """How late a process runs its timers counts for its patience, and fades by a tenth with each input, to nothing."""
    crowd = lone(4)
    crowd.pause(1)
    crowd.run_for(0.3 + LOCAL.probe_period_s)
    crowd.resume(1)
    lag_s = crowd.core(1).statistics().own_lag_s
    if not 0.0 < lag_s <= 0.8:
        return f"a lag of {lag_s} s"
    for _ in range(3):
        before = crowd.core(1).statistics().own_lag_s
        crowd.call(1, "heard", "f" * 16)
        after = crowd.core(1).statistics().own_lag_s
        if not close(after, 0.9 * before):
            return f"{before} becomes {after}"
    for _ in range(100):
        crowd.call(1, "heard", "f" * 16)
    return "" if crowd.core(1).statistics().own_lag_s == 0.0 else "it never fades"


def witnesses_make_a_suspect() -> str:
    """With three witnesses needed, two accusers and our own failed round make a suspect; one who answers is none."""
    law = attrs.evolve(LOCAL, witnesses=3)
    for accusers, crashes, due in (((2,), True, ALIVE), ((2, 3), True, SUSPECT), ((2, 3), False, ALIVE)):
        crowd = lone(8, swim=law)
        at = after_echo(crowd, 1, 0.01)
        if crashes:
            crowd.crash(8)
        wire = Wire(crowd)
        told(crowd, 1, 2, attrs.evolve(row(crowd, 1, 8), liveness=SUSPECT), *map(crowd.node, accusers))
        asked = [said.at for said in wire.of(Ping, by=1, to=8)]
        crowd.run_for(VERDICT_S + TRIP_S)
        if crowd.sees(1, 8) is not due or asked != [at]:
            return f"{accusers} accuse, it is silent {crashes}: held {crowd.sees(1, 8)}, asked at {asked}"
        if due is SUSPECT and not close(moment(crowd, 1, 8, SUSPECT), at + VERDICT_S):
            return f"in doubt after {moment(crowd, 1, 8, SUSPECT) - at} s"
        if not crashes and [
            u for _, u in wire.accounts(crowd.node(8), by=1) if u.member.liveness is not ALIVE
        ]:
            return "an accusation that it has refuted by an answer is passed on"
        crowd.run_for(0.5)
        doubts = [u for said, u in wire.accounts(crowd.node(8), by=1) if said.to != 8 and u.accusers]
        if crashes and not doubts:
            return f"{accusers} accuse, it is silent, and nobody is told"
    return ""


PATIENCE = (
    looks_that_shorten_wait, stopped_rounds_go_on, proof_comes_before_the_look, new_lives_are_trusted,
    lag_is_forgotten, witnesses_make_a_suspect,
    late_echoes_prove_nothing, asked_for_is_no_sample, missing_nacks_cost_health, lag_of_others_is_waited_for,
    vouched_to_the_end, relays_have_their_time, relays_are_bounded, losses_ask_more_for_proof, looks_begin_in_time,
    echo_of_an_earlier_ping, nobody_is_late_by_reckoning, observers_wait, verdicts_tell_the_truth,
    loads_die_with_their_owners, views_follow, accused_again_after_a_return,
)  # fmt: skip

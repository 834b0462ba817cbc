"""Measures of verdicts: what puts a death off, what hastens it, what a flap costs, and who may accuse whom."""

import math

import attrs

from mesh.credit import ACCUSERS_MAX, Credit
from mesh.identity import Identity
from mesh.inquest import Stage
from mesh.loss import LossMeter
from mesh.member import Liveness
from mesh.messages import Ping
from mesh.trust import PAST_MAX, Trust, TrustOptions
from sim.crowd import Crowd
from tests.sim.measured.wire import (
    LOCAL,
    TRIP_S,
    Wire,
    after_echo,
    close,
    lone,
    moment,
    reports,
    row,
    told,
)

ALIVE, SUSPECT, DEAD, LEFT = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT
VERDICT_S, PERIOD_S = LOCAL.verdict_min_s, LOCAL.probe_period_s
LEAST_S, MOST_S = PERIOD_S, 6 * PERIOD_S
"""Of the suspicion of the preset `local` in a small mesh."""
NEVER = attrs.evolve(LOCAL, heal_period_s=1e9)


def _doubted(crowd: Crowd, count: int, *more: int) -> float:
    """Let the last of some be accused by node-2, and by others; return when."""
    at = after_echo(crowd, 1, 0.01)
    crowd.crash(count)
    told(crowd, 1, 2, attrs.evolve(row(crowd, 1, count), liveness=SUSPECT), *map(crowd.node, (2, *more)))
    return at


def _prompt(died: float, due: float) -> bool:
    """Dead when its time is out and one or two echoes have come."""
    return close(died, due + 2 * TRIP_S) or close(died, due + 4 * TRIP_S)


def sign_of_life_is_a_reprieve() -> str:
    """A suspect that is heard during its last look has as long again, from the end of that look."""
    crowd = lone(6)
    at = _doubted(crowd, 6, 3, 4)
    crowd.run_until(lambda: crowd.node(6) in crowd.core(1)._beliefs._cases.inquests, 5.0)
    looked = crowd.time
    if not LEAST_S - VERDICT_S - 1e-6 <= looked - at <= LEAST_S - VERDICT_S + 4 * TRIP_S:
        return f"its last look begins after {looked - at} s"
    crowd.run_for(0.05)
    crowd.call(1, "heard", crowd.node(6))
    crowd.run_for(2.0)
    died = moment(crowd, 1, 6, DEAD)
    begun = [looked + 2 * TRIP_S * turn + VERDICT_S + LEAST_S for turn in (0, 1)]
    return "" if any(_prompt(died, due) for due in begun) else f"it died at {died}, not at {begun}"


def pause_gives_time_back() -> str:
    """A suspect has its whole time, less what it had before the observer was stopped, and two verdicts more."""
    for before_s in (0.1, 0.9):
        crowd = lone(6, swim=attrs.evolve(LOCAL, lag_max_s=0.0))
        at = _doubted(crowd, 6)
        due = at + 1.75
        crowd.run_for(before_s)
        deadline_at = crowd[1].deadline_at
        assert deadline_at is not None, "it runs"
        crowd.pause(1)
        crowd.run_for(10.0)
        crowd.resume(1)
        due += crowd.time - deadline_at + 2 * VERDICT_S
        crowd.run_for(5.0)
        died = moment(crowd, 1, 6, DEAD)
        if not _prompt(died, due):
            return f"dead at {died}, due at {due}"
        if [fields["gap_s"] for _, fields in reports(crowd, 1, "paused")] != [
            round(at + before_s + 10 - deadline_at, 3)
        ]:
            return "the operator is not told how long it was away"
    return ""


def lost_input_puts_off() -> str:
    """What is dropped between the look and its proof makes us look on for a verdict, twice at most."""
    for losses in (0, 1, 2, 3, 4):
        crowd = lone(6)
        at = _doubted(crowd, 6, 3, 4)
        for _ in range(losses):
            _until_proof(crowd, 6)
            crowd.call(1, "lost_input", 3)
            crowd.run_for(0.01 if crowd.sees(1, 6) is not DEAD else 0.0)
        crowd.run_for(4.0)
        died = moment(crowd, 1, 6, DEAD)
        if not _prompt(died, at + LEAST_S + min(losses, 2) * VERDICT_S):
            return f"{losses} losses: dead after {died - at} s"
        if losses <= 2 and _stage(crowd, 6) is not None:
            return "the look never ends"
    return ""


def _until_proof(crowd: Crowd, subject: int) -> None:
    """Let time pass until its look has failed, and an echo is waited for, or it is dead."""
    crowd.run_until(lambda: _stage(crowd, subject) is Stage.HEAR or crowd.sees(1, subject) is DEAD, 5.0)


def _stage(crowd: Crowd, subject: int) -> Stage | None:
    inquest = crowd.core(1)._beliefs._cases.inquests.get(crowd.node(subject))
    return inquest.stage if inquest is not None else None


def lost_input_costs_health() -> str:
    """Who loses its input is less fit to judge, by a point a period; without two verdicts it does not care."""
    crowd = lone(4)
    for _ in range(3):
        crowd.call(1, "lost_input", 2)
    first = crowd.core(1).statistics()
    crowd.run_for(2.5)
    crowd.call(1, "lost_input", 1)
    crowd.call(1, "lost_input", 1)
    later = crowd.core(1).statistics()
    if (first.health, first.input_lost, later.health, later.input_lost) != (1, 6, 1, 8):
        return f"{first.health}, {first.input_lost}; later {later.health}, {later.input_lost}"
    crowd = lone(4, swim=attrs.evolve(LOCAL, two_verdicts=False))
    crowd.call(1, "lost_input", 2)
    return "" if crowd.core(1).statistics().health == 0 else "one verdict, and it blames itself"


def lost_input_holds_rounds() -> str:
    """A round that is open when input is lost goes on for a verdict from then, with one more ask, twice at most."""
    for losses in (0, 1, 2, 3):
        crowd = lone(5)
        crowd.crash(5)
        after_echo(crowd, 1, 0.01)
        wire, at = Wire(crowd), crowd.time
        crowd.call(1, "probe", crowd.node(5))
        health = 1 if losses else 0
        lost_at = at
        for turn in range(losses):
            crowd.run_for(0.1)
            crowd.call(1, "lost_input", 1)
            lost_at = crowd.time if turn < 2 else lost_at
        crowd.run_for(2.0)
        doubted = moment(crowd, 1, 5, SUSPECT)
        due = lost_at + VERDICT_S * (1 + health) if losses else at + VERDICT_S
        if not close(doubted, due):
            return f"{losses} losses: in doubt after {doubted - at}, not {due - at}"
        direct = [ping for ping in wire.of(Ping, by=1, to=5) if not ping.reliable and ping.at < doubted]
        again = lost_at + (2 * VERDICT_S - 2 * LOCAL.probe_timeout_min_s) / 2
        if losses and (len(direct) != 2 or not close(direct[1].at, again)):
            return f"{losses} losses: pings at {[ping.at - at for ping in direct]}"
    crowd = lone(5)
    crowd.crash(5)
    after_echo(crowd, 1, 0.01)
    crowd.call(1, "probe", crowd.node(5))
    crowd.run_for(0.01)
    crowd.call(1, "lost_input", 1)
    at = crowd.time
    crowd.run_for(2.0)
    took_s = moment(crowd, 1, 5, SUSPECT) - at
    return "" if close(took_s, 2 * VERDICT_S) else f"lost before the first timeout: in doubt after {took_s} s"


def alone_in_the_end() -> str:
    """Who hears nobody for `alone_s` holds those who do not answer dead, and tells nobody."""
    crowd = lone(4, swim=attrs.evolve(NEVER, alone_s=3.0))
    at = after_echo(crowd, 1, 0.0)
    crowd.partition((1,), (2, 3, 4))
    wire = Wire(crowd)
    crowd.run_for(20.0)
    for other in (2, 3, 4):
        died = moment(crowd, 1, other, DEAD)
        if not 3.0 <= died - at <= 3.0 + MOST_S + 2.5:
            return f"node-{other} is dead after {died - at} s"
    said = [fields["evidence"] for _, fields in reports(crowd, 1, "member_dead")]
    told_of = [
        update
        for packet in wire.of(by=1)
        for update in packet.packet.updates
        if update.member.liveness is DEAD
    ]
    if said != ["alone"] * 3 or crowd.core(1).statistics().rumours:
        return f"{said}, and {crowd.core(1).statistics().rumours} rumours wait"
    return "" if all(update.member.node != crowd.node(1) for update in told_of) else "it buries itself"


def deaf_wait() -> str:
    """Who hears nobody declares nobody dead before `alone_s`, however long its suspects are out of time."""
    crowd = lone(5)
    at = _doubted(crowd, 5, 3, 4)
    crowd.run_for(0.1)
    crowd.partition((1,), (2, 3, 4, 5))
    crowd.run_for(10.0)
    wire = Wire(crowd)
    crowd.run_for(20.0)
    turns = 2 * 20.0 / (PERIOD_S * (LOCAL.health_max + 1))
    if len(wire.of(Ping, by=1)) > 2 * math.ceil(turns):
        return f"the deaf ping {len(wire.of(Ping, by=1))} times, in {turns} turns"
    if DEAD in [crowd.sees(1, other) for other in (2, 3, 4, 5)]:
        return "the deaf bury"
    crowd.heal()
    crowd.run_for(4.0)
    died = moment(crowd, 1, 5, DEAD) - at
    if not 30.0 < died < 34.1:
        return f"dead after {died} s"
    return (
        ""
        if [crowd.sees(1, other) for other in (2, 3, 4)] == [ALIVE] * 3
        else "the living are not alive again"
    )


def two_of_us() -> str:
    """Of two, who is silent is dead when the longest time is out, at the end of that look."""
    crowd = lone(2)
    wire = Wire(crowd)
    crowd.crash(2)
    crowd.run_until(lambda: bool(wire.of(Ping, by=1, to=2)), 5.0)
    at = wire.of(Ping, by=1, to=2)[0].at
    crowd.run_for(6.0)
    died = moment(crowd, 1, 2, DEAD)
    if not close(died, at + VERDICT_S + MOST_S):
        return f"dead after {died - at}"
    said = [fields["evidence"] for _, fields in reports(crowd, 1, "member_dead")]
    return "" if said == ["two of us"] else f"{said}"


def death_of_a_later_life() -> str:
    """Whose last life is quarantined here is not dead in its next one by another's word: it is asked, and answers."""
    crowd = lone(5)
    crowd.crash(5)
    crowd.run_until(lambda: crowd.core(1).is_quarantined(crowd.node(5)), 10.0)
    crowd.run_for(1.0)
    account = row(crowd, 1, 5)
    crowd.start(5, [4])
    later = attrs.evolve(crowd.core(5).me, liveness=DEAD)
    told(crowd, 1, 3, later, crowd.node(3))
    held = crowd.sees(1, 5)
    crowd.run_for(0.05)
    if later.identity.generation == account.identity.generation or held is not SUSPECT:
        return f"it is held {held} at once"
    if crowd.sees(1, 5) is not ALIVE:
        return f"it is held {crowd.sees(1, 5)}, and it answers"
    stranger = attrs.evolve(account, identity=Identity("e" * 16, 1), address=("10.3.3.3", 3))
    told(crowd, 1, 3, attrs.evolve(stranger, liveness=DEAD))
    held = crowd.core(1).member("e" * 16)
    return "" if held is not None and held.liveness is DEAD else f"whom we never met is held {held}"


def lost_link_outweighs_traffic() -> str:
    """What was heard before the link was lost saves nobody; what is heard after it does."""
    for late, doubted in ((False, True), (True, False)):
        crowd = lone(5)
        crowd.crash(5)
        after_echo(crowd, 1, 0.01)
        at = crowd.time
        crowd.call(1, "probe", crowd.node(5))
        crowd.run_for(0.05)
        for name in ("evidence", "heard") if late else ("heard", "evidence"):
            crowd.call(1, name, crowd.node(5))
        crowd.run_for(VERDICT_S)
        if close(moment(crowd, 1, 5, SUSPECT), at + VERDICT_S) is not doubted:
            return f"heard after it {late}: in doubt {not doubted}"
    return ""


def refusal_needs_no_echo() -> str:
    """Where a machine says that nobody listens, its look ends in death at once; the reason is told."""
    for reason, evidence in (("refused by its machine", "refused"), ("reset", "silent")):
        crowd = lone(6)
        _doubted(crowd, 6, 3, 4)
        crowd.run_until(lambda crowd=crowd: _stage(crowd, 6) is Stage.LOOK, 5.0)
        looked = crowd.time
        crowd.run_for(0.05)
        crowd.call(1, "evidence", crowd.node(6), reason)
        crowd.run_for(2.0)
        died = moment(crowd, 1, 6, DEAD) - looked
        due_s = VERDICT_S if evidence == "refused" else VERDICT_S + 2 * TRIP_S
        said = [fields["evidence"] for _, fields in reports(crowd, 1, "member_dead")]
        if said != [evidence] or not close(died, due_s):
            return f"{reason}: dead after {died} s, {said}"
    return ""


def credit_is_spent() -> str:
    """So many accusations of one member are acted on in a window; any of some accusers can pay; our own are free."""
    crowd = lone(8, swim=attrs.evolve(LOCAL, accusations_per_window=2, accusation_window_s=10.0))
    after_echo(crowd, 1, 0.0)
    dropped = lambda: crowd.core(1).statistics().accusations_dropped  # noqa: E731

    def accuse(subject: int, by: int, *more: int, above: int = 0) -> bool:
        account = row(crowd, 1, subject)
        identity = attrs.evolve(account.identity, incarnation=account.identity.incarnation + above)
        suspect = attrs.evolve(account, identity=identity, liveness=SUSPECT)
        told(crowd, 1, by, suspect, *map(crowd.node, (by, *more)))
        return crowd.sees(1, subject) is SUSPECT

    taken = [accuse(subject, 2) for subject in (3, 4, 5)]
    if taken != [True, True, False] or dropped() != 1:
        return f"of three accusations {taken} are taken, {dropped()} dropped"
    if not accuse(3, 2) or dropped() != 1:
        return "what is known is news again"
    if not accuse(6, 2, 7) or not accuse(5, 8):
        return "nobody else can pay"
    crowd.run_for(5.0)
    if not accuse(7, 2) or accuse(8, 2):
        return "credit does not come back by one in half a window"
    crowd = lone(5, swim=attrs.evolve(LOCAL, accusations_per_window=1))
    crowd.cut((5, 4), (1,), both_ways=False)
    crowd.run_until(lambda: len(crowd.core(1)._detector.quarantined) == 2, 10.0)
    return "" if [accuse(4, 2), accuse(5, 2)] == [True, True] else "what a failed round confirms is dropped"


def credit_is_bounded() -> str:
    """Who was charged longest ago is forgotten with its debts; who accuses without a name is not charged."""
    credit = Credit(1, 10.0)
    spent = [credit.accepts(0.0, ("a",)), credit.accepts(0.0, ("a",)), credit.accepts(0.0, ("a", "b"))]
    for other in range(ACCUSERS_MAX - 1):
        credit.accepts(0.0, (f"{other}",))
    kept = credit.accepts(0.0, ("b",))
    later = [credit.accepts(4.9, ("b",)), credit.accepts(10.0, ("b",))]
    free = [credit.accepts(0.0, ()), Credit(0, 10.0).accepts(0.0, ("a",)), credit.accepts(0.0, ("a",))]
    if (spent, kept, later, free) != ([True, False, True], False, [False, True], [True, True, True]):
        return f"{spent} {kept} {later} {free}"
    return "" if len(credit._left) == ACCUSERS_MAX else f"{len(credit._left)} accusers are remembered"


def _flap(trust: Trust, lost: float, back: float, live: int = 9) -> float:
    """Lose a peer, and let it answer every 50 ms from some time on: when it is trusted again."""
    trust.lose(lost, "a", "link lost")
    turn = 0
    while not trust.echoed(back + turn * 0.05, "a", live):
        turn += 1
        assert turn < 100_000, "it never is"
    return round(turn * 0.05, 3)


def flaps_cost_more_each_time() -> str:
    """The first outage costs nothing, the second a probation, each further one twice as much, up to a bound."""
    trust = Trust(TrustOptions())
    waits = [_flap(trust, 1000.0 * turn**0.5, 1000.0 * turn**0.5 + 1.0) for turn in range(1, 2)]
    at = 1001.0
    for _ in range(7):
        at += 100.0
        waits.append(_flap(trust, at, at + 1.0))
        at += waits[-1] + 1.0
    if waits != [0.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]:
        return f"probations of {waits}"
    forgotten = _flap(trust, at + 601.0, at + 602.0)
    if forgotten:
        return f"after a long time it costs {forgotten}"
    for other in range(PAST_MAX + 1):
        trust.lose(1e5, f"{other}", "no answer")
        trust.died(1e5 + 1.0, f"{other}")
    return "" if len(trust._past) == PAST_MAX else f"{len(trust._past)} past outages are remembered"


def relapses_are_one_outage() -> str:
    """Who is lost again at once never was well: one outage with a short probation; short ones do not count at all."""
    trust = Trust(TrustOptions())
    waits = [_flap(trust, 10.0, 11.0), _flap(trust, 12.0, 13.0), _flap(trust, 14.5, 15.0)]
    if waits != [0.0, 0.4, 0.4]:
        return f"relapses cost {waits}"
    trust = Trust(TrustOptions())
    waits = [_flap(trust, 10.0 * turn, 10.0 * turn + 0.3) for turn in range(1, 5)]
    if waits != [0.0] * 4:
        return f"links that are replaced cost {waits}"
    trust = Trust(TrustOptions())
    waits = [_flap(trust, 10.0, 11.0)]
    trust.lose(12.0, "a", "no answer")
    trust.lose(15.0, "a", "no answer again")
    waits += [_flap(trust, 15.5, 16.0), _flap(trust, 100.0, 101.0)]
    if (waits[0], waits[2]) != (0.0, 30.0) or not 0.4 <= waits[1] <= 0.45:
        return f"rounds that fail while it is out cost {waits}"
    trust = Trust(TrustOptions())
    first = _flap(trust, 10.0, 10.5)
    trust.lose(20.0, "a", "no answer")
    if [trust.echoed(21.0, "a", 9), trust.echoed(50.9, "a", 9)] != [False, False]:
        return "the second outage is over too soon"
    trust.lose(50.95, "a", "no answer")
    if [trust.echoed(51.0, "a", 9), trust.echoed(80.9, "a", 9), trust.echoed(81.0, "a", 9)] != [
        False,
        False,
        True,
    ]:
        return "a lapse does not begin the probation anew"
    return "" if first == 0.0 else "the first costs"


def probation_ends_in_panic() -> str:
    """With more than half of the peers lost, the first echo is enough."""
    for live, expected in ((4, True), (6, False), (5, True)):
        trust = Trust(TrustOptions())
        _flap(trust, 0.0, 1.0)
        for node in ("b", "c"):
            trust.lose(9.0, node, "no answer")
        trust.lose(10.0, "a", "no answer")
        if trust.echoed(11.0, "a", live) is not expected:
            return f"three of {live} lost: {not expected}"
    return ""


def deaths_are_remembered() -> str:
    """Who comes back from the dead after it flapped stays out for its probation; a first death costs nothing."""
    trust = Trust(TrustOptions())
    trust.lose(10.0, "a", "no answer")
    trust.died(10.1, "a")
    if trust.returned(20.0, "a") or "a" in trust:
        return "a first death is held against it"
    trust.lose(40.0, "a", "no answer")
    trust.died(43.0, "a")
    if not trust.returned(50.0, "a") or trust.probation_s("a") != 30.0:
        return "the second is forgotten"
    if [trust.echoed(51.0, "a", 9), trust.on_probation("a"), trust.echoed(81.0, "a", 9)] != [
        False,
        True,
        True,
    ]:
        return "its probation is not 30 s"
    trust.died(90.0, "a")
    trust.lose(100.0, "a", "no answer")
    trust.died(101.0, "a")
    if trust.returned(701.1, "a"):
        return "it is never forgiven"
    trust.lose(710.0, "a", "no answer")
    trust.forget("a")
    return "" if not trust.lost and not trust.returned(711.0, "a") else "a new life pays for the old one"


def loss_is_measured() -> str:
    """Loss is a mean with a weight of a twelfth; a run that loss does not explain is deafness, and no loss."""
    meter = LossMeter()
    shares = []
    for lost in (True, False, True, True, True, True, True):
        meter.sample(lost)
        shares.append(meter.share)
    due, share = [], 0.0
    for lost in (True, False, True, True, True):
        share += (lost - share) / 12
        due.append(share)
    if (
        any(abs(a - b) > 1e-12 for a, b in zip(shares, [*due, due[-1], due[-1]], strict=True))
        or not meter.is_deaf
    ):
        return f"shares {shares}, not {due}"
    meter.echoed()
    if meter.is_deaf or LossMeter().is_deaf:
        return "an echo proves that we hear"
    known = {
        0.0: (1, 3, 1.0),
        0.01: (1, 3, 1 / 0.99),
        0.3: (4, 12, 1 / 0.7),
        0.5: (7, 20, 2.0),
        0.9: (16, 48, 10.0),
    }
    for share, (asks, looks, stretch) in known.items():
        meter = LossMeter()
        meter.share = share
        said = (meter.round_asks, meter.look_asks, round(meter.stretch, 6))
        if said != (asks, looks, round(stretch, 6)):
            return f"at a loss of {share}: {said}"
    meter = LossMeter()
    meter.share = 0.5
    losses = 0
    while not meter.is_deaf:
        meter.sample(True)
        losses += 1
    return "" if losses == 7 else f"deaf after {losses} in a row, where half is lost"


JUDGEMENTS = (
    sign_of_life_is_a_reprieve, pause_gives_time_back, lost_input_puts_off, lost_input_costs_health,
    lost_input_holds_rounds, alone_in_the_end, deaf_wait, two_of_us, death_of_a_later_life, lost_link_outweighs_traffic,
    refusal_needs_no_echo, credit_is_spent,
    credit_is_bounded, flaps_cost_more_each_time, relapses_are_one_outage, probation_ends_in_panic,
    deaths_are_remembered, loss_is_measured,
)  # fmt: skip

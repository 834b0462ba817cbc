"""Measures: short directed runs of bare membership cores in which one figure, or one answer, is known beforehand.

Stories lead whole nodes through trouble, and a core that is a little wrong mostly survives it. Here one decision at a
time is looked at from outside: how long a lone accuser waits, how often the dead are asked, who accuses whom. Each
returns what is wrong, or nothing; `tests/sim/mutants.py` runs them first, as they take milliseconds.
"""

from collections.abc import Callable

import attrs

from mesh import codec
from mesh.effects import Report
from mesh.facts import MemberChanged
from mesh.identity import GENERATION_STEP_MAX, Identity, is_node_id
from mesh.member import Liveness, Member, merge
from mesh.messages import Gossip, Update
from mesh.suspicion import suspicion_min_s, suspicion_timeout_s
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions
from tests.sim.measured.goodbyes import GOODBYES
from tests.sim.measured.judgements import JUDGEMENTS
from tests.sim.measured.patience import PATIENCE
from tests.sim.measured.returns import RETURNS
from tests.sim.measured.selves import SELVES
from tests.sim.measured.tables import TABLES
from tests.sim.measured.timelines import TIMELINES

LOCAL = SwimOptions.local()
DEAD, SUSPECT, ALIVE, LEFT = Liveness.DEAD, Liveness.SUSPECT, Liveness.ALIVE, Liveness.LEFT


def formed(count: int, run_s: float = 2.0, swim: SwimOptions = LOCAL, **more: object) -> Crowd:
    """A crowd that has been still for a while, with an empty log."""
    crowd = Crowd(7, CrowdOptions(swim=swim, **more))
    crowd.form(count)
    crowd.run_for(run_s)
    crowd.log.clear()
    return crowd


def told(crowd: Crowd, to: int, by: int, member: Member, *accusers: str) -> None:
    """Let one node tell another something of a third."""
    data = codec.packet([codec.item(Gossip(crowd.node(by))), codec.item(Update(member, accusers))])
    crowd.call(to, "receive", data, crowd[by].address)


def moments(crowd: Crowd, who: int, liveness: Liveness) -> list[float]:
    """When a node came to hold somebody for that."""
    changes = [(at, f) for at, index, f in crowd.log if index == who and isinstance(f, MemberChanged)]
    return [at for at, fact in changes if fact.after.liveness is liveness]


def suspicion_formula() -> str:
    """Lifeguard's timeout: the greatest for a lone accuser, the least with all that are expected, and a log between."""
    curve = [suspicion_timeout_s(2.0, 10.0, count, 3) for count in range(4)]
    known = [10.0, 6.0, 10.0 - 8.0 * 0.7924812503605781, 2.0]
    least = [suspicion_min_s(members, 0.5, 4.0) for members in (0, 1, 10, 100, 10_000)]
    if least != [2.0, 2.0, 2.0, 4.0, 8.0] or [suspicion_timeout_s(2.0, 10.0, c, 1) for c in (0, 1)] != [
        10.0,
        2.0,
    ]:
        return f"least suspicions of {least}"
    wrong = any(abs(one - other) > 1e-9 for one, other in zip(curve, known, strict=True))
    return f"timeouts {curve}, not {known}" if wrong else ""


def lone_accuser() -> str:
    """A doubt that nobody shares waits for the greatest suspicion; one that three share, for the least."""
    waited = []
    for sharing in (0, 3):
        crowd = formed(8)
        crowd.crash(8)
        crowd.partition((1,), tuple(range(2, 8)))
        told(crowd, 1, 2, attrs.evolve(_row(crowd, 1, 8), liveness=SUSPECT), crowd.node(2))
        for accuser in range(3, 3 + sharing):
            told(crowd, 1, accuser, attrs.evolve(_row(crowd, 1, 8), liveness=SUSPECT), crowd.node(accuser))
        case = crowd.core(1)._beliefs._cases[crowd.node(8)]
        waited.append(round(case.deadline_at - case.started_at, 6))
    least = LOCAL.suspicion_factor * LOCAL.probe_period_s
    due = [round(least * LOCAL.suspicion_max_factor, 6), round(least, 6)]
    return "" if waited == due else f"waited {waited}, not {due}"


def _row(crowd: Crowd, observer: int, subject: int) -> Member:
    row = crowd.core(observer).member(crowd.node(subject))
    assert row is not None, "they know one another"
    return row


def fresh_accuses_nobody() -> str:
    """Who has heard others but never an echo accuses nobody; of two it does, as there is nobody else to ask."""
    for count, expected in ((2, True), (3, False), (4, False)):
        crowd = Crowd(7, CrowdOptions())
        crowd.form(count)
        for other in range(2, count + 1):
            crowd.crash(other)
        crowd.call(1, "heard", crowd.node(2))
        crowd.run_for(8.0)
        accused = bool(moments(crowd, 1, SUSPECT) or moments(crowd, 1, DEAD))
        if accused is not expected:
            return f"one of {count} that never heard anybody: accused {accused}"
    return ""


def deaf_without_control() -> str:
    """Without control echoes, who hears nobody accuses them all the same."""
    crowd = Crowd(7, CrowdOptions(swim=attrs.evolve(LOCAL, control_echo=False)))
    crowd.form(4)
    for other in (2, 3, 4):
        crowd.crash(other)
    crowd.run_for(8.0)
    return "" if crowd.core(1).statistics().suspicions == 3 else "the dead were not doubted"


def plain_swim_buries_on_hearsay() -> str:
    """With one verdict a rumour of a death is the death; an observer believes members too."""
    for swim in (SwimOptions.plain_swim(),):
        crowd = formed(5, swim=swim)
        told(crowd, 1, 2, attrs.evolve(_row(crowd, 1, 5), liveness=DEAD), crowd.node(2))
        if crowd.sees(1, 5) is not DEAD:
            return "plain SWIM waits for a look of its own"
    crowd = formed(5)
    crowd.start(6, [1, 2], swim=attrs.evolve(LOCAL, observer=True))
    crowd.run_for(3.0)
    told(crowd, 6, 2, attrs.evolve(_row(crowd, 6, 5), liveness=DEAD), crowd.node(2))
    return "" if crowd.sees(6, 5) is DEAD else "an observer waits for a look of its own"


def verdicts_explained() -> str:
    """Of a silent death it is told who doubted it, that it was quarantined, and what the helpers said."""
    crowd = formed(6)
    crowd.crash(6)
    crowd.run_until(lambda: crowd.everybody_sees(6, DEAD), 10.0)
    said = [verdict for index in range(1, 6) for verdict in crowd.core(index).explain(crowd.node(6))]
    kinds = {verdict.verdict for verdict in said}
    missing = {"quarantined", "suspect", "dead"} - kinds
    return f"nobody tells why it was {missing}" if missing else ""


def spared_explained() -> str:
    """One who is vouched for and does not answer us is quarantined with the round that showed it."""
    crowd = formed(5)
    crowd.cut((5,), (1,), both_ways=False)
    crowd.run_until(lambda: crowd.core(1).is_quarantined(crowd.node(5)), 10.0)
    said = crowd.core(1).explain(crowd.node(5))
    if not said:
        return "nothing is told"
    return "" if any(getattr(verdict, "round", None) is not None for verdict in said) else "no round is told"


def traffic_makes_us_ask() -> str:
    """One in quarantine that is heard is asked at once, and trusted a round trip later."""
    crowd = formed(5)
    crowd.cut((1,), (5,))
    crowd.run_until(lambda: crowd.core(1).is_quarantined(crowd.node(5)), 10.0)
    crowd.heal()
    crowd.run_for(0.002)
    crowd.call(1, "heard", crowd.node(5))
    crowd.run_for(0.01)
    return "it is still in quarantine" if crowd.core(1).is_quarantined(crowd.node(5)) else ""


def refusal_is_proof() -> str:
    """A machine that says that nobody listens there is proof, and the first word of it needs no open round."""
    crowd = formed(5)
    crowd.crash(5)
    crowd.call(1, "evidence", "f" * 16, "refused")
    for _ in range(60):
        if crowd.sees(1, 5) is not DEAD:
            crowd.call(1, "evidence", crowd.node(5), "refused")
        crowd.run_for(0.05)
    said = [
        dict(r.fields)
        for _, who, r in crowd.log
        if who == 1 and isinstance(r, Report) and r.event == "member_dead"
    ]
    if [fields["evidence"] for fields in said] != ["refused"]:
        return f"it is held {crowd.sees(1, 5)} with {said}"
    return ""


def patience_formula() -> str:
    """A round of many asks lasts for all of them and two timeouts; one of one ask for the least verdict."""
    crowd = formed(4)
    detector, node = crowd.core(1)._detector, crowd.node(2)
    one, many = detector.verdict_s(node), detector.verdict_s(node, asks=40)
    spacing_s = max(LOCAL.probe_timeout_min_s, LOCAL.verdict_min_s / 10)
    timeout_s = detector.round_trips.timeout_s(node)
    if abs(one - max(LOCAL.verdict_min_s, LOCAL.verdict_timeouts * timeout_s)) > 1e-9:
        return f"one ask: {one}"
    due = 2 * timeout_s + 40 * spacing_s
    return "" if abs(many - due) < 1e-9 else f"forty asks: {many}, not {due}"


def one_nack_short() -> str:
    """A failed round moves one's own health by one at most, whatever the helpers owe; with nacks counted, by each."""
    from mesh.health import LocalHealth

    for counts, helpers, nacks, score in (
        (False, 3, 0, 1), (False, 3, 3, 0), (False, 0, 0, 1), (True, 3, 1, 2), (True, 3, 0, 3), (False, 3, 2, 1)
    ):  # fmt: skip
        health = LocalHealth(8, counts)
        health.round_failed(helpers, nacks)
        if health.score != score:
            return f"{helpers} helpers, {nacks} nacks: {health.score}"
    health = LocalHealth()
    health.refuted()
    health.round_answered()
    health.refuted()
    return "" if health.score == 1 else "who is doubted is not as well as before"


def unhealthy_by_doubt() -> str:
    """Who is doubted and lives is a little less well by its own lights."""
    crowd = formed(5)
    told(crowd, 5, 1, attrs.evolve(_row(crowd, 1, 5), liveness=SUSPECT), *map(crowd.node, (1, 2, 3)))
    return "" if crowd.core(5).statistics().health == 1 else "it holds itself to be as well as before"


def identities() -> str:
    """Ids are sixteen lower-case hex digits, not all of them zero; a life follows within a bound."""
    names = {"0" * 16: False, "a" * 16: True, "a" * 15: False, "": False, "0" * 15: False, "g" * 16: False}
    wrong = [name for name, expected in names.items() if is_node_id(name) is not expected]
    known = Identity("a" * 16, 3)
    last = Identity("a" * 16, 3 + GENERATION_STEP_MAX)
    beyond = Identity("a" * 16, 4 + GENERATION_STEP_MAX)
    if wrong or not last.may_follow(known) or beyond.may_follow(known):
        return f"wrongly judged {wrong}, or lives that may follow"
    return ""


def one_of_two_accounts() -> str:
    """Of two accounts of one age all take the same, whichever comes first."""
    one = Member(Identity("a" * 16, 1), "a", ("10.0.0.1", 1), zone="one")
    other = attrs.evolve(one, zone="two")
    return "" if merge(one, other) == merge(other, one) else "it depends on the order"


def heal_rate() -> str:
    """Who is left alone asks one of the dead every heal period, a quarter more or less."""
    crowd = formed(3)
    for gone in (2, 3):
        crowd.crash(gone)
    crowd.run_until(lambda: crowd.sees(1, 2) is DEAD and crowd.sees(1, 3) is DEAD, 90.0)
    before = crowd.core(1).statistics().packets_sent
    crowd.run_for(100 * LOCAL.heal_period_s)
    sent = crowd.core(1).statistics().packets_sent - before
    return "" if 90 <= sent <= 112 else f"{sent} packets in 100 heal periods, one is due in each"


def seeds_return() -> str:
    """A seed that nobody remembers is asked until it is back; one that is a live member is never asked."""
    crowd = Crowd(7, CrowdOptions())
    crowd.start(1)
    crowd.start(2, [1])
    crowd.run_for(2.0)
    crowd.leave(1)
    crowd.run_for(1.0)
    crowd.crash(1)
    crowd.run_for(5.0)
    crowd.start(1)
    took_s = crowd.run_until(crowd.converged, 6.0)
    return (
        "" if took_s is not None and crowd.sees(1, 2) is ALIVE else "the two have not found each other again"
    )


def forgotten_by_all() -> str:
    """Whom an operator has the mesh forget is held as gone by all, for good in this life."""
    crowd = formed(6)
    crowd.crash(6)
    crowd.run_until(lambda: crowd.everybody_sees(6, DEAD), 20.0)
    crowd.call(1, "forget", crowd.node(6))
    took_s = crowd.run_until(lambda: crowd.everybody_sees(6, LEFT), 5.0)
    return "" if took_s is not None else "somebody still remembers it as dead"


def leavers_are_done() -> str:
    """Who has said goodbye asks nobody any more."""
    crowd = formed(4)
    crowd.leave(1)
    crowd.run_for(0.5)
    before = crowd.core(1).statistics().packets_sent
    for input_ in ("probe", "evidence"):
        crowd.call(1, input_, crowd.node(2))
    return "" if crowd.core(1).statistics().packets_sent == before else "it asks although it has left"


def probes_at_once() -> str:
    """A probe that is asked for is sent at once, and evidence of a lost link makes one."""
    for input_ in ("probe", "evidence"):
        crowd = formed(4)
        before = crowd.core(1).statistics().packets_sent
        crowd.call(1, input_, crowd.node(2))
        if crowd.core(1).statistics().packets_sent == before:
            return f"`{input_}` asked nobody"
    return ""


def helpers_help() -> str:
    """A path that is cut one way alone costs nobody its place: helpers vouch for it."""
    crowd = formed(5)
    crowd.cut((1,), (5,))
    crowd.run_for(10.0)
    doubts = [index for index in range(1, 5) if moments(crowd, index, SUSPECT)]
    return f"{doubts} doubted it" if doubts else ""


def pauses_are_forgiven() -> str:
    """Who was stopped for long shifts its deadlines by as much: it blames nobody for what it missed."""
    for seconds in (2.0, 20.0):
        crowd = formed(5)
        crowd.crash(5)
        crowd.run_until(lambda crowd=crowd: crowd.sees(1, 5) is SUSPECT, 5.0)
        crowd.pause(1)
        crowd.run_for(seconds)
        told_before = len(moments(crowd, 1, DEAD))
        crowd.resume(1)
        crowd.run_for(0.05)
        if [row for row in (2, 3, 4) if crowd.sees(1, row) is not ALIVE] or told_before:
            return f"after {seconds} s it blames those who run"
    return ""


def rotas_reach_all() -> str:
    """A wall clock that is set, forth or back, makes nobody wait for longer than two periods."""
    for step_s in (-3600.0, 3600.0, -0.9):
        crowd = formed(6)
        crowd[1].skew_s += step_s
        crowd.run_for(0.5)
        before = crowd.core(1).statistics().packets_sent
        crowd.run_for(4 * LOCAL.probe_period_s)
        if crowd.core(1).statistics().packets_sent - before < 4:
            return f"its clock was set by {step_s} s, and it asks nobody"
    return ""


def sampling_is_fair() -> str:
    """A sample of others has those who live, each once, never who is left out, and each of them in time."""
    for count in (5, 40, 200):
        crowd = formed(count, 0.5)
        for gone in (3, 4):
            crowd.call(1, "receive", _goodbye(crowd, gone), crowd[gone].address)
        members = crowd.core(1)._members
        seen: set[str] = set()
        for _ in range(40 * count // 3):
            sample = [row.node for row in members.sample(3, (crowd.node(2),))]
            most = min(3, count - 4)
            if len(sample) != most or len(set(sample)) != most:
                return f"{count} members: a sample of {len(sample)}"
            seen.update(sample)
        others = {crowd.node(index) for index in range(5, count + 1)}
        if seen != others:
            return f"{count} members: {len(others - seen)} never came up, {len(seen - others)} should not"
    return ""


def _goodbye(crowd: Crowd, gone: int) -> bytes:
    left = attrs.evolve(crowd.core(gone).me, liveness=LEFT)
    return codec.packet([codec.item(Gossip(crowd.node(gone))), codec.item(Update(left))])


def tables_agree_with_themselves() -> str:
    """However rows come, go and come back, a table counts, ranks and finds them as a plain list would."""
    crowd = formed(60, 0.5)
    members = crowd.core(1)._members
    for turn in range(3):
        for index in range(2 + turn, 60, 3):
            row = members.get(crowd.node(index))
            kind = (DEAD, ALIVE, LEFT)[(index + turn) % 3]
            identity = row.identity if kind is not ALIVE else row.identity.above()
            members.apply(attrs.evolve(row, identity=identity, liveness=kind), float(turn))
        live = sorted(row.node for row in members.all() if row.is_live)
        ranked = [members.ranked(rank).node for rank in range(len(live))]
        if members.live != len(live) or ranked != live or members.rank != live.index(crowd.node(1)):
            return f"{members.live} live, not {len(live)}, or ranks out of order"
        dead = {row.node for row in members.all() if row.liveness is DEAD}
        if {row.node for row in members.dead()} != dead:
            return "the dead are not those who are held dead"
    return ""


MEASURES: dict[str, Callable[[], str]] = {
    work.__name__: work
    for work in (
        suspicion_formula, lone_accuser, fresh_accuses_nobody, deaf_without_control, plain_swim_buries_on_hearsay,
        verdicts_explained, spared_explained, traffic_makes_us_ask, refusal_is_proof, patience_formula, one_nack_short,
        unhealthy_by_doubt, identities, one_of_two_accounts, heal_rate, seeds_return, forgotten_by_all,
        leavers_are_done, probes_at_once, helpers_help, pauses_are_forgiven, rotas_reach_all, sampling_is_fair,
        tables_agree_with_themselves, *GOODBYES, *TIMELINES, *JUDGEMENTS, *TABLES, *SELVES, *PATIENCE, *RETURNS,
    )
}  # fmt: skip
"""By name."""

"""Measures of goodbyes: whose word is believed, when the look begins, and how long it takes, to the millisecond."""

import math

import attrs

from mesh import codec
from mesh.ages import ages_of, to_byte
from mesh.member import Liveness
from mesh.messages import Ages, Gossip, Ping, Update
from sim.crowd import Crowd
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

LEFT, ALIVE = Liveness.LEFT, Liveness.ALIVE
VERDICT_S, PERIOD_S = LOCAL.verdict_min_s, LOCAL.probe_period_s
TRUE_GOODBYE_S = VERDICT_S + 2 * TRIP_S
"""What it costs to find that a rumoured goodbye is true: a look, and an echo of somebody else."""


def _lefts(wire: Wire, node: str, by: int) -> list[float]:
    return [said.at for said, update in wire.accounts(node, by=by) if update.member.liveness is LEFT]


def goodbye_of_the_living() -> str:
    """Whom another says to have left is asked at once; it answers, and nothing of it is believed or passed on."""
    for wait_s, first in ((0.01, 0.0), (VERDICT_S + 0.05, 2 * TRIP_S)):
        crowd = even(5)
        at = after_echo(crowd, 1, wait_s)
        wire, before = Wire(crowd), len(crowd.log)
        said_gone(crowd, 1, 2, 5)
        crowd.run_for(0.05)
        looks = [said.at for said in wire.of(Ping, by=1, to=5)]
        controls = [said for said in wire.of(Ping, by=1) if said.to != 5 and close(said.at, at)]
        if not looks or not close(looks[0], at + first):
            return f"{wait_s} s after an echo it looks at {looks}, not at {at + first}"
        if len(controls) != (3 if first else 0):
            return f"{len(controls)} others were asked for an echo"
        if crowd.sees(1, 5) is not ALIVE or len(crowd.log) != before or _lefts(wire, crowd.node(5), 1):
            return "the rumour is believed"
        if crowd.core(1).statistics().goodbyes_refuted != 1:
            return "that it was refuted is not counted"
    return ""


def _gone(crowd: Crowd, mute: bool = False) -> float:
    """How long one takes to believe in a goodbye of somebody who is gone."""
    at = after_echo(crowd, 1, 0.01)
    crowd.crash(5)
    said_gone(crowd, 1, 2, 5)
    crowd.run_for(1.0 if mute else 0.4)
    return moment(crowd, 1, 5, LEFT) - at


def goodbye_of_the_gone() -> str:
    """It takes one look, and an echo of somebody else where there is somebody else, to believe in a goodbye."""
    unproven = attrs.evolve(LOCAL, control_echo=False)
    for swim, refusals, due_s in (
        (LOCAL, False, TRUE_GOODBYE_S), (LOCAL, True, VERDICT_S), (unproven, False, VERDICT_S)
    ):  # fmt: skip
        crowd = even(5, swim=swim, refusals=refusals)
        took_s = _gone(crowd)
        if not close(took_s, due_s):
            return f"it took {took_s}, not {due_s} (refusals {refusals}, control {swim.control_echo})"
        if reports(crowd, 1, "forgotten", "member_dead"):
            return "nobody asked for it to be forgotten, nor declared it dead"
    return ""


def goodbye_between_two() -> str:
    """Where there is nobody else to ask for an echo, the look decides."""
    crowd = even(2)
    crowd.start(3, [1])
    crowd.run_for(2.0)
    crowd.leave(3)
    crowd.run_for(2.0)
    crowd.crash(3)
    crowd.crash(2)
    at = crowd.time
    crowd.call(1, "forget", crowd.node(2))
    crowd.run_for(0.3)
    took_s = moment(crowd, 1, 2, LEFT) - at
    return "" if close(took_s, VERDICT_S) else f"it took {took_s}"


def goodbye_keeps_its_age() -> str:
    """A goodbye is passed on with the time since it was said, the look included."""
    crowd = even(5)
    at = after_echo(crowd, 1, 0.01)
    crowd.crash(5)
    gone = attrs.evolve(row(crowd, 1, 5), liveness=LEFT)
    old_s = 2.0
    items = [
        codec.item(Gossip(crowd.node(2))),
        codec.item(Update(gone)),
        codec.item(Ages(bytes([to_byte(old_s)]))),
    ]
    wire = Wire(crowd)
    crowd.call(1, "receive", codec.packet(items), crowd[2].address)
    crowd.run_for(0.5)
    for said, update in wire.accounts(crowd.node(5), by=1):
        if update.member.liveness is LEFT:
            age_s = ages_of(said.packet)[said.packet.updates.index(update)]
            due_s = old_s + said.at - at
            return (
                "" if age_s is not None and 0.9 * due_s <= age_s <= 1.2 * due_s else f"{age_s}, not {due_s}"
            )
    return "it is not passed on"


def goodbye_while_it_sends() -> str:
    """Who sends while we wait for the echo is looked at again, after an echo of a ping of the next period."""
    crowd = even(5, swim=attrs.evolve(LOCAL, suspicion_factor=40.0))
    at = after_echo(crowd, 1, 0.01)
    crowd.crash(5)
    said_gone(crowd, 1, 2, 5)
    crowd.run_for(VERDICT_S + TRIP_S)
    crowd.call(1, "heard", crowd.node(5))
    crowd.run_for(3.0)
    left, soonest = moment(crowd, 1, 5, LEFT), at + TRUE_GOODBYE_S + PERIOD_S + VERDICT_S
    return (
        ""
        if soonest <= left <= soonest + 2 * PERIOD_S
        else f"it has left at {left}, not soon after {soonest}"
    )


def goodbye_of_who_sends_only() -> str:
    """Who sends all the time and answers nobody stays, and is not trusted; when it ends, it has left."""
    crowd = even(5)
    crowd.cut((1, 2, 3, 4), (5,), both_ways=False)
    after_echo(crowd, 1, 0.01)
    said_gone(crowd, 1, 2, 5)
    crowd.call(1, "heard", crowd.node(5))
    for _ in range(12):
        crowd.run_for(0.1)
        crowd.call(1, "heard", crowd.node(5))
    if crowd.sees(1, 5) is LEFT or not crowd.core(1).is_quarantined(crowd.node(5)):
        return f"it is held {crowd.sees(1, 5)}, and it sends"
    return ""


def operators_word() -> str:
    """Who answers is not forgotten, and the operator is told so; the silent are, after a look, and the dead at once."""
    crowd = even(5)
    after_echo(crowd, 1, 0.01)
    crowd.call(1, "forget", crowd.node(4))
    crowd.run_for(0.05)
    if [fields["node"] for _, fields in reports(crowd, 1, "not_forgotten")] != [crowd.node(4)]:
        return "nobody says that it answers"
    if crowd.sees(1, 4) is not ALIVE:
        return "one who answers is forgotten"
    at = after_echo(crowd, 1, 0.01)
    crowd.crash(5)
    crowd.call(1, "forget", crowd.node(5))
    crowd.run_for(0.4)
    said = reports(crowd, 1, "forgotten")
    if [fields["node"] for _, fields in said] != [crowd.node(5)] or not close(
        said[0][0], at + TRUE_GOODBYE_S
    ):
        return f"{said}"
    crowd.log.clear()
    crowd.crash(3)
    crowd.run_until(lambda: crowd.sees(1, 3) is Liveness.DEAD, 20.0)
    at = crowd.time
    crowd.call(1, "forget", crowd.node(3))
    said = reports(crowd, 1, "forgotten")
    if [(when, fields["node"]) for when, fields in said] != [(at, crowd.node(3))]:
        return f"one of the dead: {said}"
    return "" if len(reports(crowd, 1, "not_forgotten")) == 0 else "it does not answer"


def own_goodbye() -> str:
    """Its own word, from where it is known to be, is believed at once; from elsewhere it is looked at first."""
    for address, expected in ((None, LEFT), (("10.9.9.9", 7946), ALIVE)):
        crowd = even(5)
        after_echo(crowd, 1, 0.01)
        left = attrs.evolve(row(crowd, 1, 5), liveness=LEFT)
        data = codec.packet([codec.item(Gossip(crowd.node(5))), codec.item(Update(left))])
        crowd.call(1, "receive", data, address or crowd[5].address)
        if crowd.sees(1, 5) is not expected:
            return f"from {address or 'its address'}: {crowd.sees(1, 5)}"
    return ""


def goodbye_overtaken() -> str:
    """A rumour that its subject has topped, or that its death has, is void; one of a later life is looked at anew."""
    crowd = even(5)
    crowd.crash(5)
    after_echo(crowd, 1, 0.01)
    said_gone(crowd, 1, 2, 5)
    account = row(crowd, 1, 5)
    crowd.run_for(0.05)
    topped = attrs.evolve(account, identity=account.identity.above())
    data = codec.packet([codec.item(Gossip(crowd.node(2))), codec.item(Update(topped))])
    crowd.call(1, "receive", data, crowd[2].address)
    if crowd.core(1).statistics().goodbyes_refuted != 1:
        return "what its subject has topped is not void"
    crowd.run_for(0.6)
    return "it has left, although it has said that it lives" if crowd.sees(1, 5) is LEFT else ""


def goodbye_of_a_suspect() -> str:
    """That others doubt it meanwhile makes the look at who is said to have left neither longer nor shorter."""
    crowd = lone(6)
    at = after_echo(crowd, 1, 0.01)
    crowd.crash(6)
    said_gone(crowd, 1, 2, 6)
    crowd.run_for(VERDICT_S / 2)
    told(crowd, 1, 3, attrs.evolve(row(crowd, 1, 6), liveness=Liveness.SUSPECT), crowd.node(3))
    crowd.run_for(1.0)
    took_s = moment(crowd, 1, 6, LEFT) - at
    return "" if close(took_s, TRUE_GOODBYE_S) else f"it took {took_s}"


def goodbye_of_a_later_life() -> str:
    """A goodbye of a later life than is known is looked at; when that life turns up alive, it is asked again."""
    crowd = even(5)
    crowd.crash(5)
    at = after_echo(crowd, 1, 0.01)
    account = row(crowd, 1, 5)
    later = attrs.evolve(account, identity=attrs.evolve(account.identity, generation=4))
    wire = Wire(crowd)
    for member in (attrs.evolve(later, liveness=LEFT), attrs.evolve(later, liveness=ALIVE)):
        data = codec.packet([codec.item(Gossip(crowd.node(2))), codec.item(Update(member))])
        crowd.call(1, "receive", data, crowd[2].address)
        crowd.run_for(0.05)
    looks = [said.at for said in wire.of(Ping, by=1, to=5) if not said.reliable]
    if not looks or not close(looks[0], at) or not any(close(look, at + 0.05) for look in looks):
        return f"looked at {looks}"
    crowd.run_for(0.4)
    return "" if close(moment(crowd, 1, 5, LEFT), at + 0.05 + TRUE_GOODBYE_S) else "it has not left in time"


def goodbye_and_lost_input() -> str:
    """Whose own machine drops datagrams looks for a verdict more before it believes in a goodbye, twice at most."""
    for losses in (0, 1, 2, 3):
        crowd = lone(6)
        at = after_echo(crowd, 1, 0.01)
        crowd.crash(6)
        said_gone(crowd, 1, 2, 6)
        crowd.run_for(VERDICT_S + TRIP_S)
        for turn in range(losses):
            crowd.call(1, "lost_input", 1)
            crowd.run_for(VERDICT_S + TRIP_S if turn < 2 else 0.0)
        crowd.run_for(2.0)
        took_s, due_s = moment(crowd, 1, 6, LEFT) - at, TRUE_GOODBYE_S + min(losses, 2) * (VERDICT_S + TRIP_S)
        if not close(took_s, due_s):
            return f"{losses} losses: it took {took_s}, not {due_s}"
    return ""


def goodbye_heard_by_the_deaf() -> str:
    """Who hears nobody believes in no goodbye; once it hears, the look begins."""
    crowd = even(5)
    crowd.partition((1,), (2, 3, 4, 5))
    crowd.run_for(2.0)
    said_gone(crowd, 1, 2, 5)
    crowd.run_for(1.5)
    if crowd.sees(1, 5) is LEFT:
        return "a deaf node believes in a goodbye"
    crowd.heal()
    crowd.run_for(3.0)
    if crowd.sees(1, 5) is not ALIVE or crowd.core(1).statistics().goodbyes_refuted != 1:
        return f"it is held {crowd.sees(1, 5)}"
    return ""


def goodbye_after_a_pause() -> str:
    """Who was stopped in the midst of a look looks anew before it believes."""
    crowd = even(5)
    after_echo(crowd, 1, 0.01)
    crowd.crash(5)
    wire = Wire(crowd)
    said_gone(crowd, 1, 2, 5)
    crowd.run_for(0.1)
    crowd.pause(1)
    crowd.run_for(5.0)
    crowd.resume(1)
    at = crowd.time
    crowd.run_for(3.0)
    left = moment(crowd, 1, 5, LEFT)
    looks = [said.at for said in wire.of(Ping, by=1, to=5, since=at)]
    if not looks or not looks[0] + VERDICT_S <= left < math.inf:
        return f"it came back at {at}, looked at {looks[:2]}, and took it for gone at {left}"
    return ""


GOODBYES = (
    goodbye_of_the_living, goodbye_of_the_gone, goodbye_between_two, goodbye_keeps_its_age, goodbye_while_it_sends,
    goodbye_of_who_sends_only, operators_word, own_goodbye, goodbye_overtaken, goodbye_of_a_suspect,
    goodbye_of_a_later_life,
    goodbye_and_lost_input, goodbye_heard_by_the_deaf, goodbye_after_a_pause,
)  # fmt: skip
"""All of them."""

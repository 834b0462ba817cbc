"""Measures of how a node speaks for itself: its one id, its address, its goodbye, its joins, its pauses."""

import attrs

from mesh import codec
from mesh.ages import ages_of, to_byte
from mesh.effects import Address, KeepGeneration, Stop
from mesh.identity import Identity
from mesh.load import LoadRecord
from mesh.member import Liveness, Member
from mesh.messages import Ack, Ages, Gossip, Leave, Message, Ping, Seen, Update
from mesh.myself import DOUBTED_S, NEW_S, PROOF_S
from sim.crowd import Crowd
from tests.sim.measured.wire import (
    LOCAL,
    TRIP_S,
    Wire,
    after_echo,
    close,
    even,
    lone,
    reports,
    row,
    told,
)

ALIVE, SUSPECT, DEAD, LEFT = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT
GREATER, LESSER = ("1.0.0.1", 1), ("99.0.0.1", 1)
"""Addresses before and after those of a crowd, so that its own are the greater, or the lesser."""
FAR_S = 50.0


def say(crowd: Crowd, to: int, message: Message, *members: Member, source: Address | None = None) -> None:
    """Hand a node a message with accounts."""
    by = next((index for index, peer in crowd.peers.items() if crowd.node(index) == message.source), to)
    data = codec.packet([codec.item(message), *(codec.item(Update(member)) for member in members)])
    crowd.call(to, "receive", data, source or crowd[by].address)


def _asked(wire: Wire, address: Address) -> list[float]:
    return [
        said.at
        for said in wire.of(Ping)
        if said.address == address and said.message.target == said.message.source
    ]


def twins_wait_by_age_and_address() -> str:
    """Who may have a twin asks for it: at once if new and greater, after 3 s or 10 s, or never if old and lesser."""
    for is_new, rival, wait_s in (
        (True, GREATER, 0.0), (True, LESSER, 3.0), (False, GREATER, 10.0), (False, LESSER, None)
    ):  # fmt: skip
        crowd = lone(3, run_s=NEW_S - 1.0 if is_new else NEW_S + 1.0)
        wire, at = Wire(crowd), crowd.time
        crowd.call(1, "met_twin", rival)
        crowd.run_for(1.0)
        crowd.call(1, "met_twin", rival)
        crowd.run_for(12.0)
        asked = _asked(wire, rival)
        due = [at + wait_s] if wait_s is not None else []
        if wait_s == 0.0:
            due.append(at + 1.0 + (0.0 if is_new and crowd.time - 13.0 + 1.0 < NEW_S else 10.0))
        if len(asked) < len(due) or not all(
            close(one, other) for one, other in zip(asked, due[:1], strict=False)
        ):
            return f"new {is_new}, rival {rival}: asked at {[when - at for when in asked]}"
        if not due and asked:
            return f"an old and lesser one asks at {asked}"
        if any(isinstance(output, Stop) for _, _, output in crowd.log):
            return "nobody has answered, and it ends"
        clashes = [fields["address"] for _, fields in reports(crowd, 1, "identity_clash")]
        if not clashes or set(clashes) != {"{}:{}".format(*rival)}:
            return f"clashes told: {clashes}"
    return ""


def _proven(crowd: Crowd, after_s: float, nonce: int = 0, kind: type = Ack) -> bool:
    """Meet a twin that answers so late, with the nonce or another: does the node end?"""
    wire = Wire(crowd)
    crowd.call(1, "met_twin", GREATER)
    crowd.run_for(0.001)
    asked = [said for said in wire.of(Ping, by=1) if said.address == GREATER][-1]
    crowd.run_for(after_s)
    me, number = crowd.node(1), asked.message.nonce + nonce
    message = Ack(me, number, bytes(8)) if kind is Ack else Ping(me, number, me)
    say(crowd, 1, message, source=GREATER)
    say(crowd, 1, Ack(me, asked.message.nonce, bytes(8)), source=GREATER)
    ends = [output.reason for _, _, output in crowd.log if isinstance(output, Stop)]
    assert len(ends) < 2 and all(reason.endswith("used at 1.0.0.1:1") for reason in ends), (
        f"it ends with {ends}"
    )
    return bool(ends)


def twin_that_answers() -> str:
    """Only the answer with our nonce, within two seconds, ends a node; its own ping that comes home clears it."""
    for after_s, kind, expected in (
        (0.1, Ack, True), (PROOF_S - 0.1, Ack, True), (PROOF_S + 0.1, Ack, False), (0.1, Ping, False)
    ):  # fmt: skip
        if _proven(lone(3), after_s, kind=kind) is not expected:
            return f"an {kind.__name__} after {after_s} s: ended {not expected}"
    crowd = lone(3)
    crowd.call(1, "met_twin", GREATER)
    crowd.run_for(0.1)
    say(crowd, 1, Ack(crowd.node(1), 5, bytes(8)), source=GREATER)
    if any(isinstance(output, Stop) for _, _, output in crowd.log):
        return "an answer with another nonce ends it"
    crowd = lone(3)
    before = crowd.core(1).statistics().misplaced
    me = crowd.node(1)
    wire = Wire(crowd)
    say(crowd, 1, Ping(me, 77, me), source=GREATER)
    answers = [said.message.nonce for said in wire.of(Ack, by=1) if said.address == GREATER]
    if answers != [77]:
        return "it does not answer to its own id"
    say(crowd, 1, Ping(me, 78, crowd.node(2)), source=GREATER)
    say(crowd, 1, Ack(me, 79, bytes(8)), source=GREATER)
    misplaced = crowd.core(1).statistics().misplaced - before
    ended = any(isinstance(output, Stop) for _, _, output in crowd.log)
    return "" if (misplaced, ended) == (2, False) else f"{misplaced} misplaced, ended {ended}"


def _later(crowd: Crowd, above: int, liveness: Liveness = ALIVE, address: Address | None = None) -> Member:
    me = crowd.core(1).me
    identity = Identity(me.node, me.identity.generation + above, 3)
    return attrs.evolve(me, identity=identity, liveness=liveness, address=address or me.address)


def later_lives_are_topped() -> str:
    """A rumour of a later life of ours is topped by the next one, which is kept first; once a second at most."""
    for liveness in (ALIVE, DEAD):
        crowd = lone(3)
        began = crowd.core(1).me.identity.generation
        say(crowd, 1, Gossip(crowd.node(2)), _later(crowd, 4, liveness))
        if crowd.core(1).me.identity.age != (began + 5, 0):
            return f"it is {crowd.core(1).me.identity.age} after a rumour of {began + 4}"
        kept = [out.generation for _, who, out in crowd.log if who == 1 and isinstance(out, KeepGeneration)]
        if (
            kept != [began + 5]
            or [f["generation"] for _, f in reports(crowd, 1, "generation_raised")] != kept
        ):
            return f"kept {kept}"
        for wait_s, expected in ((0.5, began + 5), (0.51, began + 8)):
            crowd.run_for(wait_s)
            say(crowd, 1, Gossip(crowd.node(2)), _later(crowd, 2, liveness))
            if crowd.core(1).me.identity.generation != expected:
                return f"generation {crowd.core(1).me.identity.generation}, not {expected}"
        if reports(crowd, 1, "identity_clash"):
            return "at its own address nobody else can be"
    crowd = lone(3)
    for turn, contests in ((1, 0), (2, 1)):
        say(crowd, 1, Gossip(crowd.node(2)), _later(crowd, 1, ALIVE, GREATER))
        if len(reports(crowd, 1, "identity_clash")) != contests:
            return f"the rumour number {turn} of another address makes {contests} contests"
        crowd.run_for(1.1)
    say(crowd, 1, Gossip(crowd.node(2)), _later(crowd, 1, DEAD, LESSER))
    clashes = [fields["address"] for _, fields in reports(crowd, 1, "identity_clash")]
    return "" if clashes == ["1.0.0.1:1"] else f"clashes with {clashes}"


def doubts_are_refuted() -> str:
    """What tops our word is refuted, what does not is answered by our word again; both count, and cost health, once."""
    crowd = lone(3)
    for incarnation, liveness, due, refuted in (
        (0, SUSPECT, 1, 1), (0, SUSPECT, 1, 1), (1, DEAD, 2, 2), (5, SUSPECT, 6, 3), (6, ALIVE, 6, 3), (3, DEAD, 6, 3)
    ):  # fmt: skip
        me = crowd.core(1).me
        rumour = attrs.evolve(
            me, identity=attrs.evolve(me.identity, incarnation=incarnation), liveness=liveness
        )
        crowd.run_for(2.0)
        wire = Wire(crowd)
        say(crowd, 1, Gossip(crowd.node(2)), rumour)
        stats = crowd.core(1).statistics()
        if crowd.core(1).me.identity.incarnation != due or stats.refutations != refuted:
            now = crowd.core(1).me.identity.incarnation
            return f"{liveness.name} {incarnation}: {now}, {stats.refutations} refuted"
        crowd.run_for(0.3)
        ours = [u for _, u in wire.accounts(crowd.node(1), by=1) if u.member.identity.incarnation == due]
        if bool(ours) is (liveness is ALIVE):
            return f"{liveness.name} {incarnation}: our word goes out {len(ours)} times"
    told_of = [(f["rumour"], f["incarnation"]) for _, f in reports(crowd, 1, "refuted")]
    return "" if told_of == [("suspect", 1), ("dead", 2), ("suspect", 6)] else f"{told_of}"


def foreign_words_are_topped() -> str:
    """What claims to be our own word at a higher age, or at our age with another address, is topped by a new life."""
    for address, above, jumps in ((None, 1, True), (GREATER, 0, True), (None, 0, False)):
        crowd = lone(3)
        me = crowd.core(1).me
        identity = attrs.evolve(me.identity, incarnation=me.identity.incarnation + above)
        say(
            crowd,
            1,
            Gossip(crowd.node(2)),
            attrs.evolve(me, identity=identity, address=address or me.address),
        )
        jumped = crowd.core(1).me.identity.generation > me.identity.generation
        if jumped is not jumps:
            return f"{above} above, at {address}: jumped {jumped}"
    return ""


def _doubted(crowd: Crowd) -> None:
    me = crowd.core(1).me
    say(crowd, 1, Gossip(crowd.node(2)), attrs.evolve(me, liveness=SUSPECT))


def seen_elsewhere() -> str:
    """While we are doubted, three who agree on another address of ours move us there; fewer make us ask."""
    new: Address = ("77.0.0.1", 7)
    for count, agree, moves in ((6, 3, True), (6, 2, False), (3, 2, True), (3, 1, False), (2, 1, True)):
        crowd = lone(count)
        _doubted(crowd)
        crowd.run_for(DOUBTED_S - 1.0)
        wire = Wire(crowd)
        for index in range(2, 2 + agree):
            say(crowd, 1, Seen(crowd.node(index), new))
        moved = crowd.core(1).me.address == new
        if moved is not moves:
            return f"{agree} of {count - 1} agree: moved {moved}"
        asked = {said.to for said in wire.of(Ping, by=1) if close(said.at, crowd.time)}
        more = min(3, count - 1) - agree
        if not moves and len(asked) < min(more, 1):
            return f"{agree} of {count - 1}: {len(asked)} are asked"
        if not moves and asked & set(range(2, 2 + agree)) and agree == 2:
            return f"{asked} are asked again"
        if moves and reports(crowd, 1, "address_changed")[0][1]["address"] != "77.0.0.1:7":
            return "it is not told"
    return ""


def seen_by_liars() -> str:
    """Nobody moves us while we are not doubted, or no longer; one liar never does, nor who has left, nor strangers."""
    crowd, new = lone(6), ("77.0.0.1", 7)
    for index in (2, 3, 4):
        say(crowd, 1, Seen(crowd.node(index), new))
    if crowd.core(1).me.address == new:
        return "nobody doubts us, and we move"
    _doubted(crowd)
    crowd.run_for(DOUBTED_S + 1.0)
    for index in (2, 3, 4):
        say(crowd, 1, Seen(crowd.node(index), new))
    if crowd.core(1).me.address == new:
        return "the doubt is long over, and we move"
    return _lied_to(lone(6), new)


def _lied_to(crowd: Crowd, new: Address) -> str:
    _doubted(crowd)
    for index in (2, 2, 2):
        say(crowd, 1, Seen(crowd.node(index), new))
    say(crowd, 1, Seen(crowd.node(3), ("78.0.0.1", 7)))
    say(crowd, 1, Seen("f" * 16, new))
    if crowd.core(1).me.address == new:
        return "one liar moves us"
    crowd.call(
        1,
        "receive",
        _packet(Leave(crowd.node(5)), attrs.evolve(row(crowd, 1, 5), liveness=LEFT)),
        crowd[5].address,
    )
    say(crowd, 1, Seen(crowd.node(5), new))
    say(crowd, 1, Seen(crowd.node(4), new))
    if crowd.core(1).me.address == new:
        return "one who has left counts"
    say(crowd, 1, Seen(crowd.node(6), new))
    return "" if crowd.core(1).me.address == new else "three agree, and it stays"


def _packet(message: Message, *members: Member) -> bytes:
    return codec.packet([codec.item(message), *(codec.item(Update(member)) for member in members)])


def seen_by_those_who_doubt() -> str:
    """Who doubts a member that pings from elsewhere than it says tells it so; who does not, does not."""
    for doubted in (False, True):
        crowd = lone(5)
        if doubted:
            crowd.cut((1,), (5,))
            crowd.call(1, "evidence", crowd.node(5))
        wire = Wire(crowd)
        elsewhere: Address = ("77.0.0.1", 7)
        say(crowd, 1, Ping(crowd.node(5), 9, crowd.node(1)), source=elsewhere)
        said = [one.message for one in wire.of(Seen, by=1)]
        due = [Seen(crowd.node(1), elsewhere)] if doubted else []
        if said != due or [one.address for one in wire.of(Ack, by=1)] != [elsewhere]:
            return f"doubted {doubted}: {said}"
        say(crowd, 1, Ping(crowd.node(5), 10, crowd.node(1)))
        if len(wire.of(Seen, by=1)) != len(due):
            return "it is where it says"
    return ""


def goodbye_is_said_once() -> str:
    """Who leaves tells so many at once, with its own account as LEFT, and is silent and deaf from then on."""
    crowd = even(6, swim=attrs.evolve(LOCAL, leave_fanout=3))
    wire, at = Wire(crowd), crowd.time
    crowd.leave(1)
    crowd.call(1, "leave")
    said = wire.of(Leave, by=1)
    if len({one.to for one in said}) != 3 or len(said) != 3:
        return f"{len(said)} are told"
    if any(
        u.member.liveness is not LEFT
        for one in said
        for u in one.packet.updates
        if u.member.node == crowd.node(1)
    ):
        return "they are told that it lives"
    crowd.call(1, "probe", crowd.node(2))
    crowd.call(1, "evidence", crowd.node(2))
    crowd.call(1, "forget", crowd.node(2))
    crowd.call(1, "update_me", zone="late")
    crowd.call(1, "announce", "late", b"")
    crowd.run_for(2.0)
    later = [one for one in wire.of(by=1) if one.at > at and type(one.message) is not Gossip]
    if later or crowd.core(1).me.zone or crowd.core(1).is_quarantined(crowd.node(2)):
        return f"it says {later[:1]}, {crowd.core(1).me}"
    return "" if all(crowd.sees(index, 1) is LEFT for index in range(2, 7)) else "not all know"


def own_facts() -> str:
    """New facts of ours make one incarnation more, and are told; the same ones again make none."""
    crowd = lone(4)
    wire = Wire(crowd)
    for zone, due in (("a", 1), ("a", 1), ("b", 2), ("", 3)):
        crowd.call(1, "update_me", zone=zone)
        if crowd.core(1).me.identity.incarnation != due or crowd.core(1).me.zone != zone:
            return f"zone {zone}: incarnation {crowd.core(1).me.identity.incarnation}"
        crowd.run_for(0.5)
    zones = {u.member.zone for _, u in wire.accounts(crowd.node(1), by=1)}
    return "" if zones == {"a", "b", ""} else f"told {zones}"


def waiting_counts_as_age() -> str:
    """What waited in our socket while we did not run is so much older; what comes after the next tick is not."""
    for stopped_s, ticks, counted in ((3.0, 0, True), (3.0, 1, True), (3.0, 2, False), (0.0, 0, False)):
        crowd = lone(5)
        after_echo(crowd, 1, 0.01)
        if stopped_s:
            crowd[1].timer_at = None
            crowd.pause(1)
            crowd.run_for(stopped_s)
            crowd[1].paused = False
        if ticks:
            crowd._tick(crowd[1])
            crowd.run_for(2 * LOCAL.probe_period_s if ticks > 1 else 0.0)
        fresh = attrs.evolve(row(crowd, 1, 5), identity=row(crowd, 1, 5).identity.above(), zone="new")
        ran_at = crowd.time
        items = [
            codec.item(Gossip(crowd.node(2))),
            codec.item(Update(fresh)),
            codec.item(Ages(bytes([to_byte(0.1)]))),
        ]
        wire = Wire(crowd)
        crowd.call(1, "receive", codec.packet(items), crowd[2].address)
        crowd._tick(crowd[1])
        crowd.run_for(0.5)
        sent = [
            (said.at - ran_at, ages_of(said.packet)[said.packet.updates.index(u)])
            for said, u in wire.accounts(crowd.node(5), by=1)
            if u.member.zone == "new"
        ]
        if not sent or sent[0][1] is None:
            return "it is not passed on"
        least_s = 0.1 + sent[0][0] + (stopped_s if counted else 0.0)
        if not 0.9 * least_s <= sent[0][1] <= 1.3 * least_s + 0.1:
            return f"stopped {stopped_s}, ticked {ticks}: an age of {sent[0][1]}, not {least_s}"
    return ""


def short_stops_are_borne() -> str:
    """A stop within tolerance is no pause. A longer one is told to the mesh, once in ten seconds."""
    for stopped_s, paused in ((LOCAL.pause_tolerance_s - 0.05, False), (LOCAL.pause_tolerance_s + 0.6, True)):
        crowd = lone(5)
        before = crowd.core(1).me.identity.incarnation
        crowd.pause(1)
        crowd.run_for(stopped_s)
        crowd.resume(1)
        said = len(reports(crowd, 1, "paused"))
        raised = crowd.core(1).me.identity.incarnation - before
        if (said, raised, crowd.core(1).statistics().pauses) != (paused, paused, paused):
            return f"stopped {stopped_s} s: {said} reports, incarnation {raised} higher"
    crowd.run_for(1.0)
    crowd.pause(1)
    crowd.run_for(2.0)
    crowd.resume(1)
    raised = crowd.core(1).me.identity.incarnation - before
    if (len(reports(crowd, 1, "paused")), raised) != (2, 1):
        return f"the second pause within ten seconds raises it to {raised}"
    crowd.run_for(9.0)
    crowd.pause(1)
    crowd.run_for(2.0)
    crowd.resume(1)
    raised = crowd.core(1).me.identity.incarnation - before
    if raised != 2:
        return f"the third pause, after ten seconds, raises it to {raised}"
    return (
        "" if 0.0 < crowd.core(1).statistics().own_lag_s <= 2.0 else f"{crowd.core(1).statistics().own_lag_s}"
    )


def whatever_comes_first() -> str:
    """Whatever input is the first after a stop, the stop is noticed before it is acted on."""
    for name, arguments in (
        ("probe", ("f" * 16,)), ("heard", ("f" * 16,)), ("evidence", ("f" * 16,)), ("forget", ("f" * 16,)),
        ("met_twin", (LESSER,)), ("publish_load", (LoadRecord(""),)), ("announce", ("it", b"")), ("join", ((),)),
        ("update_me", ()), ("receive", (b"", LESSER)), ("tick", ()), ("leave", ()),
    ):  # fmt: skip
        crowd = lone(3)
        crowd.pause(1)
        crowd.run_for(5.0)
        crowd[1].paused = False
        crowd.call(1, name, *arguments)
        if len(reports(crowd, 1, "paused")) != (name != "leave" or 1):
            return f"`{name}` comes first, and nobody notices"
    crowd = lone(3)
    crowd.pause(1)
    crowd.run_for(5.0)
    crowd[1].paused = False
    crowd._carry_out(crowd[1], crowd.core(1).ask_unlike(crowd[1].now(crowd.time))[1])
    return "" if reports(crowd, 1, "paused") else "`ask_unlike` comes first, and nobody notices"


def after_a_pause_all_is_asked() -> str:
    """Who was stopped takes its turn, gossips and asks its suspects at the moment at which it goes on."""
    crowd = lone(6)
    after_echo(crowd, 1, 0.01)
    for gone in (4, 5, 6):
        crowd.crash(gone)
        told(crowd, 1, 2, attrs.evolve(row(crowd, 1, gone), liveness=SUSPECT), crowd.node(2))
    crowd.run_for(0.3)
    crowd.pause(1)
    crowd.run_for(3.0)
    wire = Wire(crowd)
    crowd.resume(1)
    at = crowd.time
    crowd.run_for(TRIP_S)
    pinged = [said.to for said in wire.of(Ping, by=1) if close(said.at, at)]
    gossip = [said for said in wire.of(Gossip, by=1) if close(said.at, at)]
    if not {4, 5, 6} <= set(pinged) or not gossip:
        return f"it asks {pinged}, and gossips to {len(gossip)}"
    about = {u.member.node for said in gossip for u in said.packet.updates}
    return "" if crowd.node(1) in about else "it does not say that it lives"


def observers_look_on() -> str:
    """An observer is no member, says nothing of anybody, accuses and buries nobody, and sees all."""
    crowd = even(4)
    crowd.start(5, [1, 2], swim=attrs.evolve(LOCAL, observer=True))
    wire = Wire(crowd)
    crowd.run_for(4.0)
    crowd.crash(4)
    crowd.run_for(8.0)
    if any(crowd.sees(index, 5) is not None for index in (1, 2, 3)) or crowd.sees(5, 4) is not DEAD:
        return f"it is seen, or does not see: {crowd.sees(1, 5)}, {crowd.sees(5, 4)}"
    updates = [u for one in wire.of(by=5) for u in one.packet.updates]
    said = [u for u in updates if u.member.liveness is not ALIVE or u.accusers]
    deaths = reports(crowd, 5, "member_dead")
    return "" if not said and not deaths and crowd.core(5).live == 3 else f"it says {said[:3]}, {deaths}"


def strangers_lives() -> str:
    """An account of far too late a life is not believed, of us or of others, and is counted."""
    crowd = lone(4)
    for subject in (1, 3):
        account = crowd.core(1).me if subject == 1 else row(crowd, 1, subject)
        far = attrs.evolve(account, identity=Identity(account.node, account.identity.generation + 2**20 + 1))
        say(crowd, 1, Gossip(crowd.node(2)), far)
    now = (crowd.core(1).me.identity.generation, row(crowd, 1, 3).identity.generation)
    if now != (1, 1) or crowd.core(1).statistics().implausible != 2:
        return f"lives {now}, {crowd.core(1).statistics().implausible} implausible"
    return ""


SELVES = (
    twins_wait_by_age_and_address, twin_that_answers, later_lives_are_topped, doubts_are_refuted,
    foreign_words_are_topped, seen_elsewhere, seen_by_liars, seen_by_those_who_doubt, goodbye_is_said_once, own_facts,
    waiting_counts_as_age, short_stops_are_borne, after_a_pause_all_is_asked, observers_look_on,
    strangers_lives, whatever_comes_first,
)  # fmt: skip
"""All of them."""

"""This node's own account: what it says of itself, and what it does about what others say of it.

Theory of operation. Only the subject raises its incarnation, so whatever this node hears of itself is judged
against what it has said:

    heard of us                                   answer
    no more than we have said, but doubtful       repeat ourselves, unless that is under way
    a doubt above what we have said               refute: a higher incarnation
    a later life, dead or alive, at our address   an old life of ours, of which we kept no record: jump above it
    "alive", in words that we never used,         jump above it once a second at most; the second time, ask at that
    with another address                          address whether somebody answers by our id

Whoever answers there is a second process with our key. One of the two must end: the one that began just now, or
else the one with the greater address. As neither knows how old the other is, each waits out its time and
asks again; who finds itself alone by then goes on.

    age            address    waits
    under NEW_S    greater    0 s
    under NEW_S    lesser     3 s
    older          greater    10 s
    older          lesser     for ever: the other ends

A link to somebody who says our id counts as that second time: a clone whose only seed is its twin hears no rumours.

A rumour, or a greeting, alone ends nobody: somebody has to answer with our nonce. Our own ping coming home (a second
name of our own address) shows that it is us.

Addresses. A peer that cannot reach us at the address that we give, but is reached by us from another, says
so (`Seen`). When SEEN_BY such peers agree while we are doubted, that is our address from now on: a NAT has
rebound us. One liar cannot move us.
"""

import enum
import random

import attrs

from mesh.agenda import Agenda
from mesh.cases import witnesses_needed
from mesh.detector import Say
from mesh.effects import Address, KeepGeneration, Stop
from mesh.health import Announcements, LocalHealth
from mesh.identity import Identity
from mesh.member import Liveness, Member
from mesh.members import Members
from mesh.messages import Ack, Message, Ping, Seen
from mesh.now import Now
from mesh.swim_options import SwimOptions
from mesh.swim_statistics import Tally
from mesh.views import Views
from mesh.voice import Voice

NEW_S = 60.0
"""A process younger than this is the newcomer where two share an id."""
WAITS_S = {(True, True): 0.0, (True, False): 3.0, (False, True): 10.0}
"""By (new, greater address); not in the table: for ever."""
PROOF_S = 2.0
"""So long an answer to the question "who else bears our id?" counts."""
JUMP_S = 1.0
"""Least time between two jumps above another life, so that two processes with one id do not race."""
SEEN_BY = 3
"""Peers that must agree on another address of ours, or all of them if there are fewer."""
WEAK_S, WEAK_S_PER_MEMBER, WEAK_S_PER_PAIR = 5.0, 5.0, 0.05
"""How long fewer may accuse us than make a suspect before we answer aloud (`patience_s`). Who is of an older version,
or was alone with us when its one word was enough, holds us suspect meanwhile."""
DOUBTED_S = 30.0
"""So long after a doubt our own address may be in question."""


class MyselfTimer(enum.Enum):
    """Agenda key: time to ask whether somebody else bears our id."""

    PROVE = "prove"


class Myself:
    """The account of this node, in the table like any other, and its defence."""

    def __init__(
        self,
        me: str,
        options: SwimOptions,
        members: Members,
        views: Views,
        voice: Voice,
        health: LocalHealth,
        agenda: Agenda,
        rng: random.Random,
        tally: Tally,
    ) -> None:
        self._node = me
        self._options = options
        self._members = members
        self._views = views
        self._voice = voice
        self._health = health
        self._agenda = agenda
        self._rng = rng
        self._tally = tally
        self._announcements = Announcements()
        self._began_at = 0.0
        self._jumped_at: float | None = None
        self._doubted_at: float | None = None
        self._weakly_since: float | None = None
        self._rival: Address | None = None
        self._nonce: int | None = None
        self._asked_at = 0.0
        self._seen: dict[str, Address] = {}

    @property
    def account(self) -> Member:
        """What we say of ourselves."""
        me = self._members.get(self._node)
        assert me is not None, "a table always holds its owner"
        return me

    def begin(self, now: Now) -> None:
        """The first input of all has come."""
        self._began_at = now.mono

    def say(self, now: Now, me: Member) -> None:
        """Publish an account that stands above the present one."""
        before = self.account
        if me.identity.generation != before.identity.generation:
            self._voice.ask(KeepGeneration(me.identity.generation))
        self._members.apply(me, now.mono)
        self._views.note(now, before, me)
        self._voice.spread(now, me)

    def speak_up(self, now: Now) -> None:
        """Publish the same with a higher incarnation: we live. Withheld while we have said so lately."""
        if not self._announcements.take(now.mono, self._members.live):
            return
        self.say(now, attrs.evolve(self.account, identity=self.account.identity.above()))

    # What others say of us.

    def hear(self, now: Now, rumour: Member, accusers: int) -> None:
        """Answer what is said of us, by so many, if it needs an answer."""
        me = self.account
        is_later = rumour.identity.generation > me.identity.generation
        if is_later or _is_foreign(me, rumour):
            self._clash(now, rumour)
        elif self._is_weak(now, rumour, accusers):
            self._doubted_at = now.mono
        elif rumour.precedence > me.precedence:
            self.say(now, attrs.evolve(me, identity=me.identity.above(rumour.identity)))
            if rumour.liveness is not Liveness.ALIVE:
                self._refuted(now, rumour)
        elif rumour.liveness is not Liveness.ALIVE and not self._voice.is_spreading(self._node):
            self._voice.spread(now, me)

    def _is_weak(self, now: Now, rumour: Member, accusers: int) -> bool:
        """Whether it is a doubt that our answers to pings settle; one that goes on for long is answered aloud."""
        needed = witnesses_needed(self._options, self._members.live)
        if rumour.liveness is not Liveness.SUSPECT or accusers >= needed:
            return False
        wait_s = patience_s(self._members.live)
        since = self._weakly_since
        if since is None or now.mono - since > 2 * wait_s:
            self._weakly_since = since = now.mono
        if now.mono - since < wait_s:
            return True
        self._weakly_since = None
        return False

    def _refuted(self, now: Now, rumour: Member) -> None:
        self._doubted_at = now.mono
        self._tally.refutations += 1
        self._health.refuted()
        incarnation = self.account.identity.incarnation
        self._voice.report("refuted", rumour=rumour.liveness.name.lower(), incarnation=incarnation)

    # Other lives of our id.

    def _clash(self, now: Now, rumour: Member) -> None:
        again = self._jumped_at is not None
        if self._jumped_at is None or now.mono - self._jumped_at >= JUMP_S:
            self._jumped_at = now.mono
            generation = max(rumour.identity.generation, self.account.identity.generation)
            identity = Identity(self._node, generation).next_life()
            self.say(now, attrs.evolve(self.account, identity=identity))
            self._voice.report("generation_raised", generation=identity.generation)
        if again and rumour.liveness is Liveness.ALIVE and rumour.address != self.account.address:
            self._contest(now, rumour.address)

    def met(self, now: Now, rival: Address) -> None:
        """Who greeted us on a link says our id, from another process that takes datagrams at `rival`."""
        self._contest(now, rival)

    def _contest(self, now: Now, rival: Address) -> None:
        """Somebody else may bear our id: ask, when our time to wait is over."""
        if MyselfTimer.PROVE in self._agenda:
            return
        self._tally.clashes += 1
        self._rival = rival
        self._voice.report("identity_clash", node=self._node, address="{}:{}".format(*rival))
        is_new = now.mono - self._began_at < NEW_S
        wait_s = WAITS_S.get((is_new, self.account.address > rival))
        if wait_s is not None:
            self._agenda.set(MyselfTimer.PROVE, now.mono + wait_s)

    def prove_due(self, now: Now) -> None:
        """Ask at the rival's address who bears our id there."""
        assert self._rival is not None, "only a contest sets the timer"
        self._nonce, self._asked_at = self._rng.getrandbits(48), now.mono
        self._voice.say(now, Say(self._rival, Ping(self._node, self._nonce, self._node), self._node))

    def mirrored(self, now: Now, message: Message, source: Address) -> None:
        """A packet came from our own id."""
        is_ours = self._nonce is not None and getattr(message, "nonce", None) == self._nonce
        match message:
            case Ping() if is_ours:
                self._nonce = None
            case Ping() if message.target == self._node:
                ack = Ack(self._node, message.nonce, self._members.digest())
                self._voice.say(now, Say(source, ack, self._node))
            case Ack() if is_ours and now.mono - self._asked_at <= PROOF_S:
                self._nonce = None
                self._voice.ask(
                    Stop(f"`{self._node}`, the id of this node, is also used at {source[0]}:{source[1]}")
                )
            case _:
                self._tally.misplaced += 1

    # Where others see us.

    def seen(self, now: Now, seen: Seen) -> None:
        """A peer sees us at another address than we give: take it, or ask others what they see."""
        doubted = self._doubted_at is not None and now.mono - self._doubted_at <= DOUBTED_S
        row = self._members.get(seen.source)
        if not doubted or row is None or not row.is_live or seen.address == self.account.address:
            return
        self._seen[seen.source] = seen.address
        agreeing = sum(address == seen.address for address in self._seen.values())
        needed = min(SEEN_BY, self._members.live - 1)
        if agreeing >= needed:
            self._move(now, seen.address)
            return
        for peer in self._members.sample(needed - agreeing, tuple(self._seen)):
            self._voice.say(
                now, Say(peer.address, Ping(self._node, self._rng.getrandbits(48), peer.node), peer.node)
            )

    def _move(self, now: Now, address: Address) -> None:
        self._seen.clear()
        self._voice.report("address_changed", address="{}:{}".format(*address))
        me = self.account
        self.say(now, attrs.evolve(me, address=address, identity=me.identity.above()))


def patience_s(live: int) -> float:
    """How long one of so many members bears weak accusations: small meshes can afford to answer soon.

    If all are accused for ever, answers come once in five seconds in a large mesh, and 20 / `live` times a second in
    one of ten to a hundred: two rumours a second at most, as when two nodes flap.
    """
    return min(WEAK_S_PER_MEMBER * live, max(WEAK_S, WEAK_S_PER_PAIR * live * live))


def _is_foreign(me: Member, rumour: Member) -> bool:
    """Whether it claims to be our own word, and is not. Peers of older versions may leave out facts."""
    if rumour.liveness is not Liveness.ALIVE:
        return False
    same_place = rumour.precedence == me.precedence and rumour.address != me.address
    return rumour.precedence > me.precedence or same_place

"""The knobs of `mesh.swim`: each with its unit, what it does, and what turning it costs."""

import attrs

from mesh.trust import TrustOptions

DAY_S = 86_400.0
FOREVER_S = 1e9
MEMBERLIST_RETRANSMITS = 2.45
"""ceil(2.45 * ln 129) = 12 = 4 * ceil(log10 129): memberlist's limit at the paper's 128 members."""


@attrs.frozen
class SwimOptions:
    """Defaults are for one data centre (`lan`). Durations in seconds."""

    probe_period_s: float = 1.0
    """One member is probed per period, stretched by local health. A member is first probed by
    somebody after 1.58 periods in the mean (SWIM section 3.1), whatever the size of the mesh.
    Shorter: sooner detection; packets and bytes grow as 1 / period."""
    shared_probing: bool = True
    """Whether all nodes follow one timetable by the wall clock (`mesh.rota`), so that each member is
    probed exactly once a period; else each goes round for itself. Costs the same packets. Clocks
    that differ by more than a period bring back about the tail of the round robin."""
    probe_timeout_min_s: float = 0.02
    """Least patience for a direct answer. Lower: helpers and TCP are bothered for mere jitter."""
    probe_timeout_initial_s: float = 0.2
    """Patience with a peer while no round trip at all has been measured; later, what is typical of all."""
    probe_timeout_max_s: float = 1.0
    """Greatest patience for a direct answer. Bounds a round on a terrible path."""
    verdict_min_s: float = 0.5
    """Least length of a round: verdict = max(this, verdict_timeouts * timeout, 4 * lag), stretched by
    local health. Shorter: sooner quarantine; a busy peer is quarantined in error, which costs
    only that router a detour until one ack."""
    verdict_timeouts: float = 4.0
    """A round lasts at least so many direct timeouts: one direct, and a relayed ask, ping, ack, ack.
    0 leaves `verdict_min_s` alone to decide, as memberlist does (a round is one period long)."""
    helpers: int = 3
    """Members asked to probe indirectly (SWIM's k). At 5 % loss, 3 leave 1e-3 false rounds."""
    lag_max_s: float = 1.0
    """Most of a peer's advertised lag that counts, so that none can make itself immortal."""
    observer: bool = False
    """Whether this node only looks on: it sees every member and probes for itself, but is no member, so
    nobody probes or counts it, and says nothing of anybody, so it cannot accuse. Costs the mesh an ack a period."""
    mesh_name: str = ""
    """Name of the mesh, to which clear packets with accounts are bound; empty where the seal does that already.
    Costs 10 bytes in such a packet; without it, two meshes of which one gets an address of the other mix."""
    gossip_period_s: float = 0.2
    """While rumours wait, so often `gossip_fanout` members are sent some. Costs nothing when idle."""
    gossip_fanout: int = 3
    """Members per gossip round. More: faster spread, more packets per rumour."""
    gossip_to_suspects: bool = False
    """Whether gossip rounds may choose suspects too, as memberlist's do. Off: every packet goes to
    who probably hears it; the suspect is told by the pings of those who doubt it."""
    retransmit_factor: float = 3.0
    """Each rumour is sent ceil(factor * ln(n + 1)) times by each node (SWIM's lambda): at 3, about
    n^-4 of the members miss it, whom the digest then finds."""
    suspicion_factor: float = 4.0
    """Least suspicion = factor * max(1, log10 n) * period (Lifeguard's alpha; memberlist ships 4).
    Lower: sooner death, less time to refute."""
    suspicion_max_factor: float = 6.0
    """Greatest suspicion = this * least (Lifeguard's beta). What one lone accuser must wait."""
    confirmations: int = 3
    """Independent accusers beyond the first that bring the timeout to its least (Lifeguard's K);
    at most n - 2 are expected."""
    health_max: int = 8
    """Greatest local health score: timeouts and period stretch up to this + 1 (Lifeguard's S); 0
    switches local health off. More: a sick node is slower to accuse, and slower to detect."""
    health_counts_nacks: bool = False
    """Whether each missing nack adds one to the score, as in memberlist, or a failed round one at most.
    On: a mass failure, whose dead are helpers too, makes the healthy slow to notice the rest."""
    nacks: bool = True
    """Whether helpers that get no answer say so (Lifeguard section IV-A). One packet per indirect probe that
    fails; without it a failed round cannot tell a dead target from our own deafness."""
    buddy: bool = True
    """Whether a ping tells its target that it is suspect (Lifeguard section IV-C). About 40 bytes on pings to
    suspects; without it the suspect must wait for gossip before it can refute."""
    coordinates: bool = False
    """Whether this node keeps a network coordinate (`mesh.coordinates`), from which the round trip between any two
    that do is estimated, and so the first patience with peers never measured. Costs 46 bytes a ping, and an ack."""
    two_verdicts: bool = True
    """Whether quarantine is a verdict of its own, and death needs a failed round, or a lost link, of our
    own. Off: SWIM's and Lifeguard's law, where anybody's rumour of death is believed and a timeout
    alone kills. On: each suspicion costs each node one round of its own."""
    loss_scaling: bool = True
    """Whether rounds, last looks and suspicion grow with the loss that this node measures (`mesh.loss`).
    Off: at 30 % loss and more the living are declared dead."""
    witnesses: int = 3
    """With `two_verdicts`: so many must have had a failed round of their own, this node among them, before it holds
    a member suspect and tells it so; all others, where they are fewer. Until then one answer ends the doubt, and who
    hears of it passes it on only when its own ping is late. 0 makes a suspect of whom anybody accuses, as in
    SWIM: each false accusation then costs every node a rumour, a case and a refutation."""
    control_echo: bool = True
    """Whether a node may declare nobody dead unless pings of its own to others are answered just before and
    just after its last look at the suspect (`mesh.inquest`). Costs three pings per death and node. Off: a
    node whose packets are held up buries whom it cannot hear."""
    accusations_per_window: int = 4
    """Accusations by one member that are acted on in `accusation_window_s` (`mesh.credit`); 0 acts on all. One
    that another accuser can pay for, or a failed round of our own confirms, is acted on in any case. On, say
    8: a broken node that accuses everybody costs less, and who alone sees several crashes waits for others."""
    accusation_window_s: float = 10.0
    """In this time an accuser's budget is whole again. Longer: broken accusers cost less."""
    alone_s: float = 60.0
    """Who has heard nobody for so long takes itself for the only one left. Shorter: a survivor of many
    simultaneous crashes is sooner free of them; a node that is cut off sooner forgets the others, and
    must learn them anew. Nobody else hears of it."""
    trust: TrustOptions = TrustOptions()
    """What flapping costs a peer in routing."""
    traffic_counts: bool = True
    """Whether anything that a member sends saves it from a failed round, or an ack alone, as in SWIM."""
    pause_tolerance_s: float = 1.0
    """A tick later than this means that this process was paused: it blames itself, not its peers.
    About two verdicts. Lower: an overloaded loop keeps forgiving and detects nothing."""
    heal_period_s: float = 2.0
    """So often one remembered dead member is pinged and one unknown seed is asked to let us in:
    this * max(1, live / 8), which keeps the cost to the whole mesh constant. Bounds how long a
    partition outlives its cause."""
    sync_periods: float = 4.0
    """A view digest must differ for this many periods * max(1, log10 n) before whole tables are
    compared: gossip gets its chance first. Lower: needless snapshots while rumours are under way."""
    sync_armed_max: int = 4
    """Peers with differing digests that are watched at once; bounds the snapshots sent after a storm."""
    reconcile_period_s: float = 0.5
    """While there is more to learn than gossip can carry (a join, a healed partition), one exchange is
    opened so often. n rows reach n nodes in about log3(n) of these. Costs nothing when calm."""
    reconcile_bytes_per_s: float = 524_288.0
    """Most that is spent on exchanges and snapshots, payload bytes per second; a second's worth is kept in
    reserve. A table of 10,000 members is about 1 MB. Lower: large meshes form and heal more slowly."""
    metadata_bytes_per_s: float = 524_288.0
    """Most that is asked for of other members' metadata, and as much that is given of what is held, bytes per second; a
    second's worth, or one value of 64 KiB, is kept in reserve. Costs nothing where nobody publishes any."""
    remember_gone_s: float = 7 * DAY_S
    """Dead and left members are remembered for so long, unless room is needed."""
    join_retry_min_s: float = 0.5
    """First wait before asking the seeds again; doubles each time, jittered by half either way."""
    join_retry_max_s: float = 15.0
    """Longest wait before asking the seeds again. A late seed is noticed within this."""
    members_max: int = 16_384
    """Accounts kept. Beyond, the longest dead make room, then newcomers are refused and counted."""
    relays_max: int = 256
    """Indirect probes carried out for others at once; further requests are dropped and counted."""
    load_budget_bytes: int = 400
    """Most bytes of load records on one packet, unless a single one is larger. More: fresher load,
    larger packets. Rumours of members go first in any case."""
    load_retransmit_factor: float = 1.0
    """Each load record is passed on at most ceil(factor * ln(n + 1)) times by each node. At 1, about
    one node in a hundred misses it and has it after its next probe of the owner; more: repeats."""
    leave_fanout: int = 32
    """Members told directly by one who leaves; gossip tells the rest."""

    @classmethod
    def plain_swim(cls, alpha: float = 5.0) -> "SwimOptions":
        """SWIM as memberlist ran it for the Lifeguard paper (arXiv 1707.00788, section V): its baseline.

        Probe period 1 s, timeout 500 ms, a round as long as the period, k = 3, a shuffled round robin of
        each node's own, TCP beside the indirect probes, gossip to 3 members each 200 ms, 12 sends of a
        rumour at n = 128 (memberlist: 4 * ceil(log10(n + 1))). A suspect has alpha * log10(n) seconds,
        whoever and however many accuse it. Nothing of ours is on: no shared timetable, no measured timeouts,
        no verdict of our own, no digest, no care for pauses. The healing ping takes the place of memberlist's
        gossip to the lately dead; full-state exchange (every 90 s at n = 128) is left out.

        Args:
            alpha: the suspicion multiplier. Lower: sooner death, more false ones.

        """
        return cls(
            probe_period_s=1.0,
            shared_probing=False,
            probe_timeout_min_s=0.5,
            probe_timeout_initial_s=0.5,
            probe_timeout_max_s=0.5,
            verdict_min_s=1.0,
            verdict_timeouts=0.0,
            lag_max_s=0.0,
            gossip_period_s=0.2,
            gossip_fanout=3,
            gossip_to_suspects=True,
            retransmit_factor=MEMBERLIST_RETRANSMITS,
            suspicion_factor=alpha,
            suspicion_max_factor=1.0,
            confirmations=0,
            health_max=0,
            nacks=False,
            buddy=False,
            two_verdicts=False,
            loss_scaling=False,
            traffic_counts=False,
            pause_tolerance_s=FOREVER_S,
            sync_armed_max=0,
        )

    @classmethod
    def lha_probe(cls, alpha: float = 5.0) -> "SwimOptions":
        """Lifeguard's first part alone (Tables IV and V, "LHA-Probe"): local health, with nacks."""
        return attrs.evolve(cls.plain_swim(alpha), health_max=8, health_counts_nacks=True, nacks=True)

    @classmethod
    def lha_suspicion(cls, alpha: float = 5.0, beta: float = 6.0) -> "SwimOptions":
        """Lifeguard's second part alone ("LHA-Suspicion"): timeouts that shrink with each accuser, K = 3."""
        return attrs.evolve(cls.plain_swim(alpha), suspicion_max_factor=beta, confirmations=3)

    @classmethod
    def buddy_system(cls, alpha: float = 5.0) -> "SwimOptions":
        """Lifeguard's third part alone ("Buddy System"): a ping tells a suspect that it is one."""
        return attrs.evolve(cls.plain_swim(alpha), buddy=True)

    @classmethod
    def lifeguard(cls, alpha: float = 5.0, beta: float = 6.0) -> "SwimOptions":
        """Lifeguard whole, as the paper ran it inside memberlist: all three parts on top of `plain_swim`.

        Args:
            alpha: least suspicion = alpha * log10(n) periods. The paper's tables IV and V use 5.
            beta: greatest suspicion = beta * least: what a lone accuser must wait. Higher: fewer false
                deaths by sick nodes, slower ones where few can accuse.

        """
        parts = attrs.evolve(cls.lha_probe(alpha), suspicion_max_factor=beta, confirmations=3)
        return attrs.evolve(parts, buddy=True)

    @classmethod
    def local(cls) -> "SwimOptions":
        """One machine or one rack: an idle crash is dead everywhere in about 2.5 s."""
        return cls(
            probe_period_s=0.5,
            probe_timeout_initial_s=0.1,
            probe_timeout_max_s=0.5,
            verdict_min_s=0.2,
            gossip_period_s=0.05,
            suspicion_factor=1.0,
            pause_tolerance_s=0.4,
            heal_period_s=1.0,
            reconcile_period_s=0.25,
            join_retry_min_s=0.25,
            join_retry_max_s=5.0,
        )

    @classmethod
    def lan(cls) -> "SwimOptions":
        """One data centre: an idle crash is dead everywhere in about 2.5 s, at 128 nodes."""
        return cls(
            probe_period_s=0.5,
            verdict_min_s=0.3,
            gossip_period_s=0.1,
            suspicion_factor=0.8,
            pause_tolerance_s=0.6,
        )

    @classmethod
    def wan(cls) -> "SwimOptions":
        """Across continents, or over links that lose a few per cent."""
        return cls(
            probe_period_s=3.0,
            probe_timeout_min_s=0.1,
            probe_timeout_initial_s=1.0,
            probe_timeout_max_s=3.0,
            verdict_min_s=2.0,
            gossip_period_s=0.5,
            gossip_fanout=4,
            pause_tolerance_s=4.0,
            alone_s=180.0,
            heal_period_s=5.0,
            reconcile_period_s=1.0,
            reconcile_bytes_per_s=131_072.0,
            metadata_bytes_per_s=131_072.0,
            join_retry_min_s=1.0,
            join_retry_max_s=60.0,
        )

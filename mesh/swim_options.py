"""The knobs of `mesh.swim`: each with its unit, what it does, and what turning it costs."""

import attrs

DAY_S = 86_400.0


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
    """Patience with a peer whose round trip has not been measured."""
    probe_timeout_max_s: float = 1.0
    """Greatest patience for a direct answer. Bounds a round on a terrible path."""
    verdict_min_s: float = 0.5
    """Least length of a round: verdict = max(this, 4 * timeout, 4 * the peer's advertised lag),
    stretched by local health. Shorter: sooner quarantine; a busy peer is quarantined in error,
    which costs only that router a detour until one ack."""
    helpers: int = 3
    """Members asked to probe indirectly (SWIM's k). At 5 % loss, 3 leave 1e-3 false rounds."""
    lag_max_s: float = 1.0
    """Most of a peer's advertised lag that counts, so that none can make itself immortal."""
    gossip_period_s: float = 0.2
    """While rumours wait, so often `gossip_fanout` members are sent some. Costs nothing when idle."""
    gossip_fanout: int = 3
    """Members per gossip round. More: faster spread, more packets per rumour."""
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
    """Greatest local health score: timeouts and period stretch up to this + 1 (Lifeguard's S)."""
    pause_tolerance_s: float = 1.0
    """A tick later than this means that this process was paused: it blames itself, not its peers.
    About two verdicts. Lower: an overloaded loop keeps forgiving and detects nothing."""
    silence_s: float = 3.0
    """Who has heard nobody for so long declares nobody dead, meshes of two apart. About three
    periods. Longer: a node that is cut off buries some of its peers before it notices."""
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
            silence_s=1.5,
            heal_period_s=1.0,
            reconcile_period_s=0.25,
            join_retry_min_s=0.25,
            join_retry_max_s=5.0,
        )

    @classmethod
    def lan(cls) -> "SwimOptions":
        """One data centre."""
        return cls()

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
            silence_s=10.0,
            heal_period_s=5.0,
            reconcile_period_s=1.0,
            reconcile_bytes_per_s=131_072.0,
            join_retry_min_s=1.0,
            join_retry_max_s=60.0,
        )

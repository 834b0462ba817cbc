"""What a membership core counts, and the snapshot that metrics are built from."""

import attrs

from mesh.detector import Detector
from mesh.member import Liveness
from mesh.members import Members


@attrs.define
class Tally:
    """Counters since the core began; see `SwimStatistics` for what each means."""

    packets_received: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    decode_errors: int = 0
    unknown_items: int = 0
    misplaced: int = 0
    suspicions: int = 0
    deaths: int = 0
    refutations: int = 0
    goodbyes_refuted: int = 0
    accusations_dropped: int = 0
    accusations_settled: int = 0
    input_lost: int = 0
    quarantines: int = 0
    pauses: int = 0
    syncs: int = 0
    implausible: int = 0
    clashes: int = 0
    foreign: int = 0
    events_announced: int = 0
    events_heard: int = 0
    events_late: int = 0
    events_stale: int = 0
    events_unknown: int = 0
    events_unspread: int = 0
    metadata_asks: int = 0
    metadata_taken: int = 0
    metadata_retries: int = 0
    metadata_refused: int = 0
    metadata_lacking: int = 0
    metadata_unheld: int = 0
    rows_reconciled: int = 0
    reconciles_capped: int = 0


@attrs.frozen
class SwimStatistics:
    """What the core has done since it began, and how things stand. Counters unless said otherwise."""

    members: dict[str, int]
    """Gauge: accounts by liveness, this node's own included."""
    quarantined: tuple[str, ...]
    """Gauge: node ids that this node does not trust to answer."""
    digest: str
    """Gauge: fingerprint of the live view, hex; equal on all nodes when the mesh is still."""
    health: int
    """Gauge: local health score, 0 is well."""
    rumours: int
    """Gauge: rumours waiting to be spread."""
    lag_s: float
    """Gauge: how late the last input found this process, seconds past the earliest deadline."""
    packets_received: int
    bytes_received: int
    """Payload bytes, datagrams and reliable packets together."""
    packets_sent: int
    bytes_sent: int
    decode_errors: int
    """Packets dropped because they mean nothing."""
    unknown_items: int
    """Items of later versions, skipped."""
    misplaced: int
    """Packets not answered: for another node, from our own id, or on the wrong transport."""
    suspicions: int
    """Cases opened, on our own finding or on another's."""
    deaths: int
    """Members that this node declared dead."""
    refutations: int
    """Doubts about ourselves answered with a higher incarnation."""
    goodbyes_refuted: int
    """Goodbyes told by others whose subjects answered: somebody lies, or is mistaken."""
    accusations_dropped: int
    """Accusations not acted on, because their accusers had accused too many others."""
    accusations_settled: int
    """Accusations not looked into, because their subjects had answered this node since."""
    input_lost: int
    """Datagrams to this node that its own machine dropped, as far as it was told."""
    quarantines: int
    pauses: int
    """Pauses of this process that it noticed and forgave."""
    syncs: int
    """Exchanges opened to compare tables."""
    implausible: int
    """Accounts not believed: too many lives above the last known one."""
    clashes: int
    """Times that another process seemed to use our id."""
    foreign: int
    """Clear packets of a mesh of another name, refused whole."""
    events_announced: int
    """User events that began here."""
    events_heard: int
    """User events delivered here, own ones included."""
    events_late: int
    """Of those, delivered behind their place in the order."""
    events_stale: int
    """User events not delivered: too far behind their author's newest, or of an earlier life."""
    events_unknown: int
    """Copies of user events whose author's life is not known here (yet)."""
    events_unspread: int
    """User events delivered but not passed on: too many wait."""
    coordinates_refused: int
    """Coordinates of others that were none or beyond their bounds; 0 where none are kept."""
    metadata_bytes: int
    """Gauge: metadata of members that are held here, this node's own included."""
    metadata_missing: int
    """Gauge: metadata that members publish and that are not here (yet)."""
    metadata_asks: int
    """Times that a peer was asked for metadata."""
    metadata_taken: int
    """Metadata of others that came, and whose digest was right."""
    metadata_retries: int
    """Metadata that a peer that was asked did not give, and that another is asked for."""
    metadata_refused: int
    """Pieces of metadata that nobody had asked for, or whose digest was wrong."""
    metadata_lacking: int
    """Metadata that a peer asked for and this node did not hold, or had no budget left to send."""
    metadata_unheld: int
    """Times that metadata was not asked for because there is no room for it."""
    rows_reconciled: int
    """Accounts sent because two tables differed there."""
    reconciles_capped: int
    """Answers not sent, or cut down to hints, because the budget of bytes was spent."""
    loss: float
    """Gauge: share of pings to trusted members that get no answer in time, 0 to 1."""
    own_lag_s: float
    """Gauge: how late this process runs its timers, of late: its patience with others grows with it."""
    rounds_started: int
    """Probe rounds."""
    rounds_failed: int
    relays_refused: int
    """Indirect probes not carried out for others, because too many were."""
    members_refused: int
    """Newcomers refused because the table was full of live members."""
    rumour_age: dict[str, int]
    """Rumours that were news here, by their age then: cumulative, by upper end of the bucket in seconds."""


def statistics_of(
    members: Members,
    detector: Detector,
    metadata: tuple[int, int],
    rumours: int,
    rumour_age: dict[str, int],
    lag_s: float,
    tally: Tally,
) -> SwimStatistics:
    """Gather the snapshot; `metadata` are bytes held and values missing. O(n)."""
    coordinates = detector.round_trips.coordinates
    counts = {liveness.name.lower(): 0 for liveness in Liveness}
    for row in members.all():
        counts[row.liveness.name.lower()] += 1
    return SwimStatistics(
        members=counts,
        quarantined=detector.quarantined,
        digest=members.digest().hex(),
        health=detector.health.score,
        rumours=rumours,
        lag_s=lag_s,
        loss=round(detector.loss.share, 4),
        own_lag_s=detector.own_lag_s,
        rounds_started=detector.rounds_started,
        rounds_failed=detector.rounds_failed,
        relays_refused=detector.relays_refused,
        members_refused=members.refused,
        rumour_age=rumour_age,
        coordinates_refused=coordinates.refused if coordinates is not None else 0,
        metadata_bytes=metadata[0],
        metadata_missing=metadata[1],
        **attrs.asdict(tally),
    )

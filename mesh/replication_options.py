"""The knobs of `mesh.replication`, and what it counts."""

import attrs

from mesh.horizon import HorizonOptions
from mesh.records import BYTES_MAX, ROWS_MAX


@attrs.frozen
class ReplicationOptions:
    """Durations in seconds. All nodes of a mesh should have the same."""

    gossip_period_s: float = 0.2
    """While news waits, so often `gossip_fanout` members are sent some. Costs nothing when idle."""
    gossip_fanout: int = 3
    """Members per round. More: faster spread, more packets per write."""
    retransmit_factor: float = 3.0
    """Each node passes a row on ceil(factor * ln(n + 1)) times; at 3 about n^-4 of the members miss it,
    whom the comparison of tables finds (SWIM, section 4.1)."""
    exchange_period_s: float = 5.0
    """So often a node shows its digest to one member at random, jittered by a quarter; a table that is
    empty, six times less often. What gossip missed is there after about one period; each costs 90
    bytes on the wire when all is well."""
    bytes_per_s: float = 128 * 1024
    """Most bytes of records that a node sends, on average. What is over is put off to the next exchange."""
    burst_bytes: float = 2 * 2**20
    """... and at once: a newcomer gets a table of this size without waiting."""
    rows_max: int = ROWS_MAX
    bytes_max: int = BYTES_MAX
    horizon: HorizonOptions = HorizonOptions()


@attrs.define
class Tally:
    """Counters since the core began; see `ReplicationStatistics` for what each means."""

    packets_received: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    decode_errors: int = 0
    strangers: int = 0
    foreign: int = 0
    floors_refused: int = 0
    rows_taken: int = 0
    rows_ahead: int = 0
    rows_below: int = 0
    rows_unread: int = 0
    rows_full: int = 0
    rows_lost: int = 0
    exchanges: int = 0
    agreements: int = 0
    collected: int = 0
    put_off: int = 0


@attrs.frozen
class ReplicationStatistics:
    """What the core has done since it began, and how things stand. Counters unless said otherwise."""

    rows: int
    """Gauge: rows held, tombstones included."""
    tombstones: int
    """Gauge."""
    bytes: int
    """Gauge: encoded size of all rows."""
    floor_ms: int
    """Gauge: tombstones from before this wall time are gone."""
    digest: str
    """Gauge: fingerprint of the table, hex; equal on all nodes when the mesh is still."""
    news: int
    """Gauge: rows that wait to be gossiped."""
    packets_received: int
    bytes_received: int
    packets_sent: int
    bytes_sent: int
    decode_errors: int
    """Packets dropped because they mean nothing."""
    strangers: int
    """Packets dropped because their sender is no live member."""
    foreign: int
    """Packets dropped because their sender's table has another history."""
    floors_refused: int
    """Packets dropped because their sender claims to know what is less than a horizon old."""
    rows_taken: int
    """Rows of others that replaced less."""
    rows_ahead: int
    """Rows refused because their stamp is more than a minute ahead of the clock."""
    rows_below: int
    """Rows refused because they lie below the floor: deleted, or too late."""
    rows_unread: int
    """Rows refused because they mean nothing."""
    rows_full: int
    """Rows refused because the table is full."""
    rows_lost: int
    """Live rows of ours that gave way to another's floor: we were away for longer than the horizon."""
    exchanges: int
    """Digests of others that differed and were answered."""
    agreements: int
    """Digests of others that were equal."""
    collected: int
    """Tombstones that are gone."""
    put_off: int
    """Packets not sent because the byte budget was spent."""

"""The share of a processor that gossip may take, and what is shed first when it would take more.

Processor time is measured by the shell and spent here; what came in but would overdraw the share
is dropped, the least valuable first: strangers while there is any debt, rumours when it grows, and
probes and their answers last, so that a flood cannot make this node look dead while there is a
cheaper thing to drop. Overflow: dropped and counted, like any datagram that a network loses.
"""

import enum

import attrs

from mesh.bucket import Bucket

SHARE = 0.1
"""Seconds of processor time per second. An idle member takes 0.001, a reunion of thousands bursts."""
BURST_S = 1.0
"""Saved up at most: ten seconds' share, for joins and reunions."""
SMALL_BYTES = 256
"""A datagram of at most so many bytes is a probe, or an answer to one, with little riding on it."""


class Worth(enum.IntEnum):
    """What a datagram is worth before it is opened, the least first."""

    STRANGER = 0
    """Of no session that we know."""
    BULK = 1
    """Long: rumours and load."""
    VITAL = 2
    """Short, of a member."""


FLOOR_S = {Worth.STRANGER: 0.0, Worth.BULK: -0.1, Worth.VITAL: -0.2}
"""How deep in debt each is still heard, in seconds of processor time."""


@attrs.define
class Share:
    """The account of one node. Times in seconds."""

    _bucket: Bucket = attrs.field(init=False, factory=lambda: Bucket(SHARE, BURST_S))

    def admits(self, mono: float, worth: Worth) -> bool:
        """Whether a datagram of that worth may be handled now."""
        return self._bucket.fill(mono) >= FLOOR_S[worth]

    def spend(self, processor_s: float) -> None:
        """So much processor time was taken."""
        self._bucket.spend(processor_s)

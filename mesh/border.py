"""Meshes of different names that meet in the clear: an address that passed on, a mistyped seed.

A sealed packet is bound to the name of its mesh by its seal (`mesh.seal`). A clear one that carries accounts, or
asks to be let in, carries 4 bytes of a hash of the name; whose differ is refused whole, and counted. What carries no
accounts cannot mix two meshes, so it pays nothing. Packets without the mark, of older versions, are taken.
"""

import functools
import hashlib

from mesh import codec
from mesh.effects import Address
from mesh.messages import Gossip, Join, MeshMark, Packet
from mesh.now import Now
from mesh.swim_statistics import Tally
from mesh.voice import Voice

REPORT_S = 30.0
"""Least time between two reports of strangers, in seconds."""


@functools.lru_cache(maxsize=16)
def mark_of(mesh_name: str) -> MeshMark | None:
    """Return by what packets of a mesh are known; None if its name is not to be told."""
    if not mesh_name:
        return None
    digest = hashlib.blake2b(mesh_name.encode(), digest_size=codec.MARK_BYTES, person=b"inferno-mesh")
    return MeshMark(digest.digest())


class Border:
    """Tells packets of our mesh from those of another."""

    def __init__(self, me: str, mesh_name: str, voice: Voice, tally: Tally) -> None:
        self._me = me
        self._mark = mark_of(mesh_name)
        self._voice = voice
        self._tally = tally
        self._reported_at: float | None = None
        voice.mark = (codec.item(self._mark),) if self._mark is not None else ()

    def refuses(self, now: Now, packet: Packet, source: Address, reliable: bool) -> bool:
        """Whether a packet is of another mesh. Who asks by a link to be let in is told our mark, and so why not."""
        if self._mark is None or not packet.marks or self._mark in packet.marks:
            return False
        self._tally.foreign += 1
        self._report(now, source)
        if isinstance(packet.message, Join) and reliable:
            self._voice.say_rows(now, source, Gossip(self._me), ())
        return True

    def _report(self, now: Now, source: Address) -> None:
        if self._reported_at is None or now.mono - self._reported_at >= REPORT_S:
            self._reported_at = now.mono
            self._voice.report("other_mesh", address="{}:{}".format(*source))

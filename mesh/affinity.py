"""The home of a prefix: the worker that most likely has it in its cache, as long as that one is not too busy.

Each key orders all workers by a hash of both (rendezvous: Thaler and Ravishankar, IEEE/ACM ToN 1998), the same
order at every entry from the list of workers alone; when a worker goes, only its keys move, each to its next one.
The first in that order with room takes the request (bounded loads: Mirrokni, Thorup and Zadimoghaddam, SODA 2018).
Speeds differ sixtyfold, so room is measured in time, not in requests:

    wait there + cost / speed there  <=  (1 + spread) * mean wait + (1 + room) * cost / mean speed

A slow worker is thus no home to what others would end much sooner, and a prefix that everybody asks for
overflows to its second worker, then its third, and not to everybody.
"""

import hashlib

from mesh.route import Candidate, RouteOptions, expected_wait_s, speed_of

OPTIONS = RouteOptions()


def rank(key: bytes, node: str) -> bytes:
    """Return the worth of a worker as home of a key; the greatest is the first. Pure, equal on every machine."""
    return hashlib.blake2b(node.encode(), digest_size=8, key=key).digest()


def home_of(
    key: bytes, cost_tokens: int, pool: list[Candidate], options: RouteOptions = OPTIONS
) -> Candidate | None:
    """Return the first worker in the key's order that has room, or None if none has. O(pool)."""
    if not pool:
        return None
    waits = {c.node: expected_wait_s(c, options) for c in pool}
    speed = sum(speed_of(c, options) for c in pool) / len(pool)
    bound_s = (1 + options.affinity_spread) * sum(waits.values()) / len(pool)
    bound_s += (1 + options.affinity_room) * cost_tokens / speed
    roomy = (c for c in pool if waits[c.node] + cost_tokens / speed_of(c, options) <= bound_s)
    return max(roomy, key=lambda c: rank(key, c.node), default=None)

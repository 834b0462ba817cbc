"""Streams of random numbers, one for each place where chance acts.

Each node and each path between two nodes draws from a stream of its own, derived
from the run's one seed and the place's name, so that one more draw in one place
does not reshuffle all others. Paths are many (n squared), so theirs are
splitmix64 (Steele, Lea, Flood 2014), whose state is one integer; nodes get a
`random.Random`, which is what the cores ask for.
"""

import hashlib
import random

import attrs

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def seed_of(seed: int, *names: object) -> int:
    """Return 64 bits that depend on the run's seed and on every name, the same in every process."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def random_of(seed: int, *names: object) -> random.Random:
    """Return a generator for one place."""
    return random.Random(seed_of(seed, *names))


@attrs.define
class Stream:
    """A small stream of uniform numbers."""

    state: int

    def random(self) -> float:
        """Return a number of [0, 1) with 53 random bits."""
        self.state = value = (self.state + GAMMA) & MASK
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
        return ((value ^ value >> 31) >> 11) * 2.0**-53

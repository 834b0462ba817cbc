"""Seeds: 64 bits each, drawn by the entry or given by the client, one per choice."""

import os

U64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the increment of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""


def draw() -> int:
    """Draw a seed for a client that named none."""
    return int.from_bytes(os.urandom(8), "little")


def choice_seed(seed: int, choice: int) -> int:
    """Return H(seed, choice): the seed itself for choice 0, the choice-th output of SplitMix64 for the others.

    So a request with `n` of 1 equals the first choice of the same request with a larger `n`.
    """
    if choice == 0:
        return seed
    z = (seed + choice * GOLDEN) & U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)

"""A text's embedding: what is kept of its last hidden states, and what leaves the engine.

`last` is the state of the last token, `mean` the mean over all; both after the model's last norm, scaled to
length one. The mean is summed token by token from the first in float64, so its bits do not depend on how the
prompt was cut into steps. Sums and states travel as bytes: float64 between steps, float32 on the wire.
"""

import math
from array import array

KINDS = ("last", "mean")


def embedding_of(kind: str, state: bytes, tokens: int) -> bytes:
    """The embedding from a sum or a state: little-endian float32 of length one; all zero if the state is."""
    values = array("d", state)
    divisor = tokens if kind == "mean" else 1
    length = math.sqrt(math.fsum((value / divisor) ** 2 for value in values)) * divisor
    return array("f", [value / length if length else 0.0 for value in values]).tobytes()

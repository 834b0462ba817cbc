"""The tensor side of embeddings: a step's hidden states become the sums and states that `node.engine.pool` reads."""

import torch
from torch import Tensor

from node.engine.plan import NotFinite, Row, Sampled, yields


def pooled(rows: list[Row], normed: dict[int, Tensor]) -> list[Sampled]:
    """What the rows with `pooling` yield. normed: by sequence, its rows' states after the last norm, [tokens, width].

    Raises NotFinite for a sequence whose states are not.
    """
    return [Sampled(row.sequence, 0, vector=_state(row, normed[row.sequence])) for row in rows if yields(row)]


def _state(row: Row, states: Tensor) -> bytes:
    states = states.double()
    if row.pooling == "last":
        states = states[-1:]
    elif row.carry:
        before = torch.frombuffer(bytearray(row.carry), dtype=torch.float64)
        states = torch.cat((before.unsqueeze(0), states))
    total = states.cumsum(0)[-1]  # one after the other, whatever the step's size
    if not bool(total.isfinite().all()):
        raise NotFinite(row.sequence)
    return total.numpy().tobytes()

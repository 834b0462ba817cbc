"""Tokens chosen on the device, each a pure function of its row, its `Sampling` and its position.

The device takes the largest of logits / temperature + noise (or of the logits, if greedy), the lowest id among
equals: `node.engine.sampler` for rows that are neither filtered nor penalised nor asked for log-probabilities.
Those that are go to `node.engine.sampler` itself, on the host. Which of the two a row takes depends on its own
`Sampling` alone, so that its tokens do not depend on its company.
"""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from kernels.sample import gumbel
from node.engine.plan import NotFinite, Row, Sampled, Sampling
from node.engine.sampler import TEMPERATURE_MIN, filters, sample, shapes

Gumbel = Callable[[Tensor, int], Tensor]


def chosen_on_device(row: Row) -> bool:
    """Whether `choose` can serve a row."""
    return not (filters(row.sampling) or shapes(row) or row.sampling.logprobs is not None)


def drawn(sampling: Sampling) -> bool:
    """Whether a row needs noise."""
    return sampling.temperature >= TEMPERATURE_MIN


def choose(logits: Tensor, temperature: Tensor, keys: Tensor | None, gumbel: Gumbel) -> tuple[Tensor, Tensor]:
    """logits: [rows, vocabulary] fp32, temperature: [rows] fp32, keys: [rows] int64 or none if all are greedy.

    Returns (score, id), each [rows], on the logits' device, without waiting for it.
    """
    if keys is None:
        return logits.max(-1)
    draws = (temperature >= TEMPERATURE_MIN).unsqueeze(-1)
    divisor = torch.where(draws, temperature.unsqueeze(-1), 1.0)
    noise = gumbel(keys, logits.shape[-1])
    return torch.where(draws, logits / divisor + noise, logits).max(-1)


@attrs.frozen(eq=False)
class Chosen:
    """One step's choices on their way to the host."""

    rows: tuple[Row, ...]
    """Those that are sampled, in the plan's order."""
    scores: Tensor
    """[rows] fp32 on the host, once `copied` has happened."""
    ids: Tensor
    """[rows] int64, likewise."""
    logits: Tensor
    """Of the rows that are chosen on the host, in their order, likewise."""
    copied: torch.cuda.Event | None

    def read(self) -> tuple[Sampled, ...]:
        """Wait for the copies, choose what is left to choose. `NotFinite` as in `node.engine.sampler`."""
        if self.copied is not None:
            self.copied.synchronize()
        mine = [row for row in self.rows if not chosen_on_device(row)]
        theirs = {one.sequence: one for one in sample(self.logits, mine, gumbel)} if mine else {}
        triples = zip(self.rows, self.ids.tolist(), self.scores.tolist(), strict=True)
        return tuple(theirs.get(row.sequence) or _sampled(row, token, score) for row, token, score in triples)


def _sampled(row: Row, token: int, score: float) -> Sampled:
    if not -float("inf") < score < float("inf"):
        raise NotFinite(row.sequence)
    return Sampled(row.sequence, token)


def fetch(tensor: Tensor) -> Tensor:
    """A copy in host memory that is filled when the device comes to it."""
    out = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return out.copy_(tensor, non_blocking=True)


def host_rows(rows: Sequence[Row]) -> list[int]:
    """Indices of the rows that are chosen on the host."""
    return [index for index, row in enumerate(rows) if not chosen_on_device(row)]

"""From plans to `kernels.choose`, which chooses tokens on the device, and back.

A row's temperature and filters are numbers, and travel with the step's other inputs. Penalties, bias and bans
need a table over the vocabulary for their row, and so do grammars; it is made on the host for each step that
has such a row, and those steps choose outside the recording, as do steps that report log-probabilities. What
`kernels.choose` does not know (typical sampling, the scores of a prompt) is left to `node.engine.sampler`, on
the host. Which way a row takes depends on its own wishes alone, so its tokens do not depend on its company.
"""

import math
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from kernels.choose import NONE, PROMPT, Control, Controls
from kernels.likeliest import Choice, sample_triton
from kernels.sample import draw_key, gumbel
from node.engine.plan import NotFinite, Row, Sampled, Sampling
from node.engine.sampler import TEMPERATURE_MIN, sample, shapes


def plain(row: Row) -> bool:
    """Whether a row's wishes are numbers only, and nothing is reported."""
    return not shapes(row) and row.sampling.logprobs is None and not on_host(row)


def on_host(row: Row) -> bool:
    """Whether a row's token is chosen on the host, from its logits."""
    return row.sampling.typical_p < 1.0 or row.target is not None


def temperature_of(sampling: Sampling) -> float:
    """The temperature as the kernels read it: 0 is greedy."""
    return sampling.temperature if sampling.temperature >= TEMPERATURE_MIN else 0.0


def floor_of(sampling: Sampling) -> float:
    """min_p's floor under the largest score."""
    return math.log(sampling.min_p) if sampling.min_p > 0.0 else -math.inf


def controls_of(rows: Sequence[Row], vocabulary: int, device: torch.device) -> Controls:
    """Any rows' wishes on the device, with a table for each that needs one."""
    shaped = [row for row in rows if shapes(row)]
    slots = iter(range(len(shaped)))
    wishes = [_wish(row, next(slots) if shapes(row) else NONE) for row in rows]
    if not shaped:
        return Controls.of(wishes, device)
    seen = torch.from_numpy(np.stack([_marks(row, vocabulary) for row in shaped]))
    bias = torch.from_numpy(np.stack([_biases(row, vocabulary) for row in shaped]))
    return Controls.of(wishes, device, seen.to(device), bias.to(device))


def _wish(row: Row, slot: int) -> Control:
    sampling = row.sampling
    return Control(
        key=draw_key(sampling.seed, row.start + len(row.ids)),
        temperature=temperature_of(sampling),
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition=sampling.repetition_penalty,
        frequency=sampling.frequency_penalty,
        presence=sampling.presence_penalty,
        seen=slot,
        bias=slot,
    )


def _marks(row: Row, vocabulary: int) -> np.ndarray:
    """[vocabulary] int32: how often each token was produced, and whether the prompt has it."""
    marks = np.bincount(np.asarray(row.produced, dtype=np.int64), minlength=vocabulary).astype(np.int32)
    marks[np.unique(np.asarray(row.prompt, dtype=np.int64))] += PROMPT
    return marks


def _biases(row: Row, vocabulary: int) -> np.ndarray:
    """[vocabulary] fp32; bans, and what a grammar does not allow, are minus infinity."""
    biases = np.zeros(vocabulary, dtype=np.float32)
    for token, bias in row.sampling.logit_bias:
        biases[token] += bias
    biases[list(row.sampling.banned)] = -np.inf
    if row.allowed is not None:
        bits = np.unpackbits(np.frombuffer(row.allowed, dtype=np.uint8), bitorder="little")[:vocabulary]
        biases[len(bits) :] = -np.inf
        biases[: len(bits)][bits == 0] = -np.inf
    return biases


def choose(logits: Tensor, controls: Controls, rows: Sequence[Row]) -> Choice:
    """Choose a token for each row, and report what rows ask for, without waiting for the device."""
    asked = [row.sampling.logprobs for row in rows if row.sampling.logprobs is not None]
    return sample_triton(logits, controls, min(max(asked), logits.shape[1]) if asked else None)


def fetch(tensor: Tensor) -> Tensor:
    """A copy in host memory that is filled when the device comes to it."""
    out = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return out.copy_(tensor, non_blocking=True)


@attrs.frozen(eq=False)
class Chosen:
    """One step's choices on their way to the host: filled when `copied` has happened."""

    rows: tuple[Row, ...]
    """Those that are sampled, in the plan's order."""
    ids: Tensor
    """[rows] int64"""
    best: Tensor
    """[rows] fp32"""
    report: tuple[Tensor, Tensor] | None = None
    """Likeliest ids and log-probabilities, as in `kernels.likeliest.Choice`; none if no row asks."""
    copied: torch.cuda.Event | None = None
    theirs: Tensor | None = None
    """Logits of the rows that are chosen on the host, in their order, fp32."""

    def read(self) -> tuple[Sampled, ...]:
        """Wait for the copies. `NotFinite` for the first row whose every score is unusable."""
        if self.copied is not None:
            self.copied.synchronize()
        mine = [row for row in self.rows if on_host(row)]
        theirs = iter(sample(self.theirs, mine, gumbel) if mine else ())
        triples = enumerate(zip(self.rows, self.ids.tolist(), self.best.tolist(), strict=True))
        return tuple(
            next(theirs) if on_host(triple[0]) else self._sampled(i, *triple) for i, triple in triples
        )

    def _sampled(self, index: int, row: Row, token: int, score: float) -> Sampled:
        if not math.isfinite(score):
            raise NotFinite(row.sequence)
        count = row.sampling.logprobs
        if count is None:
            return Sampled(row.sequence, token)
        likeliest, logprobs = (part[index].tolist() for part in self.report)
        top = zip(likeliest[:count], logprobs[1 : 1 + count], strict=False)
        return Sampled(row.sequence, token, logprobs[0], tuple(top))

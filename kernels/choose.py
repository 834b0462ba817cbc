"""From logits to a token, on a device: what each control does, and in which order.

    x = logits in fp32;  x = x / r if x > 0 else x * r     for tokens seen in prompt or output (repetition)
    x = x - (count * f + a)                                 for produced tokens (frequency, presence)
    x = x + bias, and minus infinity where the bias is      (logit bias, bans)
    s = x / temperature                                     (greedy takes the largest x here, and is done)
    kept = the k tokens of highest s; of those the least prefix whose share of the mass e^s reaches p; of
           those the ones with s >= max s + log(min_p)
    token = argmax over kept of s + g, g the keyed noise of `kernels.sample`

Among equal values the lowest id comes first, everywhere. What is done to one token alone is done in fp32 by
IEEE operations in this order, so that any two machines agree in every bit; sums of masses are wider. A NaN
logit counts as plus infinity, so a damaged row wins with a score that is not finite: `best` says so.

The order is that of `node.engine.sampler`, which does the same for a CPU, and a test holds them together.
logits: [rows, vocabulary], float, rows may have gaps; the controls are tensors on the same device, one row each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from kernels._triton import check, check_dense
from kernels.op import Case, Op, normal
from kernels.sample import gumbel_reference

PROMPT = 1 << 30
"""The bit of a mark that says: the token occurs in the prompt. The bits below count it in the output."""
NONE = -1
"""A slot that a row has not."""


@attrs.frozen
class Control:
    """One row's wishes, as numbers. Validated elsewhere; `Controls.of` trusts them."""

    key: int
    """The draw's, by `kernels.sample.draw_key`."""
    temperature: float = 1.0
    """0 is greedy, and then no filter applies."""
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    seen: int = NONE
    """Which row of the marks is this one's."""
    bias: int = NONE
    """Which row of the biases is this one's."""


@attrs.frozen(eq=False)
class Controls:
    """A batch's wishes on a device. Its tensors may be written in place between launches of a graph."""

    keys: Tensor
    """[rows] int64"""
    knobs: Tensor
    """[rows, 5] fp32: temperature, repetition, frequency, presence, log(min_p) (minus infinity for none)."""
    top_k: Tensor
    """[rows] int32; 0 keeps all"""
    top_p: Tensor
    """[rows] fp64; 1 keeps all"""
    slots: Tensor
    """[rows, 2] int32: rows of `seen` and `bias`, `NONE` for none."""
    seen: Tensor | None = None
    """[slots, vocabulary] int32: how often each token was produced, plus `PROMPT` if the prompt has it. A
    runner adds one where a token was chosen; no list of ids travels."""
    bias: Tensor | None = None
    """[slots, vocabulary] fp32; minus infinity bans."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Control],
        device: str | torch.device,
        seen: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Controls:
        """Gather rows; numbers are rounded to fp32 once, here."""
        floors = [math.log(row.min_p) if row.min_p > 0.0 else -math.inf for row in rows]
        knobs = [
            (row.temperature, row.repetition, row.frequency, row.presence, floor)
            for row, floor in zip(rows, floors, strict=True)
        ]
        return cls(
            keys=torch.tensor([row.key for row in rows], dtype=torch.int64, device=device),
            knobs=torch.tensor(knobs, dtype=torch.float32, device=device).view(len(rows), 5),
            top_k=torch.tensor([row.top_k for row in rows], dtype=torch.int32, device=device),
            top_p=torch.tensor([row.top_p for row in rows], dtype=torch.float64, device=device),
            slots=torch.tensor([(row.seen, row.bias) for row in rows], dtype=torch.int32, device=device).view(
                len(rows), 2
            ),
            seen=seen,
            bias=bias,
        )

    def check(self, rows: int, vocabulary: int) -> None:
        """Raise ValueError, the caller's mistake, unless every tensor fits the logits and is dense."""
        expected = {
            "keys": (torch.int64, (rows,)),
            "knobs": (torch.float32, (rows, 5)),
            "top_k": (torch.int32, (rows,)),
            "top_p": (torch.float64, (rows,)),
            "slots": (torch.int32, (rows, 2)),
            "seen": (torch.int32, (None, vocabulary)),
            "bias": (torch.float32, (None, vocabulary)),
        }
        for name, (dtype, shape) in expected.items():
            tensor = getattr(self, name)
            if tensor is not None:
                check(name, tensor, dtype, shape=shape)
                check_dense(name, tensor, tensor.dim())


def choose_reference(logits: Tensor, controls: Controls) -> Tensor:
    """The specification: ids [rows] int64, row by row, by a stable sort and masses in double."""
    ids = [_chosen(logits[row], controls, row) for row in range(len(logits))]
    return torch.tensor(ids, dtype=torch.int64)


def _chosen(logits: Tensor, controls: Controls, row: int) -> int:
    temperature, *_, floor = controls.knobs[row]
    x = _shaped(logits.float(), controls, row)
    if temperature == 0:
        return int(x.argmax())
    scores = x / temperature
    kept = _kept(scores, int(controls.top_k[row]), float(controls.top_p[row]))
    kept = kept[scores[kept] >= scores.max() + floor]
    noise = gumbel_reference(controls.keys[row : row + 1], len(scores))[0]
    drawn = (scores + noise)[kept]
    return int(kept[drawn == drawn.max()].min())


def _shaped(x: Tensor, controls: Controls, row: int) -> Tensor:
    """Penalties, bias and bans, in fp32. x: [vocabulary]."""
    x = x.masked_fill(x.isnan(), torch.inf)
    _, repetition, frequency, presence, _ = controls.knobs[row]
    seen, bias = controls.slots[row].tolist()
    if seen != NONE:
        marks = controls.seen[seen]
        x = torch.where(marks != 0, torch.where(x > 0, x / repetition, x * repetition), x)
        counts = marks % PROMPT
        x = torch.where(counts > 0, x - (counts.float() * frequency + presence), x)
    if bias != NONE:
        added = controls.bias[bias]
        x = torch.where(added == -torch.inf, -torch.inf, x + added)
    return x


def _kept(scores: Tensor, top_k: int, top_p: float) -> Tensor:
    """Ids that top-k and then top-p leave, best first."""
    order = scores.sort(descending=True, stable=True).indices
    if 0 < top_k < len(scores):
        order = order[:top_k]
    if top_p < 1.0:
        mass = torch.softmax(scores[order].double(), -1).cumsum(-1)
        order = order[: int((mass < top_p).sum()) + 1]
    return order


def case(name: str, vocabulary: int, *rows: Control, steps: float = 0.0, tables: bool = False) -> Case:
    """Logits with heavy tails, in multiples of `steps` if it is given (many ties), and rows with gaps."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Controls]:
        logits = normal(generator, torch.float32, len(rows), vocabulary + 3)
        if steps:
            logits = (logits.clamp(-8, 8) / steps).round() * steps
        seen, bias = _tables(generator, vocabulary) if tables else (None, None)
        keys = torch.randint(-(2**62), 2**62, (len(rows),), generator=generator).tolist()
        keyed = [attrs.evolve(row, key=key) for row, key in zip(rows, keys, strict=True)]
        return logits.to(dtype)[:, :vocabulary], Controls.of(keyed, "cpu", seen, bias)

    return Case(name, make)


def _tables(generator: torch.Generator, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Two rows of marks, some produced and some in the prompt, and two of biases, some of them bans."""
    drawn = torch.rand(4, vocabulary, generator=generator)
    seen = (drawn[:2] < 0.3).to(torch.int32) * (drawn[:2] * 10).to(torch.int32)
    seen = seen + (drawn[:2] > 0.8).to(torch.int32) * PROMPT
    bias = torch.where(drawn[2:] < 0.2, drawn[2:] * 40 - 4, torch.where(drawn[2:] > 0.9, -torch.inf, 0.0))
    return seen, bias


def odd_values(_generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Controls]:
    """Minus infinity for most, all equal, and both zeros."""
    logits = torch.full((6, 1300), -torch.inf, dtype=dtype)
    logits[:, 1100:1110] = torch.arange(10).to(dtype)
    logits[2:4] = 0.5
    logits[4:] = torch.tensor([0.0, -0.0], dtype=dtype).repeat(650)
    wishes = (Control(5, top_k=40), Control(6, top_p=0.45), Control(7, top_k=700, top_p=0.45))
    return logits, Controls.of((*wishes, *wishes), "cpu")


_WISHES = (
    Control(0, temperature=0.0, top_k=3),
    Control(0),
    Control(0, temperature=0.7, top_k=1),
    Control(0, temperature=1.3, top_k=7),
    Control(0, top_p=0.83),
    Control(0, top_p=1e-9),
    Control(0, min_p=0.07),
    Control(0, min_p=1.0),
    Control(0, temperature=0.9, top_k=20, top_p=0.73, min_p=0.02),
)
_LEARNED = tuple(
    attrs.evolve(
        wish, repetition=1.3, frequency=0.4, presence=-0.3, seen=i % 3 - 1, bias=i % 2 - (i % 5 == 0)
    )
    for i, wish in enumerate(_WISHES)
)

OP = Op(
    name="choose",
    reference=choose_reference,
    implementations={},
    cases=(
        case("one row", 300, Control(0, top_k=30, top_p=0.9)),
        case("one token", 1, *_WISHES),
        case("odd vocabulary", 97, *_WISHES),
        case("many ties", 1500, *_WISHES, steps=1.0),
        case("penalties, biases and bans", 1200, *_LEARNED, tables=True),
        case("k of all but one, and of all", 1030, *(Control(0, top_k=k, top_p=0.6) for k in (1029, 1030))),
        case("a hot row", 2600, *(Control(0, 2.0, top_k=k, top_p=p) for k in (5, 2000) for p in (0.3, 0.99))),
        Case("infinities, equals and zeros", odd_values),
        case("no rows", 64),
    ),
    exact=True,
)

"""How fast an engine computes, measured over its recent steps.

Tokens and seconds are summed apart and fade together, so that a large chunk counts
for more than a prompt of ten tokens, whose step is mostly overhead. They fade by the
time that was computed, not by the step: five steps of a millisecond say little. A speed
is said only when there is enough behind it; until then it is 0, which is `unknown`.
"""

import attrs

from node.engine.plan import Plan

HALF_LIFE_S = 0.5
"""Seconds of computing after which a step counts half."""

FADE = 0.8
"""What is kept of the past at each step at least: of steps longer than the half-life, about five count."""

EVIDENCE_STEPS, EVIDENCE_S = 4, 0.05
"""A speed is unknown before it has been measured in so many steps, or for so long: the first of a request, or the
only one of a short one, may take a tenth or ten times of what others take."""


def prefill_tokens(plan: Plan) -> int:
    """Return the step's tokens that belong to chunks; rows that yield one token from one are decode."""
    return sum(len(row.ids) for row in plan.rows if len(row.ids) - row.drafts > 1 or not row.sample)


def decode_rows(plan: Plan) -> int:
    """Return how many rows yield one token from one."""
    return sum(len(row.ids) - row.drafts == 1 and row.sample for row in plan.rows)


def is_full(plan: Plan) -> bool:
    """Whether a prompt was cut because the step had no room left for the rest of it."""
    return any(not row.sample for row in plan.rows) and all(row.scored is None for row in plan.rows)


@attrs.define
class Rate:
    """Tokens per second, fading."""

    tokens: float = 0.0
    seconds: float = 0.0
    steps: int = 0

    def add(self, tokens: int, seconds: float) -> None:
        """Take what a step did."""
        kept = max(FADE, 0.5 ** (seconds / HALF_LIFE_S))
        self.tokens = kept * self.tokens + tokens
        self.seconds = kept * self.seconds + seconds
        self.steps += 1

    @property
    def per_s(self) -> float:
        """The rate; 0 until it is known."""
        known = self.steps >= EVIDENCE_STEPS or self.seconds >= EVIDENCE_S
        return self.tokens / self.seconds if known and self.seconds > 0 else 0.0


@attrs.define
class Speed:
    """An engine's two speeds, all sequences together."""

    prefill: Rate = attrs.Factory(Rate)
    decode: Rate = attrs.Factory(Rate)
    full: Rate = attrs.Factory(Rate)
    """Prefill in steps that had no room left, where it is fastest: short prompts are mostly overhead."""
    decode_step_s: float = 0.0
    """How long the last step took in which all sequences decoded; 0 before the first."""

    def observe(self, plan: Plan, elapsed_s: float, held: int = 0) -> None:
        """Take a step's duration, and how many of its guesses held: they were said too.

        In a mixed step decoding is charged what it last took alone.
        """
        prefill, decode = prefill_tokens(plan), decode_rows(plan)
        if not prefill:
            self.decode_step_s = elapsed_s
            self.decode.add(decode + held, elapsed_s)
            return
        charged = min(self.decode_step_s, 0.75 * elapsed_s) if decode else 0.0
        self.prefill.add(prefill, elapsed_s - charged)
        if is_full(plan):
            self.full.add(prefill, elapsed_s - charged)

    @property
    def prefill_at_best_per_s(self) -> float:
        """What no prompt is faster than, by several full steps; 0 until they have been seen."""
        return self.full.per_s if self.full.steps >= EVIDENCE_STEPS else 0.0

"""How fast an engine computes, measured over its recent steps.

Tokens and seconds are summed apart and fade together, so that a large chunk counts
for more than a prompt of ten tokens, whose step is mostly overhead.
"""

import attrs

from node.engine.plan import Plan

FADE = 0.8
"""What is kept of the past at each step: about the last five count."""


def prefill_tokens(plan: Plan) -> int:
    """Return the step's tokens that belong to chunks; rows that yield one token from one are decode."""
    return sum(len(row.ids) for row in plan.rows if len(row.ids) - row.drafts > 1 or not row.sample)


def decode_rows(plan: Plan) -> int:
    """Return how many rows yield one token from one."""
    return sum(len(row.ids) - row.drafts == 1 and row.sample for row in plan.rows)


@attrs.define
class Rate:
    """Tokens per second, fading."""

    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Take what a step did."""
        self.tokens = FADE * self.tokens + tokens
        self.seconds = FADE * self.seconds + seconds

    @property
    def per_s(self) -> float:
        """The rate; 0 before the first step."""
        return self.tokens / self.seconds if self.seconds else 0.0


@attrs.define
class Speed:
    """An engine's two speeds, all sequences together."""

    prefill: Rate = attrs.Factory(Rate)
    decode: Rate = attrs.Factory(Rate)
    _decode_step_s: float = 0.0

    def observe(self, plan: Plan, elapsed_s: float) -> None:
        """Take a step's duration. In a mixed step decoding is charged what it last took alone."""
        prefill, decode = prefill_tokens(plan), decode_rows(plan)
        if not prefill:
            self._decode_step_s = elapsed_s
            self.decode.add(decode, elapsed_s)
            return
        charged = min(self._decode_step_s, 0.75 * elapsed_s) if decode else 0.0
        self.prefill.add(prefill, elapsed_s - charged)

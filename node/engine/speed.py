"""How fast an engine computes, measured over its recent steps."""

import attrs

from node.engine.plan import Plan

SMOOTHING = 0.2
"""Weight of the newest step: about the last ten count."""


def prefill_tokens(plan: Plan) -> int:
    """Return the step's tokens that belong to chunks; rows that yield one token from one are decode."""
    return sum(len(row.ids) for row in plan.rows if len(row.ids) > 1 or not row.sample)


@attrs.define
class Speed:
    """Running means. 0 before the first measurement."""

    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    """All sequences together."""
    _decode_step_s: float = 0.0

    def observe(self, plan: Plan, elapsed_s: float) -> None:
        """Take a step's duration. In a mixed step decoding is charged what it last took alone."""
        if elapsed_s <= 0:
            return
        prefill = prefill_tokens(plan)
        decode = len(plan.rows)
        if not prefill:
            self._decode_step_s = elapsed_s
            self.decode_tokens_per_s = _mean(self.decode_tokens_per_s, decode / elapsed_s)
            return
        rest = elapsed_s - (self._decode_step_s if decode > 1 else 0.0)
        self.prefill_tokens_per_s = _mean(self.prefill_tokens_per_s, prefill / max(rest, elapsed_s / 4))


def _mean(old: float, new: float) -> float:
    return new if not old else old + SMOOTHING * (new - old)

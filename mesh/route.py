"""Which worker to ask: confirmed least expected wait.

A pure function of what this entry knows. Figures are aged at every hop, so the
router knows how old each is. Speeds differ sixtyfold in real meshes, so work is
measured in seconds, not requests:

    expected wait = (queued tokens + tokens sent there since the figure) / measured speed

Fresh figures rank the candidates; among nearly equal ones chance decides, so that
entries with the same view do not stampede. Stale figures are worse than random
(Mitzenmacher 2000; Dahlin 2000), so beyond `fresh_s` only what this entry sent there itself
counts. The choice is
*confirmed*: Open is answered accept or reject by the worker, which knows its true
load, so a wrong guess costs a round trip, never a request.
"""

import random

import attrs


@attrs.frozen
class Candidate:
    """A worker that could serve one model, as the entry sees it."""

    node: str
    local: bool = False
    digest: str = ""
    policy: str = ""
    queued_tokens: int = 0
    """Tokens still to be computed there, by its own word."""
    running: int = 0
    tokens_per_s: float = 0.0
    """Measured decode speed, all sequences together; 0 if it has not run yet."""
    age_s: float = 0.0
    """How old that word is."""
    sent_tokens: int = 0
    """Tokens that this entry has sent there and not seen finished."""


@attrs.frozen
class Wanted:
    """What the flight needs of a worker."""

    digest: str = ""
    """Only this model digest will do; empty is any."""
    policy: str = ""
    """This numerical policy is preferred: the text then goes on to the byte."""
    declined: tuple[str, ...] = ()
    """Nodes that have just turned it down."""


@attrs.frozen
class RouteOptions:
    """Constants of the estimate."""

    fresh_s: float = 6.0
    """Figures older than this say nothing: about a service time of a long answer. Idle nodes confirm theirs
    every few seconds, busy ones tell each change."""
    speed_guess: float = 200.0
    """Tokens per second assumed of a worker that has not run yet."""
    near_ratio: float = 0.15
    """Waits within this ratio of each other are equal; chance decides."""
    local_bonus_s: float = 0.02
    """How much longer a remote wait must be to be worth a hop."""


def choose(
    candidates: tuple[Candidate, ...],
    wanted: Wanted,
    rng: random.Random,
    options: RouteOptions = RouteOptions(),
) -> Candidate | None:
    """Return the worker to ask next; None if nobody qualifies."""
    able = [c for c in candidates if _qualifies(c, wanted)]
    return min(able, key=lambda c: _rank(c, wanted, rng, options), default=None)


def expected_wait_s(candidate: Candidate, options: RouteOptions = RouteOptions()) -> float:
    """Seconds until the candidate would have worked off what it holds, by what is known here."""
    speed = candidate.tokens_per_s or options.speed_guess
    queued_tokens = candidate.queued_tokens if candidate.age_s <= options.fresh_s else 0
    waiting = max(queued_tokens, candidate.sent_tokens)
    wait_s = waiting / speed
    return wait_s if candidate.local else wait_s + options.local_bonus_s


def _qualifies(candidate: Candidate, wanted: Wanted) -> bool:
    if candidate.node in wanted.declined:
        return False
    return not wanted.digest or candidate.digest == wanted.digest


def _rank(
    candidate: Candidate, wanted: Wanted, rng: random.Random, options: RouteOptions
) -> tuple[bool, float, float]:
    other_policy = bool(wanted.policy) and candidate.policy != wanted.policy
    chance = rng.random()
    wait_s = expected_wait_s(candidate, options) * (1 + options.near_ratio * (chance - 0.5))
    return other_policy, wait_s, chance

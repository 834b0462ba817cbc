"""What routing weighs: a worker as an entry sees it, what a flight wants of one, and the expected wait.

Pure functions of what this entry knows; `mesh.router` chooses by them. Figures are aged at every hop, so the
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

import enum

import attrs


class Policy(enum.StrEnum):
    """By what a worker is chosen among those that qualify."""

    LEAST_WAIT = "least_wait"
    TWO_CHOICES = "two_choices"
    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"
    WEIGHTED = "weighted"
    LATENCY = "latency"
    ZONE_FIRST = "zone_first"


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
    sent_flights: int = 0
    """Flights of this entry that are there now."""
    zone: str = ""
    """Where the worker's operator says that it stands; empty if nobody said."""


@attrs.frozen
class Wanted:
    """What the flight needs of a worker."""

    digest: str = ""
    """Only this model digest will do; empty is any."""
    policy: str = ""
    """This numerical policy is preferred: the text then goes on to the byte."""
    declined: tuple[str, ...] = ()
    """Nodes that have just turned it down."""
    prefix: bytes = b""
    """Key of the prompt's home (`mesh.prefix`); empty is none."""
    cost_tokens: int = 0
    """Tokens that it is expected to cost whoever takes it."""


@attrs.frozen
class RouteOptions:
    """The policy, and constants of the estimate."""

    policy: Policy = Policy.LEAST_WAIT
    zone: str = ""
    """Where this entry stands, for `zone_first`."""
    zone_wait_s: float = 1.0
    """Workers of this entry's zone come first while their expected wait is below this."""
    fresh_s: float = 6.0
    """Figures older than this say nothing: about a service time of a long answer. Idle nodes confirm theirs
    every few seconds, busy ones tell each change."""
    speed_guess: float = 200.0
    """Tokens per second assumed of a worker that has not run yet."""
    near_ratio: float = 0.15
    """Waits within this ratio of each other are equal; chance decides."""
    local_bonus_s: float = 0.02
    """How much longer a remote wait must be to be worth a hop."""
    prefix_affinity: bool = True
    """Whether prompts with a common beginning go to one worker, by the policies that weigh waits."""
    affinity_spread: float = 0.25
    """How far above the mean wait a home's may be, as a share of it."""
    affinity_room: float = 4.0
    """How many requests like this one a home may hold beyond that."""
    latency_guess_s: float = 0.05
    """Time to a first token assumed of a worker that has not been asked yet."""
    latency_memory_s: float = 10.0
    """A worker's average counts half for every such time without a first token, so that it is asked again."""
    latency_share: float = 0.2
    """What the newest time to a first token counts in a worker's moving average of them."""


def expected_wait_s(candidate: Candidate, options: RouteOptions = RouteOptions()) -> float:
    """Seconds until the candidate would have worked off what it holds, by what is known here."""
    speed = speed_of(candidate, options)
    queued_tokens = candidate.queued_tokens if candidate.age_s <= options.fresh_s else 0
    waiting = max(queued_tokens, candidate.sent_tokens)
    wait_s = waiting / speed
    return wait_s if candidate.local else wait_s + options.local_bonus_s


def speed_of(candidate: Candidate, options: RouteOptions = RouteOptions()) -> float:
    """Tokens per second that the candidate computes, by its own measure; a guess if it has not run yet."""
    return candidate.tokens_per_s or options.speed_guess


def running_there(candidate: Candidate, options: RouteOptions = RouteOptions()) -> int:
    """Flights under way at the candidate: its own count while that is fresh, at least what was sent from here."""
    told = candidate.running if candidate.age_s <= options.fresh_s else 0
    return max(told, candidate.sent_flights)


def qualifies(candidate: Candidate, wanted: Wanted) -> bool:
    """Whether the candidate may be asked at all."""
    if candidate.node in wanted.declined:
        return False
    return not wanted.digest or candidate.digest == wanted.digest

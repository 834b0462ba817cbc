"""Who may keep a request for this entry, and how one that was kept goes on here."""

from mesh.attempt import Attempt
from mesh.claims import Claim
from mesh.custody import Finding
from mesh.effects import Effect
from mesh.facts import Fact
from mesh.forward import Forwarder
from mesh.now import Now
from mesh.swim import Swim
from node.errors import RequestError


def healthy(swim: Swim, me: str) -> list[str]:
    """Return the ids of the peers that this node trusts and that mean to stay."""
    rows = (row for row in swim.members() if row.is_live and not row.draining and row.node != me)
    return [row.node for row in rows if not swim.is_quarantined(row.node)]


def reopened(
    now: Now, forwarder: Forwarder, id: int, finding: Finding, attempts: list[Attempt]
) -> tuple[Claim, list[Effect | Fact]]:
    """Begin the flights of a request anew under their ids, with what is known of them.

    Raises RequestError, nothing changed, if the charter does not fit the attempts.
    """
    choices = finding.charter.choices
    flights = tuple(choice.flight for choice in choices)
    fits = flights[:1] == (id,) and len(flights) == len(set(flights)) == len(attempts)
    if not fits or any(flight in forwarder.flights for flight in flights):
        raise RequestError("not_found", "what is kept of this request does not fit together")
    outputs: list[Effect | Fact] = []
    for number, (choice, attempt) in enumerate(zip(choices, attempts, strict=True)):
        wants_prompt = attempt.parameters.prompt_logprobs is not None  # it is scored only from the beginning
        known = (choice.started(), () if wants_prompt else finding.chunks(number))
        outputs += forwarder.submit(now, attempt, None, choice.flight, known)[1]
    return Claim(id, flights, finding.charter.note), outputs

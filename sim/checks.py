"""Safety: what must hold after every input of every node, whatever the faults.

Each check has a name, looks at one host after it has handled an input, and ends
the run with `Violation` where it fails, unless a fault of the run breaks it by its
nature and says so (`breaks`). `tests/sim/test_checks.py` plants a bug for each
and sees it caught; a check without such a test does not count.
"""

from typing import TYPE_CHECKING

from sim.record_checks import RecordCheck
from sim.safety.accounts import AccountCheck
from sim.safety.stream import StreamCheck
from sim.safety.traffic import BoundsCheck, LoadCheck, RumourCheck, TimerCheck
from sim.safety.verdicts import VerdictCheck
from sim.safety.work import FlightCheck, TicketCheck

if TYPE_CHECKING:
    from sim.world import Check

SAFETY: dict[str, str] = {
    "text_exact": "clients get their text, each token once, in order",
    "account_ages": "an account never gets older (generation, incarnation) while it is known",
    "gone_returns": "dead and left accounts return only with a greater age",
    "own_age": "a node's own age never falls, restarts with its data directory included",
    "own_life": "a running node never believes itself suspect or dead",
    "own_word": "nobody holds a node at an age that it never gave itself",
    "one_truth": "one set of facts per (id, generation, incarnation) in the whole world",
    "strangers": "nobody is in a table who never lived",
    "left_itself": "who has left said so itself",
    "ledger": "whatever is opened was sealed by a holder of the key, once; no nonce is used twice",
    "digest_truth": "equal view digests mean equal live views, and equal views equal digests",
    "false_death": "nobody who runs is declared dead by those who have met it, nor departed without its own goodbye",
    "peace": "twenty seconds after the healing nobody who runs is declared dead, whatever came before",
    "death_cause": "a death has a failed round or a lost link of one's own, and accusers who have lived",
    "fair_trial": "nobody is declared dead before the least suspicion has passed since the first doubt",
    "deaf_verdict": "who has heard nobody for a while declares nobody dead",
    "quarantine_fresh": "a quarantine ends only if its subject has spoken since it began",
    "flight_forward": "a flight's log only grows, its attempts only rise, its end is final",
    "quarantine_routing": "no attempt is opened at a node that this router has quarantined",
    "gone_routing": "no attempt is opened at a node that is no live member here",
    "tickets_match": "a relay's tickets are its engines' attempts, when nothing is under way",
    "timers": "no deadline in the past after a tick, no busy loop",
    "awake": "every core wants to be woken within ten probe periods",
    "bounds": "members, rumours, load records, links, tickets and flights are within their limits",
    "datagram_size": "no datagram is beyond the MTU",
    "addresses": "datagrams go only to addresses that somebody has or had",
    "traffic_budget": "datagrams and bytes of a node within any second are below a bound that grows with the mesh",
    "rumour_bound": "a rumour is sent by a node at most as often as SWIM's lambda says",
    "load_age": "no load figure looks younger than it is, time on the wire and in an overrun queue apart",
    "load_life": "no load figure is of an earlier life than its owner's account",
    "stream_true": "the changes that followers of the view are told give the view that is",
    "no_resurrection": "a record once known deleted does not return within a life",
    "stamps_monotone": "a life's hybrid clock never runs back",
    "exception": "no input makes a core raise",
}
"""Every check of safety, and what it holds."""


def safety() -> tuple["Check", ...]:
    """Return fresh instances of all checks, to be given to one world."""
    return (
        AccountCheck(),
        VerdictCheck(),
        FlightCheck(),
        TicketCheck(),
        TimerCheck(),
        BoundsCheck(),
        RumourCheck(),
        LoadCheck(),
        RecordCheck(),
        StreamCheck(),
    )

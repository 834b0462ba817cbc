"""The last look before a death: proof that it is the suspect who is silent, and not we who are deaf.

Theory of operation. A suspect out of time is looked at once more, between two proofs that this node sends and
hears, each of them a prompt echo (a ping of ours that was answered at once):

    stage   moved by                                         to        what the owner does
    (none)  its time is out, or another says that it is      DEAF      ping a few others, unless an echo just came
            dead
    DEAF    an echo of a later ping                          LOOK      a round with as many asks as loss demands
    DEAF    no echo for a while                              DEAF      ping others again; the long deaf wait for turns
    LOOK    it lives: an answer, a helper's ack, traffic     (none)    it gets as long again
    LOOK    the round fails, and its machine refused         (none)    dead: its process is gone, the path works
    LOOK    the round fails                                  HEAR      ping a few others
    HEAR    an echo of a later ping                          (none)    dead
    HEAR    no echo for a while                              DEAF      as above
    HEAR    our own machine drops datagrams, twice at most   LOOK      as above

So a node whose packets are withheld, in or out, declares nobody dead, however long it lasts and however often
it hears something in between: an answer of the suspect that waits in its socket was sent before the
echo, and is read before it. Where nobody else could echo (a mesh of two) the look alone decides. Who hears
nobody at all for `alone_s` holds the suspects dead for itself, and tells nobody: see `mesh.beliefs`.
"""

import enum

import attrs

from mesh.identity import Identity


class Stage(enum.Enum):
    """Where an inquest stands."""

    DEAF = "deaf"
    LOOK = "look"
    HEAR = "hear"


@attrs.frozen
class Inquest:
    """One suspect's last look. Times are monotonic seconds."""

    identity: Identity
    stage: Stage
    since: float
    """When this stage began; an echo counts in it if its ping was sent later."""
    began_at: float
    """When the look began, if it did: what the suspect sends after this saves it."""
    patient: bool = False
    """It is for the suspect's time that runs out, not for another's word that it is dead: while others were
    asked for an echo a look may have become shorter, and is then begun later."""
    held: int = 0
    """How often the look was gone on with because our own input was lost."""

    def held_on(self, now_s: float) -> "Inquest":
        """Our own machine has dropped what was sent to us: look on."""
        return attrs.evolve(self, stage=Stage.LOOK, since=now_s, held=self.held + 1)

    def failed(self, now_s: float) -> "Inquest":
        """The look has failed."""
        return attrs.evolve(self, stage=Stage.HEAR, since=now_s)

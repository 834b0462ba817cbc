"""Who a node is: its id, which life of it, and how often it has spoken up for itself.

Invariants:
- of one node id, the greater (generation, incarnation) is the newer truth, compared
  lexicographically: a restart is a new life, so stale rumours of the old one lose;
- only the node itself makes a greater pair, so nobody else can speak for it.
"""

import re

import attrs

NODE_DIGITS = 16
"""Hex digits of a node id: 64 bits, so that two of 1,000 fresh ids collide once in 10^13 meshes."""

GENERATION_MAX = 2**48 - 1
INCARNATION_MAX = 2**32 - 1
"""At the bound a node starts its next generation: no rumour can name a pair that cannot be topped
(memberlist adds one and wraps to 0, so one forged number silences a node for ever)."""

GENERATION_STEP_MAX = 2**20
"""An account this many lives above the last known one of its node is not believed: else one forged number
would leave no room for the node to top it. Starts and clashes raise it by one."""

_NODE = re.compile(rf"[0-9a-f]{{{NODE_DIGITS}}}")


def is_node_id(text: str) -> bool:
    """Whether `text` is a well-formed node id; all zeros means "none" on the wire, so it is not."""
    return _NODE.fullmatch(text) is not None and text.strip("0") != ""


def _check_node(_owner: object, _field: object, value: str) -> None:
    if not is_node_id(value):
        raise ValueError(f"node id `{value}` is not {NODE_DIGITS} lower-case hex digits, not all zero")


@attrs.frozen
class Identity:
    """One life of one node, at one incarnation."""

    node: str = attrs.field(validator=_check_node)
    """64-bit id as 16 lower-case hex digits. Stable while the data directory lasts."""
    generation: int = 0
    """Raised by one at every start, 0 to 2^48-1."""
    incarnation: int = 0
    """Raised by the node alone, to refute a rumour or to publish new facts, 0 to 2^32-1."""

    @property
    def age(self) -> tuple[int, int]:
        """What to compare between two identities of one node: the greater is the newer."""
        return (self.generation, self.incarnation)

    def may_follow(self, known: "Identity") -> bool:
        """Whether it is credible as a later (or older) identity of a node that is known as `known`."""
        return self.generation <= known.generation + GENERATION_STEP_MAX

    def above(self, rumour: "Identity | None" = None) -> "Identity":
        """The least identity of this node that beats both this one and `rumour`."""
        generation, incarnation = max(self.age, rumour.age if rumour is not None else self.age)
        if incarnation < INCARNATION_MAX:
            return Identity(self.node, generation, incarnation + 1)
        return Identity(self.node, generation).next_life()

    def next_life(self) -> "Identity":
        """The first identity of this node's next generation (there is none after 2^48 - 1)."""
        return Identity(self.node, min(self.generation + 1, GENERATION_MAX), 0)

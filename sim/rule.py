"""Rules: what happens on some paths of the network, as data.

The condition of a path is the fold of all rules that apply to it: cuts win, losses
combine as independent, delays add. It remembers which fault each trouble comes
from, so that a packet that is hit counts for the fault that hit it.
"""

import math

import attrs

Groups = tuple[tuple[str, ...], ...]


@attrs.frozen
class Burst:
    """Loss in bursts (Gilbert 1960, Elliott 1963): a path is good or bad, and in bad times nothing passes."""

    begin: float
    """Chance that a packet finds a good path turned bad."""
    end: float
    """Chance that a packet finds a bad path turned good; 1 / end is the mean length in packets."""


@attrs.frozen
class Rule:
    """What happens on the paths from some hosts to some hosts. None is everybody."""

    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    cut: bool = False
    """Nothing arrives; nobody is told."""
    udp_cut: bool = False
    """No datagram arrives; streams do."""
    tcp_cut: bool = False
    """Nothing of a stream arrives; datagrams do."""
    clog: bool = False
    """Nothing arrives until the rule is lifted; then all of it does."""
    loss: float = 0.0
    """Share of datagrams that vanish, 0 to 1; a lost segment of a stream is sent again."""
    burst: Burst | None = None
    duplicate: float = 0.0
    """Share of datagrams that arrive twice."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more delay, uniformly drawn for each datagram."""
    tail: float = 0.0
    """Share of packets that take a Pareto time (index 1.5, least `tail_s`) longer."""
    tail_s: float = 0.0
    reorder: float = 0.0
    """Share of datagrams held back for `reorder_s`, so that later ones overtake them."""
    reorder_s: float = 0.0
    replay: float = 0.0
    """Share of datagrams that come once more, up to `replay_s` later."""
    replay_s: float = 0.0
    flip: float = 0.0
    """Share with one bit flipped; the receiving kernel's checksum finds it, unless `unchecked`."""
    unchecked: bool = False
    """Whether flipped datagrams reach the process: then only a seal tells them from true ones."""
    truncate: float = 0.0
    """Share of datagrams that lose their end."""
    oversize: float = 0.0
    """Share that arrives with more bytes than any datagram of the mesh may have."""
    mtu_bytes: int = 0
    """Larger datagrams vanish, and nobody is told; 0 is no limit. Kernels find the size for streams."""
    by: str = ""
    """The kind of fault that laid it."""

    def applies(self, source: str, target: str) -> bool:
        """Whether the path is one of this rule's."""
        return (self.sources is None or source in self.sources) and (
            self.targets is None or target in self.targets
        )


SHARES = ("loss", "duplicate", "tail", "reorder", "replay", "flip", "truncate", "oversize")
"""Chances: those of several rules combine as independent."""

TIMES = ("delay_s", "jitter_s", "tail_s", "reorder_s", "replay_s")
"""Durations: those of several rules add up."""


@attrs.frozen
class Condition:
    """All rules of one path together."""

    udp_cut: bool = False
    tcp_cut: bool = False
    clog: bool = False
    loss: float = 0.0
    burst: Burst | None = None
    duplicate: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    tail: float = 0.0
    tail_s: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.0
    replay: float = 0.0
    replay_s: float = 0.0
    flip: float = 0.0
    unchecked: bool = False
    truncate: float = 0.0
    oversize: float = 0.0
    mtu_bytes: int = 0
    blame: tuple[tuple[str, str], ...] = ()
    """(trouble, kind of fault) for each trouble that a fault has laid on the path."""

    @property
    def cut(self) -> bool:
        """Whether nothing passes at all."""
        return self.udp_cut and self.tcp_cut

    @property
    def is_spoilt(self) -> bool:
        """Whether datagrams may arrive otherwise than they were sent, or twice."""
        return bool(self.duplicate or self.replay or self.flip or self.truncate or self.oversize)

    def faults(self, trouble: str) -> tuple[str, ...]:
        """Name the faults that brought a trouble."""
        return tuple(kind for name, kind in self.blame if name == trouble)


def condition(rules: tuple[Rule, ...]) -> Condition:
    """Fold the rules that apply to a path."""
    return Condition(
        udp_cut=any(rule.cut or rule.udp_cut for rule in rules),
        tcp_cut=any(rule.cut or rule.tcp_cut for rule in rules),
        clog=any(rule.clog for rule in rules),
        burst=next((rule.burst for rule in rules if rule.burst is not None), None),
        unchecked=any(rule.unchecked for rule in rules),
        mtu_bytes=min((rule.mtu_bytes for rule in rules if rule.mtu_bytes), default=0),
        blame=tuple((trouble, rule.by) for rule in rules if rule.by for trouble in _troubles(rule)),
        **{name: _together(rules, name) for name in SHARES},
        **{name: math.fsum(getattr(rule, name) for rule in rules) for name in TIMES},
    )


def _together(rules: tuple[Rule, ...], share: str) -> float:
    kept = 1.0
    for rule in rules:
        kept *= 1.0 - getattr(rule, share)
    return 1.0 - kept


def _troubles(rule: Rule) -> list[str]:
    both = ["udp_cut", "tcp_cut"] if rule.cut else []
    single = ("udp_cut", "tcp_cut", "clog", "burst", "mtu_bytes", "delay_s", "jitter_s", *SHARES)
    return both + [name for name in single if getattr(rule, name)]


def partition(groups: Groups) -> tuple[Rule, ...]:
    """Return rules that cut every path between different groups."""
    everybody = frozenset(name for group in groups for name in group)
    return tuple(Rule(frozenset(group), everybody - frozenset(group), cut=True) for group in groups)

"""A user's own mesh as a file: sites, the paths between them, what is asked of it, what befalls it.

    name = "two regions"
    preset = "wan"               # options of every node, with [knobs] as in scenario files
    seconds = 40.0               # how long clients arrive

    [[site]]
    name = "paris"
    entries = 1                  # nodes without an engine, where clients enter
    workers = 3
    stream_tokens_per_s = 60.0   # one stream alone on one worker
    total_tokens_per_s = 900.0   # all streams of one worker together
    prefill_tokens_per_s = 8000.0
    kv_tokens = 60000            # what the KV memory of one worker holds

    [[path]]
    between = ["paris", "tokyo"]
    delay_ms = 110.0             # one way
    jitter_ms = 5.0
    loss = 0.002

    [requests]
    rate_per_s = 2.0             # mean arrivals, all entries together
    prompt_tokens = 400
    tokens = 250

    [[event]]
    at = 15.0                    # seconds after clients begin to arrive
    kind = "kill"                # kill, power, cut, slow, pause
    what = "tokyo"               # a site, or a node such as tokyo-1
    for_s = 10.0                 # 0: for good

Nodes are named `site-1` and so on, entries first.
"""

import re
import tomllib
from collections.abc import Callable
from typing import Any

import attrs

from node.core import NodeOptions
from node.engine.toy import ToyCost
from sim.configuration import ConfigurationError, fit, make, only, preset, turn
from sim.engine import Device
from sim.fault import Fault, Strike
from sim.faults import Crash, CrashRestart, Partition, Pause, SlowEngine
from sim.rule import Rule

NODES_MAX = 512
SECONDS_MAX = 3600.0
BLOCK_TOKENS = 16
KEYS = frozenset("name preset knobs seconds site path requests event".split())
FOR_GOOD_S = 1e6
NAME = re.compile(r"[A-Za-z0-9-]{1,32}")


@attrs.frozen
class Site:
    """Nodes that are near one another and alike. Speeds are tokens a second."""

    name: str
    entries: int = 1
    workers: int = 1
    stream_tokens_per_s: float = 50.0
    """One stream alone on one worker."""
    total_tokens_per_s: float = 1000.0
    """All streams of one worker together: at least that of one."""
    prefill_tokens_per_s: float = 5000.0
    kv_tokens: int = 32768
    """What the KV memory of one worker holds."""
    delay_ms: float = 0.2
    """One way, between two nodes of the site."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Its nodes, entries first."""
        return tuple(f"{self.name}-{number}" for number in range(1, self.entries + self.workers + 1))

    @property
    def device(self) -> Device:
        """A step of one row takes 1 / stream; each further row 1 / total more."""
        row_s = 1 / self.total_tokens_per_s
        step_s = max(0.0, 1 / self.stream_tokens_per_s - row_s)
        return Device(ToyCost(step_s, 1 / self.prefill_tokens_per_s, row_s), self.kv_tokens // BLOCK_TOKENS)


@attrs.frozen
class Span:
    """The way between two sites."""

    between: tuple[str, str]
    delay_ms: float = 30.0
    """One way."""
    jitter_ms: float = 1.0
    loss: float = 0.0


@attrs.frozen
class Asked:
    """What clients ask for."""

    rate_per_s: float = 1.0
    prompt_tokens: int = 200
    tokens: int = 200


@attrs.frozen
class Trouble:
    """Something that befalls a site or a node."""

    at: float
    kind: str
    what: str
    for_s: float = 0.0
    """0 is for good."""
    factor: float = 10.0
    """How many times slower, for `slow`."""


@attrs.frozen
class Topology:
    """Everything that is known of a user's mesh."""

    name: str
    sites: tuple[Site, ...]
    paths: tuple[Span, ...]
    asked: Asked
    troubles: tuple[Trouble, ...]
    seconds: float
    node: NodeOptions

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, by site."""
        return tuple(name for site in self.sites for name in site.nodes)

    @property
    def entries(self) -> tuple[str, ...]:
        """Where clients enter."""
        return tuple(name for site in self.sites for name in site.nodes[: site.entries])

    def site_of(self, node: str) -> Site:
        """Return the site of a node."""
        return next(site for site in self.sites if node in site.nodes)

    def struck(self, trouble: Trouble) -> tuple[str, ...]:
        """Return the nodes that a trouble befalls."""
        return next((site.nodes for site in self.sites if site.name == trouble.what), (trouble.what,))

    def rules(self) -> tuple[Rule, ...]:
        """Return the network's delays and losses, as rules on top of the world's own."""
        nodes = {site.name: frozenset(site.nodes) for site in self.sites}
        inside = [
            Rule(nodes[site.name], nodes[site.name], delay_s=site.delay_ms / 1000) for site in self.sites
        ]
        return (*inside, *(rule for path in self.paths for rule in _both_ways(path, nodes)))

    def strikes(self, after_s: float) -> tuple[Strike, ...]:
        """Return the troubles as faults, `after_s` later."""
        return tuple(
            Strike(trouble.at + after_s, fault)
            for trouble in self.troubles
            for fault in _faults(trouble, self.struck(trouble))
        )


def _both_ways(path: Span, nodes: dict[str, frozenset[str]]) -> tuple[Rule, Rule]:
    one, other = (nodes[name] for name in path.between)
    rule = Rule(one, other, delay_s=path.delay_ms / 1000, jitter_s=path.jitter_ms / 1000, loss=path.loss)
    return rule, attrs.evolve(rule, sources=other, targets=one)


KINDS: dict[str, Callable[[Trouble, str], Fault]] = {
    "kill": lambda t, host: CrashRestart(host, t.for_s) if t.for_s else Crash(host),
    "power": lambda t, host: CrashRestart(host, t.for_s, True) if t.for_s else Crash(host, True),
    "pause": lambda t, host: Pause(host, t.for_s or FOR_GOOD_S),
    "slow": lambda t, host: SlowEngine(host, t.factor, t.for_s or FOR_GOOD_S),
}


def _faults(trouble: Trouble, hosts: tuple[str, ...]) -> list[Fault]:
    if trouble.kind == "cut":
        return [Partition(hosts, trouble.for_s or FOR_GOOD_S)]
    return [KINDS[trouble.kind](trouble, host) for host in hosts]


# -- reading --------------------------------------------------------------------------------------


def load(text: str, name: str = "topology") -> Topology:
    """Return the topology of a file. Raises ConfigurationError, which says where and what would do."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"this is no TOML: {error}", "see docs/how-to/what-if.md") from error
    only(table, KEYS, "the file")
    options = preset(fit(table.get("preset", "lan"), str, "preset"))
    for knob, value in fit(table.get("knobs", {}), dict, "knobs").items():
        options = turn(options, knob, value)
    topology = Topology(
        name=fit(table.get("name", name), str, "name"),
        sites=_rows(table, "site", Site),
        paths=_rows(table, "path", Span),
        asked=make(Asked, fit(table.get("requests", {}), dict, "requests"), "[requests]"),
        troubles=_rows(table, "event", Trouble),
        seconds=fit(table.get("seconds", 30.0), float, "seconds"),
        node=options,
    )
    _check(topology)
    return topology


def _rows(table: dict[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    rows = fit(table.get(key, []), list, f"[[{key}]]")
    return tuple(make(kind, fit(row, dict, f"[[{key}]]"), f"[[{key}]]") for row in rows)


def _check(topology: Topology) -> None:
    """Refuse numbers and names that make no sense. Raises ConfigurationError."""
    names = [site.name for site in topology.sites]
    _insist(len(set(names)) == len(names), "two sites have one name", "give each its own")
    for site in topology.sites:
        _check_site(site)
    _within("nodes", len(topology.nodes), 2, NODES_MAX)
    _insist(bool(topology.entries), "no site has entries", "give one at least `entries = 1`")
    _insist(any(site.workers for site in topology.sites), "no site has workers", "give one `workers = 1`")
    _within("seconds", topology.seconds, 1.0, SECONDS_MAX)
    for path in topology.paths:
        for end in path.between:
            _insist(end in names, f"`[[path]] between` names `{end}`", f"sites are {', '.join(names)}")
        _within("[[path]] delay_ms", path.delay_ms, 0.0, 60_000.0)
        _within("[[path]] jitter_ms", path.jitter_ms, 0.0, 60_000.0)
        _within("[[path]] loss", path.loss, 0.0, 1.0)
    _within("[requests] rate_per_s", topology.asked.rate_per_s, 0.001, 1000.0)
    _within("[requests] prompt_tokens", topology.asked.prompt_tokens, 1, 4096)
    _within("[requests] tokens", topology.asked.tokens, 1, 4096)
    for trouble in topology.troubles:
        _check_trouble(trouble, topology, names)


def _check_site(site: Site) -> None:
    plain = NAME.fullmatch(site.name) is not None
    _insist(plain, f"`[[site]] name` is `{site.name}`", "letters, digits and dashes, 32 at most")
    _within(f"{site.name} entries", site.entries, 0, NODES_MAX)
    _within(f"{site.name} workers", site.workers, 0, NODES_MAX)
    _within(f"{site.name} stream_tokens_per_s", site.stream_tokens_per_s, 0.1, 1e5)
    _within(f"{site.name} total_tokens_per_s", site.total_tokens_per_s, site.stream_tokens_per_s, 1e6)
    _within(f"{site.name} prefill_tokens_per_s", site.prefill_tokens_per_s, 1.0, 1e7)
    _within(f"{site.name} kv_tokens", site.kv_tokens, 1024, 10**8)
    _within(f"{site.name} delay_ms", site.delay_ms, 0.0, 60_000.0)


def _check_trouble(trouble: Trouble, topology: Topology, names: list[str]) -> None:
    kinds = (*KINDS, "cut")
    _insist(trouble.kind in kinds, f"`{trouble.kind}` is no kind of event", f"there are {', '.join(kinds)}")
    known = (*names, *topology.nodes)
    _insist(trouble.what in known, f"`[[event]] what` is `{trouble.what}`", f"there are {', '.join(known)}")
    _within("[[event]] at", trouble.at, 0.0, topology.seconds)
    _within("[[event]] for_s", trouble.for_s, 0.0, SECONDS_MAX)
    _within("[[event]] factor", trouble.factor, 1.0, 1e6)


def _within(name: str, value: float, least: float, most: float) -> None:
    _insist(least <= value <= most, f"`{name}` is `{value:g}`", f"it lies within {least:g} to {most:g}")


def _insist(holds: bool, message: str, hint: str) -> None:
    if not holds:
        raise ConfigurationError(message, hint)

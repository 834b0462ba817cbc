"""Scenarios as TOML files: read what a person writes, write what a program drew.

    name = "two workers die"
    seed = 7                     # optional, 0
    nodes = 6                    # node-0 .. node-5
    workers = 4                  # the last ones have an engine; optional: all but two
    sealed = true                # whether every datagram is sealed; optional, false
    heal_at_s = 20.0             # when faults are undone and liveness is asked for
    preset = "lan"               # local, lan or wan; optional: local
    knobs = { "swim.probe_period_s" = 0.5 }

    [network]                    # the undisturbed network: fields of sim.network.Rule
    delay_s = 0.001

    [workload]                   # clients drawn from the seed: fields of sim.workload.Workload
    entries = ["node-0", "node-1"]
    rate_per_s = 3.0

    [[fault]]                    # any kind of sim.faults, with its fields
    at = 5.0
    kind = "CrashRestart"
    host = "node-4"
    for_s = 2.0

    [expect]                     # optional: may_fail, excused, core, crashed, exam
    may_fail = ["failed:no_worker"]

Instead of a workload, or beside it, `[[request]]` tables give single clients. `dump`
writes those, so that what was drawn from a seed, or shrunk, is kept exactly:
`load(dump(s)) == s` but for `keep_trace` and a planted core.
"""

import json
import tomllib
from collections.abc import Iterable
from typing import Any

import attrs

from node.core import NodeOptions
from sim.configuration import ConfigurationError, differences, fit, make, only, preset, turn, types_of
from sim.fault import Fault, Strike
from sim.faults import FAULTS
from sim.liveness import Bounds
from sim.rule import Rule
from sim.scenario import Scenario
from sim.stream import random_of
from sim.workload import Request, Workload
from sim.world import WorldOptions

ENTRIES = 2
"""Nodes without an engine, unless `workers` says otherwise."""

NODES_MAX = 1024
HEAL_AT_S_MAX = 86_400.0

KEYS = frozenset(
    "name seed nodes workers sealed heal_at_s preset knobs network workload request fault expect bounds".split()
)
ELSEWHERE = frozenset("name seed nodes workers sealed requests strikes faults_end_s options bounds".split())
EXPECT = frozenset(types_of(Scenario)) - ELSEWHERE
"""What a scenario says of itself beside what happens in it."""
KINDS = {kind.__name__: kind for kind in FAULTS}
PLACES = ("host", "hosts", "source", "sources", "target", "targets", "group", "groups", "entry", "entries")
"""Fields that name hosts."""

Table = dict[str, Any]


def load(text: str, name: str = "scenario") -> Scenario:
    """Return the scenario of a file. Raises ConfigurationError, which says where and what would do."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"this is no TOML: {error}", "see docs/reference/sim-cli.md") from error
    only(table, KEYS, "the file")
    nodes = _number(table, "nodes", 5, 2, NODES_MAX)
    names = tuple(f"node-{index}" for index in range(nodes))
    workers = _number(table, "workers", max(1, nodes - ENTRIES), 0, nodes)
    seed = fit(table.get("seed", 0), int, "seed")
    heal_at_s = _seconds(table.get("heal_at_s", 15.0), "heal_at_s")
    expect = _table(table, "expect")
    only(expect, EXPECT, "[expect]")
    return Scenario(
        name=fit(table.get("name", name), str, "name"),
        seed=seed,
        nodes=nodes,
        workers=workers,
        requests=_requests(table, seed, names, heal_at_s),
        strikes=tuple(_strike(each, names) for each in _tables(table, "fault")),
        faults_end_s=heal_at_s,
        sealed=fit(table.get("sealed", False), bool, "sealed"),
        options=WorldOptions(_options(table), make(Rule, _table(table, "network"), "[network]", _PLAIN)),
        bounds=make(Bounds, _table(table, "bounds"), "[bounds]"),
        **_expectations(expect, names),
    )


def _expectations(expect: Table, names: tuple[str, ...]) -> Table:
    kinds = types_of(Scenario)
    fields = {name: fit(value, kinds[name], f"[expect] {name}") for name, value in expect.items()}
    fields.setdefault("core", names)
    for name in ("core", "crashed"):
        _hosts(fields.get(name, ()), names, name)
    return fields


_PLAIN = Rule(delay_s=0.0003, jitter_s=0.0004)


def _options(table: Table) -> NodeOptions:
    options = preset(fit(table.get("preset", "local"), str, "preset"))
    for name, value in _table(table, "knobs").items():
        options = turn(options, name, value)
    return options


def _requests(table: Table, seed: int, names: tuple[str, ...], heal_at_s: float) -> tuple[Request, ...]:
    given = [make(Request, each, "[[request]]") for each in _tables(table, "request")]
    for request in given:
        _hosts([request.entry], names, "[[request]] entry")
    if "workload" not in table:
        return tuple(given)
    plain = Workload(names[:ENTRIES], end_s=heal_at_s)
    workload = make(Workload, _table(table, "workload"), "[workload]", plain)
    _hosts(workload.entries, names, "[workload] entries")
    if workload.rate_per_s <= 0 or not workload.entries:
        raise ConfigurationError("`[workload]` asks for nothing", "give entries and a rate_per_s above 0")
    return (*given, *workload.requests(random_of(seed, "workload")))


def _strike(table: Table, names: tuple[str, ...]) -> Strike:
    fields = dict(table)
    at, kind = _seconds(fields.pop("at", None), "[[fault]] at"), fields.pop("kind", None)
    if kind not in KINDS:
        raise ConfigurationError(f"`{kind}` is no kind of fault", f"there are {', '.join(KINDS)}")
    fault: Fault = make(KINDS[kind], fields, f"[[fault]] {kind}")
    for place in PLACES:
        value = getattr(fault, place, ())
        _hosts(_flat(value), names, f"{kind} {place}")
    return Strike(at, fault)


def _flat(value: object) -> Iterable[str]:
    if isinstance(value, tuple):
        return [name for item in value for name in _flat(item)]
    return [value] if isinstance(value, str) else []


def _hosts(names: Iterable[str], known: tuple[str, ...], where: str) -> tuple[str, ...]:
    chosen = fit(list(names), tuple[str, ...], where)
    for name in chosen:
        if name not in known:
            raise ConfigurationError(f"`{where}` names `{name}`", f"hosts are {known[0]} to {known[-1]}")
    return chosen


def _number(table: Table, key: str, default: int, least: int, most: int) -> int:
    number = fit(table.get(key, default), int, key)
    if not least <= number <= most:
        raise ConfigurationError(f"`{key}` is `{number}`", f"it lies within {least} to {most}")
    return number


def _seconds(value: object, where: str) -> float:
    seconds = fit(value, float, where)
    if not 0.0 <= seconds <= HEAL_AT_S_MAX:
        raise ConfigurationError(
            f"`{where}` is `{seconds}`", f"it lies within 0 to {HEAL_AT_S_MAX:g} seconds"
        )
    return seconds


def _table(table: Table, key: str) -> Table:
    return fit(table.get(key, {}), dict, key)


def _tables(table: Table, key: str) -> list[Table]:
    return [fit(each, dict, f"[[{key}]]") for each in fit(table.get(key, []), list, key)]


# -- writing --------------------------------------------------------------------------------------


def dump(scenario: Scenario) -> str:
    """Return the file of a scenario, which `load` reads back."""
    name, knobs = differences(scenario.options.node)
    parts = [
        _lines(
            {
                "name": scenario.name,
                "seed": scenario.seed,
                "nodes": scenario.nodes,
                "workers": scenario.workers,
                "sealed": scenario.sealed,
                "heal_at_s": scenario.faults_end_s,
                "preset": name,
            }
        )
    ]
    if knobs:
        parts.append(
            "[knobs]\n" + "".join(f"{_value(key)} = {_value(value)}\n" for key, value in knobs.items())
        )
    parts.append("[network]\n" + _lines(_fields(scenario.options.network, _PLAIN)))
    parts.append("[bounds]\n" + _lines(_fields(scenario.bounds, Bounds())))
    expect = {key: getattr(scenario, key) for key in sorted(EXPECT)}
    parts.append("[expect]\n" + _lines(expect))
    for strike in scenario.strikes:
        head = {"at": strike.at, "kind": type(strike.fault).__name__}
        parts.append("[[fault]]\n" + _lines(head | _fields(strike.fault)))
    parts += ["[[request]]\n" + _lines(_fields(request)) for request in scenario.requests]
    return "\n".join(parts)


def _fields(value: Any, base: Any = None) -> Table:
    """Return the fields that differ from those of `base`, or from their defaults."""
    fields = {field.name: field.default for field in attrs.fields(type(value)) if field.init}
    if base is not None:
        fields = {name: getattr(base, name) for name in fields}
    return {name: getattr(value, name) for name in fields if getattr(value, name) != fields[name]}


def _lines(table: Table) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items() if value is not None)


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple() | list():
            return "[" + ", ".join(map(_value, value)) + "]"
    raise AssertionError(f"{value!r} has no place in a scenario file")

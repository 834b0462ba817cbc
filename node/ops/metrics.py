"""Prometheus metrics, built from a snapshot of the node's statistics when they are asked for.

A snapshot is a tree: names lead to numbers. A number at `swim.packets_sent` is `inferno_swim_packets_sent`;
`LABELS` says where a name in the tree is a label's value instead, `GAUGES` which numbers may fall. Words become
a label of a metric that is 1, lists their length. Names in seconds end in `_seconds`.
"""

import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

SERIES_MAX = 10_000
"""Most series of one exposition; what is beyond is left out and counted."""

LABELS: dict[str, tuple[str, ...]] = {
    "engines": ("engine",),
    "swim_members": ("liveness",),
    "swim_rumour_age": ("le",),
    "http_answers": ("route", "status"),
    "http_refused": ("code",),
    "ops_answers": ("route", "status"),
    "ops_refused": ("code",),
    "net_intake_shed": ("worth",),
    "net_links_refused": ("reason",),
    "net_udp_receive_errors": ("errno",),
    "net_udp_send_errors": ("errno",),
    "seal_rejected": ("reason",),
}
"""Names of the labels that stand below a place in the tree."""

GAUGES = frozenset(
    (
        "claims_waiting",
        "engines_state",
        "flights_active",
        "http_connections",
        "links_lag_s",
        "links_open",
        "ops_connections",
        "records_bytes",
        "records_digest",
        "records_floor_ms",
        "records_news",
        "records_rows",
        "records_tombstones",
        "relay_tickets",
        "seal_held",
        "seal_waiting",
        "swim_digest",
        "swim_health",
        "swim_lag_s",
        "swim_loss",
        "swim_own_lag_s",
        "swim_members",
        "swim_metadata_bytes",
        "swim_metadata_missing",
        "swim_quarantined",
        "swim_rumours",
        "trustee_bytes",
        "trustee_requests",
    )
)
"""Numbers that may fall; all others only grow while the node lives."""

HELP: dict[str, str] = {
    "http_connections": "Client connections open now.",
    "http_answers": "Answers by route and status.",
    "http_refused": "Requests that never reached a route, by error code.",
    "http_turned_away": "Connections closed at once because http_connections_max were open.",
    "http_accept_errors": "Connections that could not be accepted: the machine was short of something.",
    "http_disconnects": "Clients that went away before their answer was complete.",
    "flights_active": "Flights whose entry this node is and that have not ended.",
    "forward_moves": "Flights moved to another worker.",
    "engines_deaths": "Times that an engine has died.",
    "engines_guessed": "Tokens that streams guessed ahead, since the engine's start.",
    "engines_guesses_held": "... and those of them that were said.",
    "engines_text_worker_deaths": "Text workers that died, most of them ended because a prompt took too long.",
    "swim_rumour_age": "Rumours that were news here, by their age in seconds then (cumulative), each hop's wait added.",
    "swim_members": "Members by liveness, this node included.",
}
"""Help by name; a metric without it is explained by its own."""

Sample = tuple[str, tuple[tuple[str, str], ...], float]


def samples(
    tree: dict[str, Any], path: str = "", labels: tuple[tuple[str, str], ...] = ()
) -> Iterator[Sample]:
    """Yield name, labels and value of every number in a snapshot."""
    for key, value in tree.items():
        yield from _below(f"{path}_{key}" if path else key, labels, value)


def _below(path: str, labels: tuple[tuple[str, str], ...], value: Any) -> Iterator[Sample]:
    if isinstance(value, dict) and path in LABELS:
        for names, leaf in _labelled(value, LABELS[path]):
            yield from _below_labels(path, labels + names, leaf)
    elif isinstance(value, dict):
        yield from samples(value, path, labels)
    elif isinstance(value, str):
        yield path, (*labels, (path.rpartition("_")[2], value)), 1.0
    elif isinstance(value, (list, tuple)):
        yield path, labels, float(len(value))
    elif isinstance(value, (int, float)):
        yield path, labels, float(value)


def _below_labels(path: str, labels: tuple[tuple[str, str], ...], leaf: Any) -> Iterator[Sample]:
    if isinstance(leaf, dict):
        yield from samples(leaf, path, labels)
    else:
        yield from _below(path, labels, leaf)


def _labelled(value: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[tuple[str, str], ...], Any]]:
    """Walk down one level per label; yield the labels and what is below them."""
    if not names or not isinstance(value, dict):
        yield (), value
        return
    for key, below in value.items():
        for labels, leaf in _labelled(below, names[1:]):
            yield ((names[0], str(key)), *labels), leaf


def metric_name(path: str) -> str:
    """Return the exposed name of a place in the tree."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", path)
    return "inferno_" + (name[:-2] + "_seconds" if name.endswith("_s") else name)


def families(statistics: dict[str, Any]) -> list[GaugeMetricFamily | CounterMetricFamily]:
    """Group the samples of a snapshot by metric."""
    found: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    dropped = 0
    for number, (path, labels, value) in enumerate(samples(statistics)):
        if number >= SERIES_MAX:
            dropped += 1
            continue
        if path not in found:
            kind = GaugeMetricFamily if path in GAUGES else CounterMetricFamily
            help_text = HELP.get(path, path.replace("_", " ").capitalize() + ".")
            found[path] = kind(metric_name(path), help_text, labels=[name for name, _ in labels])
        found[path].add_metric([text for _, text in labels], value)
    series = GaugeMetricFamily(
        "inferno_metrics_dropped", "Series left out of this exposition.", float(dropped)
    )
    return [*found.values(), series]


class _Snapshot:
    """A collector of one snapshot, as prometheus-client wants it."""

    def __init__(self, statistics: dict[str, Any]) -> None:
        self._families = families(statistics)

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        return self._families


def exposition(statistics: dict[str, Any]) -> bytes:
    """Write a snapshot in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(statistics))
    return generate_latest(registry)

"""Every setting of a node, in one table: the fields of `Config`.

A field is a row: type, parser, default, bounds, group and one sentence of help. From the rows come the
flags, the `INFERNO_*` variables, the keys of the TOML file, the frozen `Config` that `node.configure` fills,
and docs/reference/settings.md. Adding a setting is adding a row.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from node import values
from node.values import HostPort, Parser

DEFAULT = "default"
"""The source of a value that nobody gave."""

LIST_ITEMS_MAX = 256
"""Most values that a repeated setting takes."""

MIB = 1 << 20


@attrs.frozen
class Setting:
    """One row of the table."""

    name: str
    parse: Parser
    default: Any
    """As a person would write it; `None` if the node works it out."""
    group: str
    help: str
    metavar: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    repeated: bool = False
    """Whether it may be given several times and is a tuple in `Config`."""
    in_file: bool = True
    older: tuple[str, ...] = ()
    """Former names of its environment variable."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that set it, the preferred one first."""
        upper = self.name.upper()
        return (f"INFERNO_{upper}", *self.older, f"PINGORA_{upper}")

    @property
    def limits(self) -> str:
        """The bounds in words; empty if there are none."""
        if self.low is None or self.high is None:
            return ""
        return f"{values.show(self.low, self.unit)} to {values.show(self.high, self.unit)}"

    def value(self, given: Any) -> Any:
        """Parse and bound one given value, a list of them if it is repeated; or raise ValueError."""
        if not self.repeated:
            return self._one(given)
        items = given if isinstance(given, list | tuple) else [given]
        if len(items) > LIST_ITEMS_MAX:
            raise ValueError(f"at most {LIST_ITEMS_MAX} values are taken")
        return tuple(self._one(item) for item in items)

    def _one(self, given: Any) -> Any:
        if isinstance(given, list | tuple | dict):
            raise ValueError("a single value is wanted")  # noqa: TRY004 - the operator's mistake, not ours
        value = self.parse(given)
        if self.low is not None and value < self.low:
            raise ValueError(f"the least allowed is `{values.show(self.low, self.unit)}`")
        if self.high is not None and value > self.high:
            raise ValueError(f"the most allowed is `{values.show(self.high, self.unit)}`")
        return value


def row(parse: Parser, default: Any, group: str, help: str, **more: Any) -> Any:
    """Declare a field of `Config` as a setting; `more` are fields of `Setting`."""
    return attrs.field(
        metadata={"setting": {"parse": parse, "default": default, "group": group, "help": help, **more}}
    )


def count(default: int, low: int, high: int, group: str, help: str, **more: Any) -> Any:
    """Declare a whole number."""
    return row(values.whole, default, group, help, low=low, high=high, metavar="N", **more)


def size(default: int, low: int, high: int, group: str, help: str) -> Any:
    """Declare a number of bytes."""
    return row(values.byte_count, default, group, help, low=low, high=high, metavar="BYTES", unit="bytes")


def duration(default: float, low: float, high: float, group: str, help: str) -> Any:
    """Declare a duration in seconds."""
    return row(values.seconds, default, group, help, low=low, high=high, metavar="SECONDS", unit="s")


def choice(default: str, group: str, help: str, *words: str) -> Any:
    """Declare one of a few words."""
    return row(values.one_of(*words), default, group, help, metavar="|".join(words))


def address(default: str | None, help: str, parse: Parser = values.host_port, **more: Any) -> Any:
    """Declare an address."""
    return row(parse, default, "addresses", help, metavar="HOST:PORT", **more)


@attrs.frozen(kw_only=True)
class Config:
    """What a node was told, complete and checked. Its fields are the table of settings."""

    # fmt: off
    name: str = row(
        values.node_name, None, "addresses",
        "Name of this node in logs, headers and metrics; host name and a random suffix if not given.",
        metavar="NAME"
    )
    http: HostPort = address(
        "127.0.0.1:8080",
        "Where clients connect: the OpenAI surface and the chat page.",
        older=("PINGORA_LISTEN_ADDR",)
    )
    ops: HostPort = address(
        "127.0.0.1:6100",
        "Where operators connect: health, metrics, members, drain.",
        older=("INFERNO_OPERATIONS_ADDR",)
    )
    bind: HostPort = address(
        "127.0.0.1:7946", "Where other nodes connect: gossip over UDP and links over TCP."
    )
    advertise: HostPort | None = address(
        None,
        "Address that other nodes are told to connect to; the bound one if not given.",
        values.peer_address
    )
    join: tuple[HostPort, ...] = address(
        None,
        "Address of a node of the mesh to join; may be repeated, one live one is enough.",
        values.peer_address, repeated=True
    )

    mesh_key_file: Path | None = row(
        values.path, None, "mesh",
        "File with the mesh key, `ID KEY` a line, the first seals; needed to leave loopback. SIGHUP reads it again.",
        metavar="FILE"
    )
    mesh_name: str = row(
        values.node_name, "inferno", "mesh",
        "Name of the mesh: nodes of different names never hear each other, whatever their keys.",
        metavar="NAME"
    )
    coordinates: str = choice(
        "off", "mesh",
        "Whether to estimate round trips between any two nodes by network coordinates; 46 bytes a ping, and an ack.",
        "on", "off"
    )
    metadata_file: Path | None = row(
        values.path, None, "mesh",
        "File of at most 64 KiB that every node of the mesh is to hold, such as labels. SIGHUP reads it again.",
        metavar="FILE"
    )
    zone: str | None = row(
        values.zone, None, "mesh",
        "Where this node stands, such as a rack or a site, told to the mesh; `--routing zone_first` goes by it.",
        metavar="NAME"
    )
    routing: str = choice(
        "least_wait", "mesh",
        "By what this entry chooses a worker: docs/explanation/routing.md.",
        "least_wait", "two_choices", "round_robin", "least_connections", "weighted", "latency", "zone_first"
    )
    prefix_affinity: str = choice(
        "on", "mesh",
        "Whether conversations return to the worker that has their beginning in its cache, by the first two policies.",
        "on", "off"
    )

    model: tuple[str, ...] = row(
        values.words, "ember-py", "engine",
        "Model to serve: the embedded `ember-py`, or a directory in Hugging Face layout; may be repeated.",
        metavar="NAME|DIR", repeated=True
    )
    role: str = choice(
        "all", "engine",
        "`entry` loads no model, `worker` takes no clients, `all` does both; `observer` is an entry that looks on: "
        "it sees the mesh and is no member.",
        "all", "entry", "worker", "observer"
    )
    device: str = row(
        values.device, "auto", "engine",
        "Where the model computes; `auto` takes the first GPU, else the CPU.",
        metavar="auto|cpu|cuda:N"
    )
    dtype: str = choice(
        "auto", "engine",
        "Number format of weights, and of KV unless `kv_dtype` says otherwise; `auto` is bf16 where the device "
        "computes in it, `int8` holds bytes as weights, half the memory and twice the speed.",
        "auto", "bf16", "int8", "fp32"
    )
    kv_dtype: str = choice(
        "auto", "engine",
        "Number format of keys and values on a GPU; `auto` is what the model computes in, `int8` and `fp8` take "
        "about half its memory.",
        "auto", "bf16", "int8", "fp8"
    )
    threads: int = row(
        values.threads, "auto", "engine",
        "Threads that an engine computes with; `auto` (0) takes every core it may use.",
        metavar="N", low=0, high=1024
    )

    data_dir: Path | None = row(
        values.path, None, "process",
        "Directory for what outlives a restart; nothing is kept if not given.",
        metavar="DIR"
    )
    cache_dir: Path | None = row(
        values.path, None, "process",
        "Directory for what can be made again: compiled kernels, quantised weights, digests; `~/.cache/inferno` if not "
        "given.",
        metavar="DIR"
    )
    config: Path | None = row(
        values.path, None, "process",
        "TOML file with any of these settings.",
        metavar="FILE", in_file=False
    )
    log_level: str = choice(
        "info", "process",
        "Least important kind of event to log.",
        "debug", "info", "warning", "error"
    )
    ready_file: Path | None = row(
        values.path, None, "process",
        "File to write, as JSON, once the HTTP port listens: name, pid, addresses, timings.",
        metavar="FILE"
    )

    kv_bytes: int = size(
        256 * MIB, MIB, 1 << 44, "limits",
        "Memory for keys and values of one engine; when it is full, requests wait."
    )
    sequences_max: int = count(
        64, 1, 4096, "limits",
        "Sequences that an engine computes in one step; more give throughput, fewer a faster step."
    )
    prefill_chunk_tokens: int = count(
        256, 1, 65536, "limits",
        "Longest piece of a prompt computed in one step; smaller keeps running streams smoother."
    )
    speculation_rows: int = count(
        8, 0, 1024, "limits",
        "Rows of a step up to which streams guess ahead what they have said before; no text changes; 0 turns it off."
    )
    step_budget_s: float = duration(
        0.25, 0.005, 10, "limits",
        "Longest that one engine step should take; chunks shrink to the measured speed."
    )
    http_connections_max: int = count(
        10_000, 1, 1_000_000, "limits",
        "Client connections held at once; further ones are closed at once.",
        older=("PINGORA_MAX_CONNECTIONS",)
    )
    http_header_bytes_max: int = size(
        32 << 10, 1024, MIB, "limits", "Request line and headers together; beyond it the answer is 431."
    )
    http_body_bytes_max: int = size(
        4 * MIB, 1024, 1 << 30, "limits", "Request body; beyond it the answer is 413."
    )
    http_read_timeout_s: float = duration(
        10, 0.1, 600, "limits", "Longest wait for the headers, and for each next piece of a body; then 408."
    )
    http_idle_timeout_s: float = duration(
        30, 0.1, 3600, "limits",
        "How long a kept-alive connection may rest between requests before it is closed."
    )
    http_write_timeout_s: float = duration(
        30, 0.1, 3600, "limits",
        "Longest that a client may leave an answer unread before its connection is closed."
    )
    flights_max: int = count(
        1024, 1, 1_000_000, "limits",
        "Requests that this node holds for its clients; beyond it the answer is 503."
    )
    moves_max: int = count(
        16, 0, 1000, "limits",
        "Times that a request may move to another worker after lost links before it fails."
    )

    wait_timeout_s: float = duration(
        30, 0, 3600, "timeouts", "Longest that a request waits for a worker that can take it; then the answer is 503."
    )
    link_silence_s: float = duration(
        1, 0.2, 600, "timeouts",
        "Silence of a peer on a link, echoes included, after which its streams move; about 4 of its worst pauses."
    )
    drain_timeout_s: float = duration(
        30, 0, 3600, "timeouts",
        "How long a node that was asked to stop waits for its running streams to end or move."
    )
    # fmt: on
    sources: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    """Where each value came from, by name: `--http`, `INFERNO_HTTP`, `inferno.toml` or `default`."""

    def explicit(self, name: str) -> bool:
        """Whether somebody gave this setting, so that it must be obeyed or refused but not adjusted."""
        return self.sources.get(name, DEFAULT) != DEFAULT

    def having(self, source: str, **changed: Any) -> "Config":
        """Return a copy with some values replaced, each marked as coming from `source`."""
        sources = {**self.sources, **dict.fromkeys(changed, source)}
        return attrs.evolve(self, **changed, sources=sources)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that this node loads: none on an entry."""
        return () if self.role in ("entry", "observer") else self.model


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(field.name, **field.metadata["setting"])
    for field in attrs.fields(Config)
    if "setting" in field.metadata
)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(setting.group for setting in SETTINGS))
BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}

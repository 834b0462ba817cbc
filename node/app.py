"""One node as a process: binds, starts, serves, drains, ends. One nursery holds every task.

The order at start is by what takes longest: engine processes first (they import
torch), then gossip, then HTTP; the node is a member and answers `/health` long
before its model is loaded. SIGTERM, SIGINT or POST /drain drains: no new requests,
running streams may end or move and be read, then goodbye to the mesh; a second
signal ends at once.
"""

import json
import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from mesh.effects import Report
from mesh.errors import LimitError
from mesh.member import Member
from mesh.net.intake import Intake
from mesh.net.links import LinkShell
from mesh.net.lull import Lull
from mesh.net.udp import Udp
from node import metadata_file, ready_file
from node.configure import SettingsError, environment
from node.core import NodeCore
from node.driver import Driver
from node.gateway import Gateway
from node.identity import claimed, keep_generation, next_life
from node.listen import Gossip, address_of, bind_gossip, bind_tcp, listener, numeric
from node.logs import Level, Log, open_log
from node.models import ModelPath, resolve
from node.options import node_options
from node.seeds import Seeds
from node.settings import Config
from node.supervise import EngineCommand, EngineShell
from node.values import HostPort
from node.version import VERSION

if TYPE_CHECKING:
    from mesh.keyring import Keyring
    from mesh.net.credentials import Credentials
    from mesh.seal import Seal

STARTED_AT = time.monotonic()
"""When this process began to run our code: the origin of `startup_ms`."""

ENGINES_START_S = 1.0
"""The ready file waits so long for the engine processes to have been started (not loaded)."""

LEVELS = {
    "member_dead": Level.DEBUG,
    "model_broken": Level.ERROR,
    "engine_lost": Level.WARNING,
    "quarantined": Level.WARNING,
    "link_broken": Level.WARNING,
    "frame_refused": Level.WARNING,
    "join_failed": Level.WARNING,
    "link_refused": Level.WARNING,
    "datagram_refused": Level.WARNING,
    "clocks_differ": Level.WARNING,
    "no_seed_answers": Level.WARNING,
    "other_mesh": Level.WARNING,
    "identity_clash": Level.ERROR,
}
"""Levels of events that are not mere information."""


@attrs.frozen
class Sockets:
    """What the node listens on; `http` is None for a worker."""

    gossip: Gossip
    ops: Any
    http: Any


def run(config: Config) -> int:
    """Run a node until it is told to stop; return the exit status. Raises SettingsError if it cannot start."""
    log = open_log(config.log_level, environment(), name=config.name)
    models = resolve(config.models)
    keyring = _keyring(config)
    if config.metadata_file is not None:
        metadata_file.read(config.metadata_file)  # what cannot be read is told before anything is begun
    with claimed(config.data_dir):
        sockets = _bind(config, log)
        ready_file.prepare(config.ready_file)
        node = Node(config, log, sockets, _me(config, sockets, models), models, keyring)
        trio.run(node.run)
    if node.fatal:
        raise SettingsError(
            node.fatal, "give each node a --data-dir of its own; a copied one brings its id along"
        )
    return 0


def _keyring(config: Config) -> "Keyring | None":
    if config.mesh_key_file is None:
        return None
    from node import keys  # what keys need costs 70 ms of start-up, so only who has one pays

    return keys.read(config.mesh_key_file)


def _bind(config: Config, log: Log) -> Sockets:
    gossip = bind_gossip(config.bind, config.explicit("bind"), "--bind")
    ops = bind_tcp(config.ops, config.explicit("ops"), "--ops")
    http = None if config.role == "worker" else bind_tcp(config.http, config.explicit("http"), "--http")
    _tell_moved(log, "bind", config.bind, gossip.address)
    _tell_moved(log, "ops", config.ops, address_of(ops))
    if http is not None:
        _tell_moved(log, "http", config.http, address_of(http))
    return Sockets(gossip, ops, http)


def _tell_moved(log: Log, what: str, wanted: HostPort, bound: HostPort) -> None:
    if wanted.port not in (0, bound.port):
        log.info("port_moved", what=what, taken=str(wanted), using=str(bound))


def _me(config: Config, sockets: Sockets, models: tuple[ModelPath, ...]) -> Member:
    address = numeric(config.advertise, "--advertise") if config.advertise else sockets.gossip.address
    return Member(
        identity=next_life(config.data_dir),
        name=config.name,
        address=(address.host, address.port),
        http=str(address_of(sockets.http)) if sockets.http is not None else "",
        role=config.role,
        zone=config.zone or "",
        version=VERSION,
        models=tuple(model.name for model in models),
    )


@attrs.define
class Node:
    """Everything of one running node."""

    config: Config
    log: Log
    sockets: Sockets
    me: Member
    models: tuple[ModelPath, ...]
    keyring: "Keyring | None" = None
    """The mesh's keys; on loopback there may be none."""
    _startup_ms: dict[str, int] = attrs.field(init=False, factory=dict)
    _stop: trio.Event = attrs.field(init=False, factory=trio.Event)
    fatal: str = attrs.field(init=False, default="")
    """Why it must not go on, if it must not."""

    async def run(self) -> None:
        """Serve until a signal or a drain, then leave in good order."""
        core = NodeCore(
            self.me,
            {model.name: model.name for model in self.models},
            node_options(self.config),
            random.Random(secrets.randbits(64)),
            self._seal(),
        )
        driver = Driver(core, self._report, stop=self._must_stop, keep=self._keep)
        async with trio.open_nursery() as nursery:
            engines = self._wire(core, driver, nursery)
            nursery.start_soon(self._watch_signals, driver, nursery)
            if self.keyring is not None or self.config.metadata_file is not None:
                nursery.start_soon(self._watch_files, driver)
            await self._open(driver, nursery, engines)
            await self._stop.wait()
            if not self.fatal:
                await self._drain(driver)
                driver.step(core.leave)
            await engines.stop()
            nursery.cancel_scope.cancel()

    def _wire(self, core: NodeCore, driver: Driver, nursery: trio.Nursery) -> EngineShell:
        links = LinkShell(core, driver.step, nursery, self._credentials(), driver.report)
        commands = {model.name: self._engine_command(model) for model in self.models}
        engines = EngineShell(core, driver.step, links, nursery, commands)
        driver.datagrams = Udp(self.sockets.gossip.datagrams)
        driver.intake = Intake(driver.datagrams, core, driver.step)
        driver.connections, driver.processes = links, engines
        return engines

    def _seal(self) -> "Seal | None":
        if self.keyring is None:
            return None
        from mesh.seal import Seal, SealOptions

        return Seal(SealOptions(self.keyring, self.config.mesh_name), secrets.token_bytes)

    def _credentials(self) -> "Credentials | None":
        if self.keyring is None:
            return None
        from mesh.net.credentials import Credentials

        return Credentials(self.keyring, self.config.mesh_name, self.me.node)

    def _engine_command(self, model: ModelPath) -> EngineCommand:
        config = self.config
        settings = {
            "model": model.name,
            "directory": model.directory,
            "worker": self.me.name,
            "device": config.device,
            "dtype": config.dtype,
            "kv-dtype": config.kv_dtype,
            "threads": config.threads,
            "kv-bytes": config.kv_bytes,
            "step-tokens": config.prefill_chunk_tokens,
            "step-ms": round(config.step_budget_s * 1000),
            "running-max": config.sequences_max,
            "draft-rows": config.speculation_rows,
        }
        if config.cache_dir is not None:
            settings["cache-dir"] = config.cache_dir
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return EngineCommand(tuple(words), tuple(environment().items()))

    # -- start ------------------------------------------------------------------------------------

    async def _open(self, driver: Driver, nursery: trio.Nursery, engines: EngineShell) -> None:
        nursery.start_soon(driver.connections.serve, listener(self.sockets.gossip.links))
        nursery.start_soon(driver.datagrams.run)
        nursery.start_soon(driver.intake.run)
        seeds = Seeds(tuple(self.config.join), self.config.data_dir, self.log)
        first = await seeds.resolve()
        self._again("metadata", self._read_metadata, driver)
        driver.step(driver.core.start, first)
        nursery.start_soon(seeds.look_again, driver, first)
        nursery.start_soon(seeds.keep, driver)
        nursery.start_soon(driver.run_timer)
        nursery.start_soon(Lull(driver.datagrams, driver.intake.take, driver).run)
        self._mark("gossip")
        await self._open_http(Gateway(driver, self._stop.set), nursery)
        self._announce()
        if self.config.ready_file is not None:
            nursery.start_soon(self._write_ready_file, engines, self.config.ready_file)

    async def _open_http(self, gateway: Gateway, nursery: trio.Nursery) -> None:
        from node.http.app import serve_http
        from node.http.limits import Limits
        from node.http.server import Counters
        from node.ops.app import serve_ops

        shared = (gateway, Limits.of(self.config), self.log, Counters())
        await nursery.start(serve_ops, listener(self.sockets.ops), *shared)
        self._mark("ops")
        if self.sockets.http is not None:
            await nursery.start(serve_http, listener(self.sockets.http), *shared)
            self._mark("http")

    def _mark(self, stage: str) -> None:
        self._startup_ms[stage] = round((time.monotonic() - STARTED_AT) * 1000)

    def _announce(self) -> None:
        addresses = {name: str(address) for name, address in self._addresses().items()}
        self.log.info("serving", name=self.me.name, **addresses, pid=os.getpid())

    def _addresses(self) -> dict[str, HostPort]:
        bound = {"http": self.sockets.http, "ops": self.sockets.ops, "bind": self.sockets.gossip.links}
        return {name: address_of(sock) for name, sock in bound.items() if sock is not None}

    async def _write_ready_file(self, engines: EngineShell, path: Path) -> None:
        with trio.move_on_after(ENGINES_START_S):
            await engines.wait_running(len(self.models))
        addresses = {name: str(address) for name, address in self._addresses().items()}
        ready = {"name": self.me.name, "pid": os.getpid(), "http": "", **addresses}
        ready |= {"engines": engines.pids, "startup_ms": self._startup_ms}
        try:
            ready_file.write(path, json.dumps(ready))
        except OSError as error:
            self.log.write(Level.ERROR, "ready_file_failed", {"file": str(path), "error": error.strerror})

    # -- end --------------------------------------------------------------------------------------

    async def _watch_signals(self, driver: Driver, nursery: trio.Nursery) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await anext(signals)
            self._stop.set()
            number = await anext(signals)
            self.log.warning("stopping_now", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()

    async def _watch_files(self, driver: Driver) -> None:
        """Read the files of keys and metadata again at each SIGHUP; one that cannot be used changes nothing."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                self._again("keys", self._read_keys, driver)
                self._again("metadata", self._read_metadata, driver)

    def _again(self, name: str, read: Callable[[Driver], None], driver: Driver) -> None:
        try:
            read(driver)
        except (SettingsError, LimitError) as error:
            message, _, hint = str(error).partition("\nhint: ")
            self.log.write(Level.ERROR, f"{name}_not_read", {"error": message, "hint": hint})

    def _read_keys(self, driver: Driver) -> None:
        keyring = _keyring(self.config)
        if keyring is not None:
            driver.step(driver.core.rekey, keyring)
            driver.connections.credentials.rekey(keyring)

    def _read_metadata(self, driver: Driver) -> None:
        if self.config.metadata_file is not None:
            driver.step(driver.core.publish_metadata, metadata_file.read(self.config.metadata_file))

    def _must_stop(self, reason: str) -> None:
        """End at once and without a goodbye: the mesh goes on with whoever else bears our id."""
        self.fatal = reason
        self.log.write(Level.ERROR, "stopping", {"reason": reason})
        self._stop.set()

    def _keep(self, generation: int) -> None:
        """Write the raised generation down; a node whose disk takes nothing goes on, and says so."""
        raised = attrs.evolve(self.me.identity, generation=generation)
        try:
            keep_generation(self.config.data_dir, raised)
        except SettingsError as error:
            self.log.write(
                Level.WARNING, "generation_not_kept", {"generation": generation, "reason": str(error)}
            )

    async def _drain(self, driver: Driver) -> None:
        driver.step(driver.core.drain)
        with trio.move_on_after(self.config.drain_timeout_s) as scope:
            await driver.wait_idle()
        self.log.info("stopped", in_time=not scope.cancelled_caught)

    # -- events -----------------------------------------------------------------------------------

    def _report(self, report: Report) -> None:
        self.log.write(LEVELS.get(report.event, Level.INFO), report.event, dict(report.fields))

"""Whom a node asks to be let in: the addresses it was given, and the peers that it knew last.

Names are resolved at the start and, as long as nobody has let us in, again and again: records change, and
a resolver may be late. A name may stand for many addresses, of both families; all are seeds. With a data
directory, the addresses of some live peers are kept there whenever the view changes, so that a
restart finds the mesh even when none of the given seeds is left.
"""

import json
import random
from pathlib import Path

import attrs
import trio

from mesh.effects import Address
from mesh.member import Member
from node.driver import Driver
from node.logs import Level, Log
from node.values import HostPort

FILE = "peers.json"
PEERS_MAX = 16
"""Peers kept: that all of them are gone at once, while the mesh lives, is unlikely."""
KEEP_S = 5.0
"""Least time between two writes."""
RESOLVE_S = 10.0
"""So often names are resolved again while nobody has let us in."""


def read(data_dir: Path | None) -> tuple[Address, ...]:
    """Return the peers that were kept; none if there is no such file, or it is damaged (it is only a help)."""
    if data_dir is None:
        return ()
    try:
        rows = json.loads((data_dir / FILE).read_text())
        return tuple((str(host), int(port)) for host, port in rows)[:PEERS_MAX]
    except (OSError, ValueError, TypeError):
        return ()


def write(data_dir: Path, peers: tuple[Member, ...], rng: random.Random) -> None:
    """Keep the addresses of some peers, in place of those kept before. Raises OSError."""
    chosen = rng.sample(peers, min(PEERS_MAX, len(peers)))
    partial = data_dir / f"{FILE}.partial"
    partial.write_text(json.dumps([row.address for row in chosen]))
    partial.replace(data_dir / FILE)


@attrs.define
class Seeds:
    """The seeds of one node."""

    names: tuple[HostPort, ...]
    data_dir: Path | None
    log: Log
    _rng: random.Random = attrs.field(factory=random.Random)

    async def resolve(self) -> tuple[Address, ...]:
        """Return all addresses of all seeds, the given ones first. A name that cannot be resolved is logged."""
        found: list[Address] = []
        for host, port in self.names:
            try:
                entries = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
            except OSError as error:
                told = {"seed": f"{host}:{port}", "error": f"the name cannot be resolved: {error}"}
                self.log.write(Level.ERROR, "join_failed", told)
                continue
            found += [entry[4][:2] for entry in entries]
        return tuple(dict.fromkeys((*found, *read(self.data_dir))))

    async def look_again(self, driver: Driver, first: tuple[Address, ...]) -> None:
        """While nobody has let us in, resolve again, and ask whoever is found now; runs until cancelled."""
        asked = first
        while True:
            await trio.sleep(RESOLVE_S)
            if driver.core.swim.live > 1 or not self.names:
                continue
            seeds = await self.resolve()
            if set(seeds) != set(asked):
                asked = seeds
                driver.step(driver.core.join, seeds)

    async def keep(self, driver: Driver) -> None:
        """Keep the peers in the data directory as the view changes; runs until cancelled."""
        while self.data_dir is not None:
            await driver.wait_view_moved()
            peers = tuple(
                row for row in driver.core.swim.members() if row.is_live and row.node != driver.core.me.node
            )
            if not peers:
                continue
            try:
                write(self.data_dir, peers, self._rng)
            except OSError as error:
                self.log.write(Level.WARNING, "peers_not_kept", {"error": error.strerror})
            await trio.sleep(KEEP_S)

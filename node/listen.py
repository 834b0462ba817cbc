"""Binds the node's ports: exactly what was asked for, or the next free one after a default.

A default port that is taken moves on, so that a second node on the same machine
needs no flags; a port that somebody named is obeyed or refused.
"""

import errno
import socket
from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from node.configure import SettingsError
from node.values import HostPort

Bound = TypeVar("Bound")

TRIES_MAX = 100
"""Ports tried after a default one before giving up."""

BACKLOG = 1024
"""Connections that the kernel holds for us between two turns of the loop."""


@attrs.frozen
class Gossip:
    """The two sockets of one gossip address."""

    datagrams: socket.socket
    links: socket.socket

    @property
    def address(self) -> HostPort:
        """Where they listen."""
        return address_of(self.links)


def bind_tcp(wanted: HostPort, explicit: bool, flag: str) -> socket.socket:
    """Bind and listen. Raises SettingsError."""
    return _first_free(wanted, explicit, flag, _tcp)


def bind_gossip(wanted: HostPort, explicit: bool, flag: str) -> Gossip:
    """Bind TCP and UDP on one port number. Raises SettingsError."""
    return _first_free(wanted, explicit, flag, _both)


def address_of(sock: socket.socket) -> HostPort:
    """Return where a socket is bound."""
    return HostPort(*sock.getsockname()[:2])


def numeric(address: HostPort, flag: str) -> HostPort:
    """Resolve a name once, since members tell each other addresses only. Raises SettingsError."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(
            f"{flag} `{address}` cannot be resolved: {error.strerror}", "give an IP address"
        ) from None
    return HostPort(*found[0][4][:2])


def listener(sock: socket.socket) -> trio.SocketListener:
    """Hand a listening socket to trio."""
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _first_free(wanted: HostPort, explicit: bool, flag: str, bind: Callable[[HostPort], Bound]) -> Bound:
    for port in _ports(wanted.port, explicit):
        try:
            return bind(HostPort(wanted.host, port))
        except OSError as error:
            if explicit or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise _told(wanted, flag, error) from None
    last = wanted.port + TRIES_MAX
    raise SettingsError(
        f"no port from {wanted.port} to {last} is free on `{wanted.host}`", f"name one with {flag}"
    )


def _ports(port: int, explicit: bool) -> range:
    if explicit or port == 0:
        return range(port, port + 1)
    return range(port, min(port + TRIES_MAX, 65535) + 1)


def _told(wanted: HostPort, flag: str, error: OSError) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        hint = f"another process listens there; choose another port, or leave out {flag} to take the next free one"
        return SettingsError(f"{flag} `{wanted}` is taken", hint)
    return SettingsError(
        f"{flag} `{wanted}` cannot be bound: {error.strerror}", "is it an address of this machine?"
    )


def _tcp(address: HostPort) -> socket.socket:
    return _bound(address, socket.SOCK_STREAM)


def _both(address: HostPort) -> Gossip:
    links = _tcp(address)
    try:
        return Gossip(_bound(address_of(links), socket.SOCK_DGRAM), links)
    except OSError:
        links.close()
        raise


def _bound(address: HostPort, kind: socket.SocketKind) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(*address, type=kind)[0]
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock

"""The handshake of a link: what a connection begins with, and how it is secured.

Neither side asks for a host name: a node is who its certificate says, by node id, and the link's
hello must say the same.
"""

import socket
import ssl
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from mesh.net.credentials import Credentials  # 50 ms of start-up, for those who have a key

CLIENT_HELLO = 0x16
"""First byte of every TLS connection (a handshake record, RFC 8446, section 5.1); no link begins with it."""

HANDSHAKE_TIMEOUT_S = 5.0
"""An accepted connection that is not secured by then is closed."""

HANDSHAKES_MAX = 256
"""Accepted connections in their handshake at once; a further one is closed."""

HANDSHAKES_PER_S = 300.0
"""Accepted handshakes in a second, after a burst; a further connection is closed. Each takes 0.6 ms of a core, so
a flood of them takes a fifth of one at most."""

HANDSHAKES_BURST = 1024.0
"""Saved up at most: a thousand nodes may join through one in the same second."""

_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's X509_V_ERR_ codes."""


class HandshakeError(Exception):
    """A connection that could not be secured. The peer's fault, or the network's; it must be closed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """One word, for the counters."""


async def first_byte(stream: trio.SocketStream) -> int | None:
    """Wait for the first byte of a connection and leave it there; None if there is none."""
    try:
        data = await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        return None
    return data[0] if data else None


async def secure(
    stream: trio.SocketStream, credentials: "Credentials", accepting: bool
) -> tuple[trio.SSLStream[trio.SocketStream], str]:
    """Shake hands; return the secured stream and the node id of the peer. Raises HandshakeError."""
    secured = trio.SSLStream(
        stream,
        credentials.context(accepting),
        server_side=accepting,
        https_compatible=True,
    )
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        raise _told(error.__cause__) from None
    return secured, _node_of(secured)


def _node_of(secured: trio.SSLStream[trio.SocketStream]) -> str:
    names = dict(pair for group in secured.getpeercert().get("subject", ()) for pair in group)
    return str(names.get("commonName", ""))


def _told(cause: BaseException | None) -> HandshakeError:
    code = getattr(cause, "verify_code", None)
    if code in (_EXPIRED, _NOT_YET_VALID):
        return HandshakeError("clock", "its certificate is not valid at this time: compare the clocks")
    if code is not None or "UNKNOWN_CA" in str(getattr(cause, "reason", "")):
        return HandshakeError("key", "it has another mesh key or another mesh name")
    if isinstance(cause, ssl.SSLEOFError):
        return HandshakeError(
            "broken_off", "it broke the handshake off: it may have another mesh key or name"
        )
    if isinstance(cause, ssl.SSLError):
        return HandshakeError("protocol", f"no TLS as we speak it: {cause.reason}")
    return HandshakeError("closed", "it closed the connection in the handshake")

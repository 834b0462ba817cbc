"""What a node secures its links with: TLS 1.3 both ways, certificates from the mesh key, renewed in time.

Keys never touch a disk: OpenSSL reads them from an anonymous file in memory.
"""

import os
import ssl
import time
from collections.abc import Callable

import attrs

from mesh.authority import Issued, authority, issue
from mesh.keyring import Keyring


@attrs.define
class Credentials:
    """This node's certificates, and whose it believes."""

    keyring: Keyring
    label: str
    node: str
    wall: Callable[[], float] = time.time
    draw: Callable[[int], bytes] = os.urandom
    issued: Issued | None = attrs.field(init=False, default=None)
    _contexts: dict[bool, ssl.SSLContext] = attrs.field(init=False, factory=dict)

    def rekey(self, keyring: Keyring) -> None:
        """Take another ring: connections from now on use it, those that are open stay."""
        self.keyring, self.issued = keyring, None

    def context(self, accepting: bool) -> ssl.SSLContext:
        """Return the context for the next connection, with a certificate that is not due for renewal."""
        if self.issued is None or self.issued.is_due(self.wall()):
            self.issued = issue(self.keyring.first, self.label, self.node, self.wall(), self.draw)
            self._contexts = {side: self._context(side, self.issued) for side in (False, True)}
        return self._contexts[accepting]

    def _context(self, accepting: bool, issued: Issued) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if accepting else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        if accepting:
            context.num_tickets = 0
        authorities = b"".join(authority(key, self.label) for key in self.keyring.keys)
        context.load_verify_locations(cadata=authorities.decode())
        _load(context, issued)
        return context


def _load(context: ssl.SSLContext, issued: Issued) -> None:
    """Give a context its certificate and key through an anonymous file: it takes them from files only."""
    number = os.memfd_create("inferno-certificate", os.MFD_CLOEXEC)
    with open(number, "wb") as file:
        file.write(issued.key + issued.certificate)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{number}")

"""Certificates that nodes issue themselves: whoever holds the mesh key is the authority.

The authority's Ed25519 key and certificate are derived from the mesh key, the same to the byte on
every node, so that nothing is handed around and a ring of keys is a ring of authorities. A node's
certificate has a key of its own, its node id as the subject, and lives a day. Clocks may be an
hour apart. Times are seconds since the epoch; randomness is handed in.
"""

import datetime as dt
from collections.abc import Callable

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.keyring import MeshKey, label_bytes

LIFE_S = 24 * 3600.0
"""From its issue a certificate is good for so long."""
SKEW_S = 3600.0
"""A certificate begins so long before its issue, for verifiers whose clocks are behind."""
RENEW_S = LIFE_S * 2 / 3
"""A certificate is replaced at this age: a third of its life is left to notice that it was not."""

_SINCE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_UNTIL = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)


@attrs.frozen
class Issued:
    """A node's certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = attrs.field(repr=False)
    issued_at: float

    def is_due(self, wall: float) -> bool:
        """Whether another one should be used from now on; also if the clock was put back."""
        return not self.issued_at <= wall < self.issued_at + RENEW_S


def authority(key: MeshKey, label: str) -> bytes:
    """Return the certificate of a mesh key's authority, as PEM. Deterministic."""
    private = _authority_key(key, label)
    name = _authority_name(key)
    builder = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, _SINCE, _UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )
    return builder.sign(private, None).public_bytes(Encoding.PEM)


def issue(key: MeshKey, label: str, node: str, wall: float, draw: Callable[[int], bytes]) -> Issued:
    """Issue a certificate for a node id. `draw(n)` returns n random bytes."""
    above = _authority_key(key, label)
    own = Ed25519PrivateKey.from_private_bytes(draw(32))
    since, until = (dt.datetime.fromtimestamp(at, dt.UTC) for at in (wall - SKEW_S, wall + LIFE_S))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    serial = int.from_bytes(draw(16), "big") >> 1 | 1
    builder = (
        x509.CertificateBuilder(_authority_name(key), subject, own.public_key(), serial, since, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{node}.inferno")]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
    )
    pem = builder.sign(above, None).public_bytes(Encoding.PEM)
    return Issued(pem, own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), wall)


def _authority_key(key: MeshKey, label: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key.derive(b"authority " + label_bytes(label)))


def _authority_name(key: MeshKey) -> x509.Name:
    """Names of two authorities differ, so that a verifier with a ring picks the right one."""
    text = f"inferno mesh key {key.id} {key.check.hex()}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature, False, False, False, False, key_cert_sign, False, False, False)

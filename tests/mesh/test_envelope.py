"""The bytes of sealed datagrams, held still by golden files, and read by a second hand."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from mesh.codec import SEAL_BYTES_MAX
from mesh.cookie import COOKIE_BYTES
from mesh.envelope import (
    ANSWER_BYTES_MIN,
    COUNTER_MAX,
    PACKET_HEADER_BYTES,
    SHORTEST_BYTES,
    unword,
    word,
)
from tests.mesh.sealed_pair import Talk, kinds, secret

GOLDEN = Path(__file__).parent / "golden" / "sealed"


def conversation() -> dict[str, bytes]:
    """One datagram of each kind, always the same."""
    talk = Talk()
    talk.add("a", 7)
    b = talk.add("b", 7)
    talk.say("a", b.address, b"golden")
    talk.say("b", talk.parties["a"].address, b"answer")
    return dict(
        zip([kind.lower() for kind in kinds(talk.wire)], [data for _, _, data in talk.wire], strict=True)
    )


@pytest.mark.parametrize("kind", ["knock", "challenge", "admit", "data"])
def test_the_bytes_of_each_kind_stand_still(kind):
    assert conversation()[kind].hex() == (GOLDEN / f"{kind}.hex").read_text().strip()


def test_a_golden_datagram_opens_by_the_reference_page_alone():
    spoken = conversation()
    data, receiver = spoken["data"], spoken["admit"][2:10]
    key = HKDF(hashes.SHA256(), 32, None, b"inferno 1 session " + data[2:10]).derive(secret(7))
    label = hashlib.blake2b(b"inferno", digest_size=8, person=b"inferno-label").digest()
    opened = AESGCM(key).decrypt(bytes(6) + data[10:16], data[16:], data[:16] + receiver + label)
    assert opened == b"answer"


@given(st.integers(0, 3), st.integers(0, COUNTER_MAX))
def test_kind_and_counter_share_six_bytes(kind, counter):
    assert unword(word(kind, counter)) == (kind, counter)


def test_the_sizes_are_those_of_the_reference_page():
    assert {kind: len(data) for kind, data in conversation().items()} == {
        "knock": ANSWER_BYTES_MIN,
        "challenge": ANSWER_BYTES_MIN,
        "admit": 44 + len(b"golden"),
        "data": 32 + len(b"answer"),
    }
    assert SHORTEST_BYTES + COOKIE_BYTES - PACKET_HEADER_BYTES == SEAL_BYTES_MAX

import random

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from mesh.authority import LIFE_S, RENEW_S, SKEW_S, authority, issue
from tests.mesh.sealed_pair import ring

NODE = "00000000000000aa"
NOW = 1.75e9


def issued(key=1, label="inferno", seed=1):
    return issue(ring(key).first, label, NODE, NOW, random.Random(seed).randbytes)


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_every_holder_of_a_key_is_the_same_authority():
    assert authority(ring(1).first, "inferno") == authority(ring(1).first, "inferno")
    pems = {authority(ring(key).first, label) for key in (1, 2) for label in ("inferno", "other")}
    assert len(pems) == 4


def test_a_certificate_names_the_node_and_is_signed_by_its_authority_alone():
    certificate = read(issued().certificate)
    assert certificate.subject.rfc4514_string() == f"CN={NODE}"
    certificate.verify_directly_issued_by(read(authority(ring(1).first, "inferno")))
    with pytest.raises((InvalidSignature, ValueError)):
        certificate.verify_directly_issued_by(read(authority(ring(2).first, "inferno")))
    with pytest.raises(InvalidSignature):
        certificate.verify_directly_issued_by(read(authority(ring(1).first, "other")))


def test_a_node_cannot_issue_with_its_certificate():
    constraints = read(issued().certificate).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and not constraints.value.ca


def test_a_certificate_lives_a_day_and_bears_an_hour_of_skew():
    certificate = read(issued().certificate)
    assert certificate.not_valid_after_utc.timestamp() == NOW + LIFE_S
    assert certificate.not_valid_before_utc.timestamp() == NOW - SKEW_S


@pytest.mark.parametrize(
    ("wall", "due"), [(NOW, False), (NOW + RENEW_S - 1, False), (NOW + RENEW_S, True), (NOW - 1, True)]
)
def test_it_is_replaced_in_time_and_when_the_clock_was_put_back(wall, due):
    assert issued().is_due(wall) is due


def test_it_is_replaced_long_before_it_ends():
    assert RENEW_S + 4 * SKEW_S < LIFE_S


def test_two_issues_share_neither_key_nor_number():
    one, two = issued(seed=1), issued(seed=2)
    assert one.key != two.key
    assert read(one.certificate).serial_number != read(two.certificate).serial_number


def test_the_key_is_not_shown():
    assert "PRIVATE" not in repr(issued())

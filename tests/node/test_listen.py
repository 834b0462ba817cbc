"""Ports: the next free one after a default, exactly the one that was asked for otherwise."""

import socket
from collections.abc import Iterator

import pytest

from node.configure import SettingsError
from node.listen import address_of, bind_gossip, bind_tcp
from node.values import HostPort


@pytest.fixture
def taken() -> Iterator[HostPort]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield address_of(server)


def test_a_default_port_that_is_taken_moves_on(taken: HostPort) -> None:
    with bind_tcp(taken, explicit=False, flag="--http") as sock:
        assert taken.port < address_of(sock).port <= taken.port + 100


def test_an_explicit_port_that_is_taken_is_an_error_with_a_way_out(taken: HostPort) -> None:
    with pytest.raises(SettingsError, match=rf"--http `{taken}` is taken\nhint: .*"):
        bind_tcp(taken, explicit=True, flag="--http")


def test_port_zero_takes_any() -> None:
    with bind_tcp(HostPort("127.0.0.1", 0), explicit=True, flag="--http") as sock:
        assert address_of(sock).port > 0


def test_gossip_takes_one_number_for_datagrams_and_links() -> None:
    gossip = bind_gossip(HostPort("127.0.0.1", 0), explicit=True, flag="--bind")
    with gossip.datagrams, gossip.links:
        assert address_of(gossip.datagrams) == address_of(gossip.links) == gossip.address


def test_gossip_moves_on_when_only_the_datagram_port_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        gossip = bind_gossip(address_of(other), explicit=False, flag="--bind")
        with gossip.datagrams, gossip.links:
            assert gossip.address.port != address_of(other).port


def test_an_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(SettingsError, match="cannot be bound"):
        bind_tcp(HostPort("192.0.2.1", 0), explicit=False, flag="--http")


def test_ipv6_loopback_is_bound_if_the_system_has_it() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 here")
    with bind_tcp(HostPort("::1", 0), explicit=True, flag="--http") as sock:
        assert str(address_of(sock)).startswith("[::1]:")

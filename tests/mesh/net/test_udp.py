import errno
import socket
import sys

import pytest
import trio
import trio.testing

from mesh.net import udp
from mesh.net.udp import Udp


class Faulty:
    """A socket whose sends and reads fail as told, and otherwise pass through."""

    def __init__(self, real):
        self.real = real
        self.send_faults = []
        self.read_faults = []

    def sendto(self, data, address):
        if self.send_faults and (number := self.send_faults.pop(0)):
            raise OSError(number, "planted")
        return self.real.sendto(data, address)

    def recvfrom(self, limit):
        if self.read_faults and (number := self.read_faults.pop(0)):
            raise OSError(number, "planted")
        return self.real.recvfrom(limit)

    def getsockopt(self, *what):
        return self.real.getsockopt(*what)

    def fileno(self):
        return self.real.fileno()

    def close(self):
        self.real.close()


@pytest.fixture
def pair():
    one, two = Udp.bind("127.0.0.1", 0), Udp.bind("127.0.0.1", 0)
    yield one, two
    one._socket.close()
    two._socket.close()


@pytest.mark.trio
async def test_a_burst_is_read_in_one_wake_up_within_the_bound(pair):
    one, two = pair
    for index in range(udp.BURST_MAX + 10):
        one.send(two.address, bytes([index]))
    with trio.fail_after(5):
        first = await two.receive_many()
        second = await two.receive_many()
    assert [data[0] for data, _ in first + second] == list(range(udp.BURST_MAX + 10))
    assert len(first) == udp.BURST_MAX
    assert {source for _, source in first} == {one.address}
    assert two.statistics().received == udp.BURST_MAX + 10


SEND_FAULTS = {
    "EPERM": "a firewall's output rule",
    "EACCES": "a broadcast address, or a security module",
    "ENOBUFS": "the interface's queue is full",
    "ENOMEM": "the machine is short of memory",
    "ECONNREFUSED": "an earlier datagram met nobody",
    "EMSGSIZE": "longer than the path takes",
    "ENETUNREACH": "no route",
    "EHOSTUNREACH": "the last router knows no way",
    "ENETDOWN": "the interface is down",
    "ENODEV": "the interface is gone",
    "EADDRNOTAVAIL": "the address that we were bound to is gone",
    "EINVAL": "port 0",
    "EAFNOSUPPORT": "an address of another family",
    "EPIPE": "shut down locally",
    "EIO": "whatever else",
}
"""Every errno that sendto(2), udp(7) and ip(7) name for a datagram socket, and some that they do not."""


@pytest.mark.trio
@pytest.mark.parametrize("fault", [getattr(errno, name) for name in SEND_FAULTS], ids=SEND_FAULTS)
async def test_a_send_error_is_counted_and_the_socket_lives_on(pair, fault):
    one, two = pair
    one._socket = Faulty(one._socket)
    one._socket.send_faults = [fault]
    one.send(two.address, b"lost")
    one.send(two.address, b"found")
    with trio.fail_after(5):
        assert [data for data, _ in await two.receive_many()] == [b"found"]
    assert one.statistics().send_errors == {errno.errorcode[fault]: 1}
    assert one.statistics().sent == 1


@pytest.mark.trio
async def test_a_datagram_too_large_for_the_kernel_is_counted(pair):
    one, two = pair
    one.send(two.address, bytes(70_000))
    assert one.statistics().send_errors == {"EMSGSIZE": 1}


READ_FAULTS = (
    "ECONNREFUSED",
    "EPERM",
    "ENOMEM",
    "ENETDOWN",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "EMSGSIZE",
    "EIO",
)


@pytest.mark.trio
@pytest.mark.parametrize("name", READ_FAULTS)
async def test_a_read_error_does_not_blind_the_socket(pair, name):
    one, two = pair
    target = two.address
    two._socket = Faulty(two._socket)
    two._socket.read_faults = [getattr(errno, name)] * 2
    one.send(target, b"seen")
    with trio.fail_after(5):
        assert [data for data, _ in await two.receive_many()] == [b"seen"]
    assert two.statistics().receive_errors == {name: 2}


@pytest.mark.trio
async def test_nobody_at_the_other_end_is_survived_for_real(pair):
    one, two = pair
    gone, three = two.address, Udp.bind("127.0.0.1", 0)
    two.close()
    for _ in range(20):
        one.send(gone, b"?")
    one.send(three.address, b"!")
    with trio.fail_after(5):
        assert [data for data, _ in await three.receive_many()] == [b"!"]
    three.close()


@pytest.mark.trio
@pytest.mark.parametrize("name", ["not-an-address", "::1", "256.1.1.1", ""])
async def test_an_address_that_makes_no_sense_here_is_counted(pair, name):
    one, two = pair
    one.send((name, 1), b"?")
    one.send(two.address, b"!")
    with trio.fail_after(5):
        assert [data for data, _ in await two.receive_many()] == [b"!"]


def ipv6(host: str) -> Udp:
    try:
        return Udp.bind(host, 0)
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.trio
async def test_ipv6_carries_both_ways():
    one, two = ipv6("::1"), ipv6("::1")
    one.send(two.address, b"six")
    with trio.fail_after(5):
        assert await two.receive_many() == [(b"six", one.address)]
    one.close()
    two.close()


@pytest.mark.trio
async def test_a_socket_of_both_families_speaks_of_ipv4_peers_as_everybody_does(pair):
    four, _ = pair
    both = ipv6("::")
    four.send(("127.0.0.1", both.address[1]), b"from four")
    with trio.fail_after(5):
        assert await both.receive_many() == [(b"from four", four.address)]
    both.send(four.address, b"from both")
    with trio.fail_after(5):
        assert await four.receive_many() == [(b"from both", ("127.0.0.1", both.address[1]))]
    both.close()


@pytest.mark.trio
async def test_what_the_kernel_drops_is_counted(pair):
    one, two = pair
    two._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if two.overflowed() == 0 and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells")
    for _ in range(200):
        one.send(two.address, bytes(1000))
    received = 0
    with trio.fail_after(5):
        received += len(await two.receive_many())
    assert two.statistics().overflowed == 200 - received > 0


@pytest.mark.trio
async def test_what_the_kernel_will_not_take_waits_in_order_and_then_is_dropped(pair):
    one, two = pair
    one._socket = Faulty(one._socket)
    one._socket.send_faults = [errno.EAGAIN]
    for index in range(udp.OUTBOX_MAX + 5):
        one.send(two.address, index.to_bytes(2, "big"))
    assert one.statistics().dropped == 5
    received = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        with trio.fail_after(5):
            while len(received) < udp.OUTBOX_MAX:
                received += [int.from_bytes(data, "big") for data, _ in await two.receive_many()]
        nursery.cancel_scope.cancel()
    assert received == list(range(udp.OUTBOX_MAX))


@pytest.mark.trio
async def test_closing_wakes_the_reader(pair):
    one, _ = pair
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _read():
                with pytest.raises(trio.ClosedResourceError):
                    await one.receive_many()

            await trio.testing.wait_all_tasks_blocked()
            one.close()
            one.close()


def test_a_taken_port_is_the_callers_to_know(pair):
    one, _ = pair
    with pytest.raises(OSError, match="in use"):
        Udp.bind(*one.address)

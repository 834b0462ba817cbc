import errno

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


@pytest.mark.trio
@pytest.mark.parametrize(
    "fault", [errno.EPERM, errno.ENOBUFS, errno.ECONNREFUSED, errno.EMSGSIZE, errno.ENETUNREACH]
)
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


@pytest.mark.trio
async def test_a_read_error_does_not_blind_the_socket(pair):
    one, two = pair
    target = two.address
    two._socket = Faulty(two._socket)
    two._socket.read_faults = [errno.ECONNREFUSED, errno.EPERM]
    one.send(target, b"seen")
    with trio.fail_after(5):
        assert [data for data, _ in await two.receive_many()] == [b"seen"]
    assert two.statistics().receive_errors == {"ECONNREFUSED": 1, "EPERM": 1}


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

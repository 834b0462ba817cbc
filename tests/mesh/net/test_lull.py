"""While trio has nothing to do, gossip is served without it, and trio misses nothing."""

import contextlib
import select
import socket
import sys

import attrs
import pytest
import trio

from mesh.net.lull import Lull, scheduler_epoll
from mesh.net.udp import Udp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs an epoll that watches another")
LOOPBACK = "127.0.0.1"


@attrs.define
class Bell:
    """A driver that counts its ticks, and does what it is told at one of them."""

    deadline: float
    period: float = 0.005
    stirred: bool = False
    lulled: bool = False
    ticks: int = 0
    lulled_ticks: int = 0
    rings: int = 3
    rung: trio.Event = attrs.Factory(trio.Event)
    error: Exception | None = None

    def tick(self) -> None:
        self.ticks += 1
        self.lulled_ticks += self.lulled
        self.deadline += self.period
        if self.error is not None:
            raise self.error
        if self.ticks == self.rings:
            self.rung.set()
            self.stirred = True

    def lull(self, lulled: bool) -> None:
        self.lulled, self.stirred = lulled, False


class Post:
    """A socket, what arrived, and a task that waits on it as the intake's does."""

    def __init__(self, wanted: int = 1) -> None:
        self.udp = Udp.bind(LOOPBACK, 0)
        self.lull: Lull | None = None
        self.bell = Bell(trio.current_time() + 3600)
        self.in_lull: list[bytes] = []
        self.in_task: list[bytes] = []
        self.wanted = wanted
        self.all = trio.Event()

    def take(self, _mono, burst) -> None:
        self.in_lull += [data for data, _ in burst]
        self._look()

    async def receive(self) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            while True:
                self.in_task += [data for data, _ in await self.udp.receive_many()]
                self._look()

    def _look(self) -> None:
        if len(self.in_lull) + len(self.in_task) >= self.wanted:
            self.all.set()
            self.bell.stirred = True

    def send(self, data: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, self.udp.address)


@pytest.fixture
async def post(nursery):
    post = Post()
    post.lull = Lull(post.udp, post.take, post.bell)
    nursery.start_soon(post.receive)
    nursery.start_soon(post.lull.run)
    await trio.testing.wait_all_tasks_blocked()
    yield post
    post.udp.close()


def test_there_is_no_epoll_before_there_is_a_scheduler():
    assert scheduler_epoll() is None


async def test_a_datagram_that_finds_trio_idle_is_taken_without_waking_its_task(post):
    await trio.to_thread.run_sync(post.send, b"one")
    with trio.fail_after(5):
        await post.all.wait()
    assert post.in_lull == [b"one"]
    assert post.in_task == []
    assert post.lull.served == 1


async def test_ticks_come_when_they_are_due_and_whoever_they_wake_goes_on(post):
    began = trio.current_time()
    post.bell.deadline = began + 0.005
    with trio.fail_after(5):
        await post.bell.rung.wait()
    assert post.bell.lulled_ticks == 3
    assert trio.current_time() - began >= 0.015


async def test_deadlines_of_other_tasks_are_kept(post):
    post.bell.deadline, post.bell.rings = trio.current_time() + 0.002, 10**9
    began = trio.current_time()
    with trio.move_on_after(0.05) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert 0.05 <= trio.current_time() - began < 2
    assert post.bell.ticks > 1


async def test_other_sockets_wake_their_tasks(post, nursery):
    ours, theirs = trio.socket.socketpair()
    with ours, theirs, trio.fail_after(5):
        nursery.start_soon(theirs.send, b"hello")
        assert await ours.recv(16) == b"hello"


async def test_a_flood_of_datagrams_does_not_starve_the_tasks(post):
    post.wanted = 10**9
    with trio.fail_after(5):
        for _ in range(50):
            post.send(b"flood")
            await trio.lowlevel.checkpoint()
    assert not post.all.is_set()


async def test_the_tasks_serve_while_trio_is_busy(post):
    post.send(b"busy")
    with trio.fail_after(5):
        while not post.all.is_set():
            await trio.lowlevel.checkpoint()
    assert post.in_task == [b"busy"]


async def test_what_a_step_raises_is_raised_and_not_lost():
    bell = Bell(trio.current_time() + 0.01, error=ValueError("our bug"))
    lull = Lull(Udp.bind(LOOPBACK, 0), lambda mono, burst: None, bell)
    with trio.fail_after(5), pytest.raises(ValueError, match="our bug"):
        await lull.run()
    assert not bell.lulled
    lull.udp.close()


async def test_without_an_epoll_to_watch_it_does_nothing(post, nursery):
    with select.epoll():
        other = Lull(post.udp, post.take, Bell(trio.current_time()))
        with trio.move_on_after(0.01):
            await other.run()
    assert other.served == 0

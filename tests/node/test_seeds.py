"""Whom a node asks to be let in, and what it keeps of its peers."""

import io
import json
import random
import socket
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from node.logs import Log
from node.seeds import FILE, KEEP_S, PEERS_MAX, RESOLVE_S, Seeds, read, write
from node.values import HostPort
from tests.mesh.small_world import account

NAME = HostPort("mesh.example", 7946)


class Names(trio.abc.HostnameResolver):
    """A resolver whose answers are given."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, type, proto, "", (one, port)) for one in self.known[name]]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
async def names():
    found = Names()
    trio.socket.set_custom_hostname_resolver(found)
    return found


class Core:
    """A core that only says how many live, and hears whom to ask."""

    def __init__(self, live=1):
        self.swim = self
        self.live = live
        self.me = account(1)
        self.joined = []

    def join(self, seeds):
        self.joined.append(seeds)

    def members(self):
        return tuple(account(index) for index in range(1, self.live + 1))


@attrs.define
class FakeDriver:
    core: Core
    moved: trio.Event = attrs.Factory(trio.Event)

    def step(self, method, *arguments):
        return method(*arguments)

    async def wait_view_moved(self):
        await self.moved.wait()
        self.moved = trio.Event()


def seeds(data_dir=None, log=None):
    return Seeds((NAME,), data_dir, log or Log(io.StringIO()))


async def test_a_name_with_several_records_gives_several_seeds(autojump_clock: MockClock, names: Names):
    names.known["mesh.example"] = ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
    assert await seeds().resolve() == (("10.0.0.1", 7946), ("10.0.0.2", 7946), ("2001:db8::1", 7946))


async def test_a_name_that_is_not_known_yet_is_asked_for_again(autojump_clock: MockClock, names: Names):
    log, driver = io.StringIO(), FakeDriver(Core())
    looking = seeds(log=Log(log))
    first = await looking.resolve()
    assert first == ()
    assert "mesh.example" in log.getvalue()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(looking.look_again, driver, first)
        await trio.sleep(2 * RESOLVE_S + 1)
        assert not driver.core.joined
        names.known["mesh.example"] = ["10.0.0.1"]
        await trio.sleep(2 * RESOLVE_S)
        nursery.cancel_scope.cancel()
    assert driver.core.joined == [(("10.0.0.1", 7946),)], "asked once, and not again while nothing changes"


async def test_who_has_been_let_in_does_not_look_again(autojump_clock: MockClock, names: Names):
    driver = FakeDriver(Core(live=2))
    names.known["mesh.example"] = ["10.0.0.1"]
    with trio.move_on_after(5 * RESOLVE_S):
        await seeds().look_again(driver, ())
    assert not driver.core.joined


async def test_peers_are_kept_as_the_view_changes_and_are_seeds_of_the_next_start(
    autojump_clock: MockClock, names: Names, tmp_path: Path
):
    driver, kept = FakeDriver(Core(live=40)), seeds(tmp_path)
    with trio.move_on_after(3 * KEEP_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.keep, driver)
            await trio.sleep(1)
            driver.moved.set()
    found = await seeds(tmp_path).resolve()
    assert len(found) == PEERS_MAX
    assert set(found) <= {account(index).address for index in range(2, 41)}, "not we ourselves"


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["a"]]', '[["10.0.0.1", "x"]]', "null", "5"])
def test_a_damaged_file_is_no_help_and_no_harm(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    assert read(tmp_path) == ()


def test_nothing_is_read_without_a_data_directory_or_a_file(tmp_path: Path):
    assert read(None) == read(tmp_path) == ()


def test_few_peers_are_all_kept(tmp_path: Path):
    write(tmp_path, (account(2), account(3)), random.Random(1))
    assert set(read(tmp_path)) == {account(2).address, account(3).address}
    assert json.loads((tmp_path / FILE).read_text())

"""Links over real loopback sockets: TLS between holders of a key, refusal of everybody else."""

import contextlib
import ssl

import attrs
import pytest
import trio
import trio.testing

from mesh.effects import Report
from mesh.frames import Frame, Hello, Kind
from mesh.links import Links
from mesh.net import handshake
from mesh.net.credentials import Credentials
from mesh.net.links import LinkShell
from mesh.now import Now
from tests.mesh.sealed_pair import ring

A, B = "00000000000000aa", "00000000000000bb"


class Core:
    """The link part of a node's core, with what came out of it."""

    def __init__(self, node: str):
        self.links = Links(Hello(1, node, 0, node, "127.0.0.1:1"))
        self.frames: list[Frame] = []
        self.facts: list = []
        self.shell: LinkShell | None = None
        self.happened = trio.Event()

    def step(self, method, *arguments):
        now = Now(trio.current_time(), 0.0)
        value, outputs = None, method(now, *arguments)
        if isinstance(outputs, tuple):
            value, outputs = outputs
        for output in outputs:
            match type(output).__name__:
                case "FlushLink":
                    self.shell.flush(output.link)
                case "Dial":
                    self.shell.dial(output.link, output.address)
                case "CloseLink":
                    self.shell.close(output.link, output.reason)
                case _:
                    self.note(output)
        return value

    def note(self, what):
        self.facts.append(what)
        self.happened.set()
        self.happened = trio.Event()

    def link_accepted(self, now):
        return self.links.accepted(now)

    def link_verified(self, now, link, node):
        self.links.verified(link, node)
        return []

    def link_opened(self, now, link):
        return self.links.opened(now, link)

    def link_data(self, now, link, data):
        frames, outputs = self.links.input(now, link, data)
        for frame in frames:
            self.frames.append(frame)
            self.note(frame)
        return outputs

    def link_lost(self, now, link, reason):
        return self.links.lost(now, link, reason)

    def link_output(self, link, bytes_max):
        return self.links.output(link, bytes_max)

    def send(self, now, frame, address):
        return self.links.send(now, frame, "", address)

    async def wait(self, holds):
        with trio.fail_after(10):
            while not any(map(holds, self.facts)):
                await self.happened.wait()
        return next(filter(holds, self.facts))


@attrs.define
class End:
    core: Core
    shell: LinkShell
    address: tuple[str, int]


@contextlib.asynccontextmanager
async def ends(*specs):
    """Listening nodes; each spec is (node, credentials or None)."""
    async with trio.open_nursery() as nursery:
        made, listeners = [], []
        for node, credentials in specs:
            core = Core(node)
            shell = LinkShell(core, core.step, nursery, credentials, core.note)
            core.shell = shell
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(shell.serve, listener)
            made.append(End(core, shell, listener.socket.getsockname()[:2]))
            listeners.append(listener)
        yield made
        nursery.cancel_scope.cancel()
    for listener in listeners:
        await listener.aclose()


def credentials(node: str, *ids: int, label: str = "inferno", wall: float | None = None) -> Credentials:
    made = Credentials(ring(*(ids or (1,))), label, node)
    if wall is not None:
        made.wall = lambda: wall
    return made


def named(name: str):
    return lambda what: type(what).__name__ == name


def refused(what) -> bool:
    return isinstance(what, Report) and what.event == "link_refused"


async def test_holders_of_one_key_are_linked_and_large_frames_arrive_whole():
    async with ends((A, credentials(A)), (B, credentials(B))) as (a, b):
        body = bytes(range(256)) * 4096
        a.core.step(a.core.send, Frame(Kind.OPEN, 7, 1, body), b.address)
        await b.core.wait(named("LinkUp"))
        frame = await b.core.wait(named("Frame"))
        assert frame == Frame(Kind.OPEN, 7, 1, body)
        assert (await a.core.wait(named("LinkUp"))).node == B
        assert a.shell.statistics().secured + b.shell.statistics().secured == 2


async def test_nothing_of_a_frame_is_seen_on_the_wire_and_it_is_tls_1_3():
    seen = bytearray()
    async with ends((A, credentials(A)), (B, credentials(B))) as (a, b):

        async def copy(source, target):
            async for data in source:
                seen.extend(data)
                await target.send_all(data)

        async def relay(stream):
            other = await trio.open_tcp_stream(*b.address)
            async with other, trio.open_nursery() as nursery:
                nursery.start_soon(copy, stream, other)
                await copy(other, stream)

        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, relay, [listener])
            where = listener.socket.getsockname()[:2]
            a.core.step(a.core.send, Frame(Kind.OPEN, 7, 1, b"a secret prompt" * 9), where)
            await b.core.wait(named("Frame"))
            nursery.cancel_scope.cancel()
        await listener.aclose()
    assert b"secret" not in seen and A.encode() not in seen and B.encode() not in seen
    assert seen[0] == handshake.CLIENT_HELLO
    context = credentials(A).context(True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3 and context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (credentials(A, 1), credentials(B, 2), "key"),
        (credentials(A), credentials(B, label="other"), "key"),
        (credentials(A), credentials(B, wall=1.0e9), "clock"),
        (credentials(A), credentials(B, wall=4.0e9), "clock"),
    ],
    ids=["key", "name", "expired", "not yet valid"],
)
async def test_a_stranger_is_refused_by_both_who_say_why(one, other, reason):
    async with ends((A, one), (B, other)) as (a, b):
        a.core.step(a.core.send, Frame(Kind.OPEN, 7), b.address)
        told = await a.core.wait(refused)
        assert dict(told.fields)["reason"] == reason
        await a.core.wait(named("LinkDown"))
        await b.core.wait(refused)
        assert b.core.frames == []


async def test_a_ring_with_both_keys_is_linked_to_either_side():
    async with ends((A, credentials(A, 1, 2)), (B, credentials(B, 2, 1))) as (a, b):
        a.core.step(a.core.send, Frame(Kind.OPEN, 7), b.address)
        await b.core.wait(named("Frame"))


async def test_a_clear_peer_is_refused_and_told_apart():
    async with ends((A, None), (B, credentials(B))) as (a, b):
        a.core.step(a.core.send, Frame(Kind.OPEN, 7), b.address)
        assert dict((await b.core.wait(refused)).fields)["reason"] == "clear"
        await a.core.wait(named("LinkDown"))
        assert b.core.frames == [] and len(b.core.links) == 0


async def test_a_clear_node_says_that_the_other_has_a_key():
    async with ends((A, credentials(A)), (B, None)) as (a, b):
        a.core.step(a.core.send, Frame(Kind.OPEN, 7), b.address)
        assert dict((await b.core.wait(refused)).fields)["reason"] == "tls"
        await a.core.wait(named("LinkDown"))


async def test_a_member_that_claims_to_be_another_is_cut_off():
    async with ends((A, credentials("00000000000000cc")), (B, credentials(B))) as (a, b):
        a.core.step(a.core.send, Frame(Kind.OPEN, 7), b.address)
        down = await b.core.wait(named("LinkDown"))
        assert "its certificate" in down.reason
        assert b.core.frames == []


async def test_who_says_nothing_is_closed_in_time(monkeypatch):
    monkeypatch.setattr("mesh.net.links.HANDSHAKE_TIMEOUT_S", 0.05)
    async with ends((B, credentials(B))) as (b,):
        async with await trio.open_tcp_stream(*b.address) as stream:
            with trio.fail_after(10):
                assert await stream.receive_some() == b""
        assert b.shell.statistics().refused == {"slow": 1}


async def test_handshakes_at_once_are_bounded(monkeypatch):
    monkeypatch.setattr("mesh.net.links.HANDSHAKES_MAX", 2)
    async with ends((B, credentials(B))) as (b,):
        streams = [await trio.open_tcp_stream(*b.address) for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await trio.open_tcp_stream(*b.address) as third:
            with trio.fail_after(10):
                assert await third.receive_some() == b""
        assert b.shell.statistics().refused == {"busy": 1}
        for stream in streams:
            await stream.aclose()


async def test_handshakes_in_a_second_are_bounded(monkeypatch):
    monkeypatch.setattr("mesh.net.links.HANDSHAKES_BURST", 1.0)
    monkeypatch.setattr("mesh.net.links.HANDSHAKES_PER_S", 0.0)
    async with ends((A, credentials(A)), (B, credentials(B))) as (a, b):
        a.core.step(a.core.send, Frame(Kind.OPEN, 7), b.address)
        await b.core.wait(named("Frame"))
        async with await trio.open_tcp_stream(*b.address) as stream:
            await stream.send_all(bytes((handshake.CLIENT_HELLO,)))
            with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        assert b.shell.statistics().refused == {"busy": 1}


async def test_nonsense_after_the_first_byte_is_refused():
    async with ends((B, credentials(B))) as (b,), await trio.open_tcp_stream(*b.address) as stream:
        await stream.send_all(bytes((handshake.CLIENT_HELLO,)) + b"\xff" * 100)
        assert dict((await b.core.wait(refused)).fields)["reason"] == "protocol"


def test_a_certificate_is_renewed_before_it_ends_and_after_a_rotation():
    made = credentials(A, wall=1.75e9)
    first, issued = made.context(True), made.issued
    assert made.context(True) is first
    made.wall = lambda: 1.75e9 + 17 * 3600
    assert made.context(True) is not first and made.issued != issued
    again = made.issued
    made.rekey(ring(2, 1))
    made.context(False)
    assert made.issued != again

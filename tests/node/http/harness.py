"""A node's ports on loopback, over the fake gateway, in a thread of their own: for clients that block."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from node.http.app import serve_http
from node.http.counters import Counters
from node.http.limits import Limits
from node.logs import Log
from node.ops.app import serve_ops
from tests.node.http.fake import FakeGateway


@attrs.define
class Ports:
    """Where the node listens, and what it has done."""

    http: str
    ops: str
    gateway: FakeGateway
    counters: Counters
    log: io.StringIO


@contextmanager
def running(gateway: FakeGateway, limits: Limits | None = None) -> Iterator[Ports]:
    """Run both ports until the block ends."""
    started, box = threading.Event(), []
    thread = threading.Thread(target=trio.run, args=(_serve, gateway, limits or Limits(), started, box))
    thread.start()
    started.wait(10)
    ports, token, scope = box
    try:
        yield ports
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(10)
    assert not thread.is_alive()


async def _serve(gateway: FakeGateway, limits: Limits, started: threading.Event, box: list[object]) -> None:
    log, counters = io.StringIO(), Counters()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        [http] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        [ops] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(serve_http, http, gateway, limits, Log(log), counters)
        await nursery.start(serve_ops, ops, gateway, limits, Log(log), counters)
        box += [Ports(_url(http), _url(ops), gateway, counters, log), trio.lowlevel.current_trio_token()]
        box.append(nursery.cancel_scope)
        started.set()


def _url(listener: trio.SocketListener) -> str:
    return f"http://127.0.0.1:{listener.socket.getsockname()[1]}"

"""The HTTP port of a node: the OpenAI routes and the chat page."""

import trio

from node.gateway import Gateway
from node.http import page
from node.http.api import Api
from node.http.counters import Counters
from node.http.limits import Limits
from node.http.message import header_value
from node.http.router import Router
from node.http.server import Server
from node.logs import Log


async def serve_http(
    listener: trio.abc.Listener[trio.abc.Stream],
    gateway: Gateway,
    limits: Limits,
    log: Log,
    counters: Counters | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve clients on a bound listener until cancelled; what fails is written to `log`.

    Hand the same `counters` to `serve_ops`, so that its metrics tell of this port.
    """
    router = Router.of((*Api(gateway).routes(), *page.routes()))
    headers = ((b"x-inferno-node", header_value(gateway.name)),)
    server = Server(router, limits, log, headers, counters or Counters())
    await server.serve(listener, task_status=task_status)

"""The operations port of a node: health, metrics, members, flights, records, drain."""

import json
import re
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs

import attrs
import trio

from node.errors import RequestError
from node.gateway import Gateway
from node.http.counters import Counters
from node.http.limits import Limits
from node.http.message import EVENTS, TEXT, Request, Response, header_value
from node.http.router import Route, Router
from node.http.server import Exchange, Server
from node.logs import Log

CONVERGED_MAX_S = 300.0
"""Longest that `/converged` waits."""

OCTETS = b"application/octet-stream"
METRICS_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


@attrs.frozen
class Operations:
    """The routes of the operations port, over a gateway."""

    gateway: Gateway
    http: Counters
    """Counters of the HTTP port."""
    ops: Counters
    """Counters of this port."""

    def routes(self) -> tuple[Route, ...]:
        """Return the table's rows."""
        return (
            Route("GET", "/health", self.health),
            Route("GET", "/health/live", self.health),
            Route("GET", "/health/ready", self.ready),
            Route("GET", "/metrics", self.metrics),
            Route("GET", "/members", self.members),
            Route("GET", "/view", self.view, waits=True),
            Route("GET", "/converged", self.converged, waits=True),
            Route("GET", "/flights", self.flights),
            Route("GET", "/records", self.records),
            Route("GET", "/why", self.why),
            Route("GET", "/events", self.events),
            Route("POST", "/events", self.announce),
            Route("GET", "/metadata", self.metadata),
            Route("POST", "/drain", self.drain),
            Route("POST", "/forget", self.forget),
        )

    def health(self, request: Request) -> Response:
        """Answer as long as the process can: what a supervisor asks before it restarts anything."""
        return Response(200, b"healthy", TEXT)

    def ready(self, request: Request) -> Response:
        """Say whether a request sent here now could be answered, here or elsewhere in the mesh."""
        ready, why = self.gateway.ready()
        return Response(200, b"ready", TEXT) if ready else Response(503, why.encode(), TEXT)

    def metrics(self, request: Request) -> Response:
        """Expose counters and gauges to Prometheus."""
        from node.ops.metrics import exposition  # 40 ms that start-up need not wait for

        statistics = {
            **self.gateway.statistics(),
            "http": self.http.statistics(),
            "ops": self.ops.statistics(),
        }
        return Response(200, exposition(statistics), METRICS_TEXT)

    def members(self, request: Request) -> Response:
        """List the members of the mesh as this node sees them."""
        return _json(self.gateway.members())

    async def view(self, request: Request, exchange: Exchange) -> None:
        """Stream the view of the mesh as server-sent events: a snapshot first, then coalesced changes."""
        await exchange.start(200, EVENTS)
        async with aclosing(self.gateway.view()) as changes:
            async for change in changes:
                await exchange.write(b"data: " + json.dumps(change).encode() + b"\n\n")

    async def converged(self, request: Request, exchange: Exchange) -> None:
        """Wait, `?timeout_s=`, until all live peers hold the same view as this node, and say who does not."""
        began = trio.current_time()
        unlike = await self.gateway.converged(_timeout_s(request))
        waited_s = round(trio.current_time() - began, 3)
        body = {"converged": not unlike, "waited_s": waited_s, "unlike": unlike}
        await exchange.send(Response(503 if unlike else 200, json.dumps(body).encode()))

    def flights(self, request: Request) -> Response:
        """List the flights whose entry this node is."""
        return _json(self.gateway.flights())

    def records(self, request: Request) -> Response:
        """List the replicated records of a namespace, or of all; values of secrets are left out."""
        namespace = parse_qs(request.query).get("namespace", [""])[0]
        return _json(self.gateway.records(namespace))

    def why(self, request: Request) -> Response:
        """Say why this node quarantined members or held them dead: of one, `?node=ID`, or of all.

        With `?request=ID`: why a request whose entry this node is went where it went.
        """
        query = parse_qs(request.query)
        if "request" in query:
            return self._why_there(query["request"][0])
        return _json(self.gateway.why(query.get("node", [""])[0]))

    def _why_there(self, id: str) -> Response:
        decisions = self.gateway.why_there(_flight_id(id))
        if decisions:
            return _json(decisions)
        error = f"no decision about a request `{id:.64}` is remembered here; ask the node where it came in"
        return Response(404, json.dumps({"error": error}).encode())

    def events(self, request: Request) -> Response:
        """List the user events that this node heard last, in their order."""
        return _json(self.gateway.events())

    def announce(self, request: Request) -> Response:
        """Tell every node a user event: its name is `?name=`, its payload the body, UTF-8."""
        name = parse_qs(request.query).get("name", [""])[0]
        if not name:
            raise RequestError("invalid_request", "an event needs a `name` in the query", "name")
        try:
            payload = request.body.decode()
        except UnicodeDecodeError:
            raise RequestError("invalid_request", "the body of an event must be UTF-8") from None
        self.gateway.announce(name, payload)
        return Response(202, json.dumps({"announced": name}).encode())

    def metadata(self, request: Request) -> Response:
        """Give what a member, `?node=ID`, publishes about itself, as it is."""
        node = parse_qs(request.query).get("node", [""])[0]
        value = self.gateway.metadata(node)
        if value is None:
            error = {"error": f"no member `{node}` is known here, or its metadata are still under way"}
            return Response(404, json.dumps(error).encode())
        return Response(200, value, OCTETS)

    def drain(self, request: Request) -> Response:
        """Begin to drain: no new requests, what runs may end, then the node leaves."""
        self.gateway.drain()
        return Response(202, b'{"draining": true}')

    def forget(self, request: Request) -> Response:
        """Let the mesh forget this life of a member, `?node=ID`: no rumour brings it back, its next start does."""
        node = parse_qs(request.query).get("node", [""])[0]
        if not self.gateway.forget(node):
            error = {"error": f"no other member of this mesh has the id `{node}`; GET /members lists them"}
            return Response(404, json.dumps(error).encode())
        return Response(202, json.dumps({"forgotten": node}).encode())


def _flight_id(text: str) -> int:
    """Read a request's id: its `x-request-id`, or the `id` of its answer. Raises RequestError."""
    digits = text.rpartition("-")[2]
    if not re.fullmatch(r"[0-9a-f]{16}", digits):
        message = f"`{text:.64}` is not the id of a request: 16 hexadecimal digits, as in its `x-request-id`"
        raise RequestError("invalid_request", message, "request")
    return int(digits, 16)


def _timeout_s(request: Request) -> float:
    """Seconds to wait, from the query. Raises RequestError."""
    text = parse_qs(request.query).get("timeout_s", ["10"])[0]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= CONVERGED_MAX_S:
        message = f"`timeout_s` is `{text:.40}`, not a number of seconds from 0 to {CONVERGED_MAX_S:g}"
        raise RequestError("invalid_request", message, "timeout_s")
    return seconds


def _json(value: Any) -> Response:
    return Response(200, json.dumps(value).encode())


async def serve_ops(
    listener: trio.abc.Listener[trio.abc.Stream],
    gateway: Gateway,
    limits: Limits,
    log: Log,
    http: Counters | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve operators on a bound listener until cancelled. `http` are the counters given to `serve_http`."""
    counters = Counters()
    router = Router.of(Operations(gateway, http or Counters(), counters).routes())
    headers = ((b"x-inferno-node", header_value(gateway.name)),)
    await Server(router, limits, log, headers, counters).serve(listener, task_status=task_status)

"""The operations port of a node: health, metrics, members, flights, records, drain."""

import json
from typing import Any
from urllib.parse import parse_qs

import attrs
import trio

from node.gateway import Gateway
from node.http.counters import Counters
from node.http.limits import Limits
from node.http.message import TEXT, Request, Response, header_value
from node.http.router import Route, Router
from node.http.server import Server
from node.logs import Log

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
            Route("GET", "/flights", self.flights),
            Route("GET", "/records", self.records),
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

    def flights(self, request: Request) -> Response:
        """List the flights whose entry this node is."""
        return _json(self.gateway.flights())

    def records(self, request: Request) -> Response:
        """List the replicated records of a namespace, or of all; values of secrets are left out."""
        namespace = parse_qs(request.query).get("namespace", [""])[0]
        return _json(self.gateway.records(namespace))

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

"""The HTTP/1.1 server: connections, deadlines and disconnects, on trio.

Theory of operation. A connection is one task, one Parser and one cancel scope, whose deadline says how long
the present phase may last: resting, reading a head, reading a body, writing. When it passes, the scope is
cancelled and the connection ends, with a 408 if the client was in the middle of a request. Requests are
answered one after another. A route that waits runs beside a task that reads on, so that a client who
goes away cancels the work; what it reads is the next request, kept within `pipeline_bytes_max`.

Nothing that one connection causes leaves its task.
"""

import errno
import traceback

import attrs
import trio

from node.errors import RequestError
from node.gateway import FlightFailed
from node.http.counters import Counters
from node.http.errors import error_response, of_failure
from node.http.limits import Limits, exceeded
from node.http.message import CONTINUE, LAST_CHUNK, Headers, Request, Response, chunk, head, whole
from node.http.parse import Parser, Phase
from node.http.router import Route, Router
from node.logs import Log

READ_BYTES = 64 * 1024
WRITE_BYTES = 64 * 1024
"""Largest piece written under one deadline, so that a long answer to a slow but steady client is no stall."""

LINGER_BYTES_MAX = 8 << 20
LINGER_S = 2.0
"""After a refusal the rest of the request is read and dropped within these bounds: closing at once would
make the kernel reset the connection, and the client would never see why (RFC 9112 9.6)."""

LAST_WORDS_S = 2.0
"""How long the last answer of a connection that timed out may take."""

ACCEPT_PAUSE_S = 0.1
ACCEPT_ERRORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
"""The machine is short of something; connections wait in the backlog until it has passed."""

DEADLINE_SLACK_S = 0.25
"""Deadlines are kept this loosely: moving one costs as much as parsing a request."""

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What trio raises when the client has gone."""

INTERNAL = RequestError("internal_error", "the node failed to answer this request; its log says why")
NO_DEADLINE = float("inf")


@attrs.define
class Server:
    """What the connections of one listener share."""

    router: Router
    limits: Limits
    log: Log
    headers: Headers = ()
    """Added to every answer."""
    counters: Counters = attrs.Factory(Counters)

    async def serve(
        self,
        listener: trio.abc.Listener[trio.abc.Stream],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections until cancelled. The listener is closed at the end."""
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                stream = await self._accept(listener)
                if stream is not None:
                    nursery.start_soon(self.connection, stream)

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream]) -> trio.abc.Stream | None:
        try:
            stream = await listener.accept()
        except OSError as error:
            self.counters.accept_errors += 1
            if error.errno not in ACCEPT_ERRORS:
                self.log.warning("http.accept", error=error)
            await trio.sleep(ACCEPT_PAUSE_S)
            return None
        if self.counters.connections >= self.limits.connections_max:
            self.counters.turned_away += 1
            await trio.aclose_forcefully(stream)
            return None
        self.counters.accepted += 1
        self.counters.connections += 1
        return stream

    async def connection(self, stream: trio.abc.Stream) -> None:
        """Serve one accepted connection to its end. Raises nothing but Cancelled."""
        try:
            await Connection(self, stream).run()
        except GONE:
            pass
        except Exception:  # noqa: BLE001 - our bug, but one connection's
            self.log.error("http.connection", trace=traceback.format_exc())  # noqa: TRY400 - not logging's
        finally:
            self.counters.connections -= 1
            await trio.aclose_forcefully(stream)


@attrs.define
class Connection:
    """One client's connection."""

    server: Server
    stream: trio.abc.Stream
    _parser: Parser = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _deadline: float = attrs.field(default=NO_DEADLINE, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    """When the present phase of reading began."""
    _phase: Phase = attrs.field(default=Phase.IDLE, init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = Parser(self.server.limits)

    async def run(self) -> None:
        """Answer requests until the client or a limit ends it."""
        try:
            with self._scope:
                while await self._turn():
                    pass
        except RequestError as error:
            await self._refuse(error)
        if self._scope.cancelled_caught and self._phase is not Phase.IDLE:
            await self._refuse(self._too_slow())

    async def _turn(self) -> bool:
        """Read and answer one request; return whether another may follow."""
        request = await self._read()
        if request is None:
            return False
        self._phase = Phase.IDLE
        found = self.server.router.find(request)
        if isinstance(found, Response):
            return await self.send("none", request, found)
        if found.waits:
            return await self._exchange(found, request)
        return await self.send(found.path, request, self._call(found, request))

    def _call(self, route: Route, request: Request) -> Response:
        """Answer by a route that does not wait; whatever goes wrong is an answer too."""
        try:
            return route.function(request, route.argument) if route.argument else route.function(request)
        except RequestError as error:
            return error_response(error)
        except Exception:  # noqa: BLE001 - our bug, but one request's
            self.failed(route, request)
            return error_response(INTERNAL)

    def failed(self, route: Route, request: Request) -> None:
        """Log the exception that a route has raised."""
        trace = traceback.format_exc()
        self.server.log.error("http.route", method=request.method, route=route.path, trace=trace)

    async def _read(self) -> Request | None:
        """Return the next request, or None if the client has closed."""
        parser = self._parser
        self._since = trio.current_time()
        while (request := parser.next()) is None:
            if parser.take_continue():
                await self.write(CONTINUE)
            self._end_by(self._read_deadline())
            data = await self.stream.receive_some(READ_BYTES)
            if not data:
                return None
            parser.feed(data)
        return request

    def _read_deadline(self) -> float:
        now, limits = trio.current_time(), self.server.limits
        phase = self._parser.phase
        received = self._parser.body_received
        if received is not None:
            phase = Phase.LENGTH
        if phase is not self._phase:
            self._phase, self._since = phase, now
        if phase is Phase.IDLE:
            return self._since + limits.idle_timeout_s
        if received is None:
            return self._since + limits.header_timeout_s
        floor = self._since + limits.body_grace_s + received / limits.body_bytes_per_s_min
        return min(floor, now + limits.header_timeout_s)

    def _too_slow(self) -> RequestError:
        limits = self.server.limits
        if self._phase is Phase.HEAD:
            return exceeded(
                "request_timeout", "the headers took too long", "header_timeout_s", limits.header_timeout_s
            )
        floor = limits.body_bytes_per_s_min
        return exceeded("request_timeout", "the body came too slowly", "body_bytes_per_s_min", floor)

    async def _refuse(self, error: RequestError) -> None:
        """Say why the connection ends, and let the client read it."""
        self.server.counters.refused[error.code] += 1
        data = whole(error_response(error), kept=False, modern=True, more=self.server.headers)
        with trio.move_on_after(LAST_WORDS_S):
            await self.stream.send_all(data)
        await self._linger()

    async def _linger(self) -> None:
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            with trio.move_on_after(LINGER_S):
                await self.stream.send_eof()
                left = LINGER_BYTES_MAX
                while left > 0 and (data := await self.stream.receive_some(READ_BYTES)):
                    left -= len(data)

    async def send(self, route: str, request: Request, response: Response) -> bool:
        """Write a whole answer; return whether the connection goes on."""
        await self.write(self.encode(route, request, response))
        return request.keep_alive

    def encode(self, route: str, request: Request, response: Response) -> bytes:
        """Count and encode a whole answer."""
        self.server.counters.answers[route, response.status] += 1
        bodiless = request.method == "HEAD" or response.status == 204
        return whole(response, request.keep_alive, request.chunked, bodiless, self.server.headers)

    async def write(self, data: bytes) -> None:
        """Write within the deadline for each piece."""
        for start in range(0, len(data), WRITE_BYTES):
            self._end_by(trio.current_time() + self.server.limits.write_timeout_s)
            await self.stream.send_all(
                data if len(data) <= WRITE_BYTES else data[start : start + WRITE_BYTES]
            )

    async def _exchange(self, route: Route, request: Request) -> bool:
        """Answer by a route that waits, while a second task notices the client's going away."""
        async with trio.open_nursery() as nursery:
            exchange = Exchange(self, request, route, nursery.cancel_scope)
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await exchange.perform()
            nursery.cancel_scope.cancel()
        if not exchange.complete:
            self.server.counters.disconnects += 1
        return exchange.complete and exchange.kept

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Read on during an answer; cancel `scope` if the client goes away."""
        try:
            while self._parser.buffered < self.server.limits.pipeline_bytes_max:
                data = await self.stream.receive_some(READ_BYTES)
                if not data:
                    break
                self._parser.feed(data)
            else:
                return
        except GONE:
            pass
        scope.cancel()

    def rest(self) -> None:
        """Wait for something that no deadline of the connection bounds."""
        self._end_by(NO_DEADLINE)

    def _end_by(self, deadline: float) -> None:
        """Let the present phase last until `deadline`, give or take the slack."""
        if abs(deadline - self._deadline) > DEADLINE_SLACK_S:
            self._scope.deadline = self._deadline = deadline


@attrs.define
class Exchange:
    """One request being answered over time: either `send` once, or `start`, `write` as often as wanted, `end`."""

    _connection: Connection
    _request: Request
    _route: Route
    _scope: trio.CancelScope
    """Cancelled when the client has gone, whoever notices it."""
    started: bool = attrs.field(default=False, init=False)
    """Whether the answer's head has been written, so that no other status can be."""
    complete: bool = attrs.field(default=False, init=False)
    kept: bool = attrs.field(default=False, init=False)
    """Whether the connection may carry another request after this answer."""

    async def perform(self) -> None:
        """Run the route; errors before the first byte become an answer, later ones end the connection."""
        self._connection.rest()
        try:
            argument = (self._route.argument,) if self._route.argument else ()
            await self._route.function(self._request, self, *argument)
        except (RequestError, FlightFailed) as error:
            await self._fail(of_failure(error.failure) if isinstance(error, FlightFailed) else error)
        except Exception:  # noqa: BLE001 - our bug, but one request's
            self._connection.failed(self._route, self._request)
            await self._fail(INTERNAL)

    async def _fail(self, error: RequestError) -> None:
        if self.started:
            return
        await self.send(error_response(error))

    async def send(self, response: Response) -> None:
        """Answer at once and completely."""
        assert not self.started
        self.started = True
        self.kept = self._request.keep_alive
        await self._write(self._connection.encode(self._route.path, self._request, response))
        self.complete = True

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """Begin an answer of unknown length."""
        assert not self.started
        self.started = True
        server, modern = self._connection.server, self._request.chunked
        server.counters.answers[self._route.path, status] += 1
        framing = b"transfer-encoding: chunked\r\n" if modern else b""
        self.kept = self._request.keep_alive and modern
        top = head(status, content_type, headers + server.headers, framing, self.kept, modern)
        await self._write(top)

    async def write(self, data: bytes) -> None:
        """Write the next piece of the answer."""
        await self._write(chunk(data) if self._request.chunked else data)

    async def end(self) -> None:
        """End the answer."""
        if self._request.chunked:
            await self._write(LAST_CHUNK)
        self.complete = True

    async def _write(self, data: bytes) -> None:
        """Write; a client that has gone is a cancellation, in whichever task it is noticed."""
        try:
            await self._connection.write(data)
        except GONE:
            self._scope.cancel()
            await trio.lowlevel.checkpoint()
        self._connection.rest()

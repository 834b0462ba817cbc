"""Which function answers which request: a table of rows.

A row names a method, a path and a function. `{id}` in a path stands for what is there instead, slashes
included, and is handed to the function as an argument. HEAD is answered by the GET row without its body,
OPTIONS by the methods that the path has, and everything else by 404 or 405.
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from node.errors import RequestError
from node.http.errors import error_response
from node.http.message import Request, Response

SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


@attrs.frozen
class Route:
    """One row."""

    method: str
    path: str
    function: Callable[..., Any]
    """`f(request) -> Response`, or `async f(request, exchange)` if `waits`; what `{id}` stood for comes last."""
    waits: bool = False
    """Whether the answer takes time; then the client's going away cancels it."""
    argument: str = ""
    """What `{id}` stood for, in a row that was found."""


@attrs.define
class Router:
    """A table of routes, searched by exact path, then by the longest pattern."""

    _exact: dict[str, dict[str, Route]]
    _patterns: tuple[tuple[str, str, dict[str, Route]], ...]
    """What stands before and after `{id}`, the longest first."""
    hosts: frozenset[str] = frozenset()
    """Host names, beside `localhost` and addresses, under which this node may be spoken to."""

    @classmethod
    def of(cls, routes: Iterable[Route], hosts: Iterable[str] = ()) -> "Router":
        """Build the table."""
        table: dict[str, dict[str, Route]] = {}
        for route in routes:
            table.setdefault(route.path, {})[route.method] = route
        patterns = [(*path.split("{id}"), rows) for path, rows in table.items() if "{id}" in path]
        patterns.sort(key=lambda row: -len(row[0]) - len(row[1]))
        return cls(table, tuple(patterns), frozenset(hosts))

    def find(self, request: Request) -> Route | Response:
        """Return the row for a request, or the answer if there is none."""
        try:
            self._check_origin(request)
            rows, argument = self._rows(request.path)
        except RequestError as error:
            return error_response(error)
        method = "GET" if request.method == "HEAD" else request.method
        route = rows.get(method)
        if route is not None:
            return attrs.evolve(route, argument=argument) if argument else route
        return no_route(request, rows)

    def _rows(self, path: str) -> tuple[dict[str, Route], str]:
        rows = self._exact.get(path)
        if rows is not None:
            return rows, ""
        for before, after, rows in self._patterns:
            argument = path[len(before) : len(path) - len(after)]
            if path.startswith(before) and path.endswith(after) and argument:
                return rows, argument
        if path == "*":
            return {}, ""
        raise RequestError("not_found", f"there is nothing at `{path:.200}`")

    def _check_origin(self, request: Request) -> None:
        """Refuse what a web page of another site makes a browser send, and names that only rebinding explains."""
        host = request.headers.get(b"host", b"").decode("latin-1")
        if host and not self._is_ours(host):
            raise RequestError(
                "misdirected", f"this node is not `{host:.200}`\nhint: use its address, or `localhost`"
            )
        origin = request.headers.get(b"origin")
        if origin is None or request.method in SAFE:
            return
        if origin.decode("latin-1").partition("://")[2] != host:
            raise RequestError("cross_origin", "pages of another origin may not do this")

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and ":" in host else host
        return name in LOCAL_NAMES or name in self.hosts or is_address(name)


LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))


def is_address(name: str) -> bool:
    """Whether a Host is an address, which no DNS answer can fake."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def no_route(request: Request, rows: dict[str, Route]) -> Response:
    """Answer a method that the path does not have."""
    allow = sorted({*rows, "OPTIONS", *(("HEAD",) if "GET" in rows else ())})
    header = (b"allow", ", ".join(allow).encode())
    if request.method == "OPTIONS":
        return Response(204, b"", headers=(header,))
    message = f"`{request.method}` is not possible on `{request.path:.200}`; possible are {', '.join(allow)}"
    return error_response(RequestError("method_not_allowed", message), (header,))

"""The chat page: three files of `node/web`, served from memory under a strict content policy."""

from collections.abc import Callable
from pathlib import Path

from node.http.message import Headers, Request, Response
from node.http.router import Route

WEB = Path(__file__).parent.parent / "web"

FILES: dict[str, tuple[str, bytes]] = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}
"""What is served where, and as what."""

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS: Headers = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)


def routes() -> tuple[Route, ...]:
    """Return the page's rows."""
    return tuple(Route("GET", path, _serve(name, kind)) for path, (name, kind) in FILES.items())


def _serve(name: str, kind: bytes) -> Callable[[Request], Response]:
    response = Response(200, (WEB / name).read_bytes(), kind, HEADERS)

    def serve(_: Request) -> Response:
        return response

    return serve

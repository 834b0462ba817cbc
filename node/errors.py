"""Errors that a client of the HTTP interface may see, and the status each code travels with."""

import attrs

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "malformed_request": 400,
    "context_length_exceeded": 400,
    "unsupported_parameter": 400,
    "invalid_api_key": 401,
    "cross_origin": 403,
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "uri_too_long": 414,
    "expectation_failed": 417,
    "misdirected": 421,
    "headers_too_large": 431,
    "too_many_requests": 429,
    "engine_crash": 500,
    "internal_error": 500,
    "not_implemented": 501,
    "no_worker": 503,
    "overloaded": 503,
    "draining": 503,
    "too_many_moves": 503,
    "deadline_exceeded": 504,
    "http_version": 505,
    "cancelled": 499,
}
"""HTTP status by error code; a code that is not here is the server's fault: 500."""


@attrs.frozen(slots=False)
class RequestError(Exception):
    """A request that cannot be served; nothing of it was kept. `code` is a key of STATUS."""

    code: str
    message: str
    param: str = ""
    """The field at fault, as the client spelled it."""
    retry_after_ms: int = 0

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        """The HTTP status it travels with."""
        return STATUS.get(self.code, 500)

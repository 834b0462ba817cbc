"""Errors as clients of the OpenAI API read them."""

import json

from mesh.flight import Failure
from node.errors import RequestError
from node.http.message import Headers, Response

TYPES: dict[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's `type` by status; other 4xx are `invalid_request_error`, 5xx `server_error`."""

RETRY_AFTER_S = 1
"""What a client is told to wait if nobody knows better."""

RETRIED = frozenset((408, 429, 503))
"""Statuses that may pass by themselves."""


def of_failure(failure: Failure) -> RequestError:
    """Say of a flight's end what is said of a request that was not admitted."""
    return RequestError(failure.code, failure.message, failure.param, failure.retry_after_ms)


def error_object(error: RequestError) -> dict[str, object]:
    """Return `{"error": ...}` in OpenAI's form."""
    fallback = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "error": {
            "message": error.message,
            "type": TYPES.get(error.status, fallback),
            "param": error.param or None,
            "code": error.code,
        }
    }


def error_response(error: RequestError, headers: Headers = ()) -> Response:
    """Return the answer for an error, with the time to wait where waiting may help."""
    body = json.dumps(error_object(error)).encode()
    return Response(error.status, body, headers=headers + retry_headers(error))


def retry_headers(error: RequestError) -> Headers:
    """Return `retry-after` (whole seconds, rounded up) and `retry-after-ms`."""
    if error.status not in RETRIED and not error.retry_after_ms:
        return ()
    wait_ms = error.retry_after_ms or RETRY_AFTER_S * 1000
    return ((b"retry-after", b"%d" % -(-wait_ms // 1000)), (b"retry-after-ms", b"%d" % wait_ms))

"""The limits of the HTTP server and of a request, in one place.

`Limits` holds what an operator may change; each field that a setting governs names it, and the server's
answer repeats both names. The constants bound the meaning of a request and are the same on every node.
Each number stands for an incident of some other server (slow headers, deflate bombs, endless bodies).
"""

from typing import Any, Self

import attrs

from node.errors import RequestError

KIB = 1 << 10
MIB = 1 << 20

JSON_DEPTH_MAX = 64
"""Deepest nesting of a request's JSON."""

JSON_KEYS_MAX = 1024
"""Most keys of one JSON object."""

JSON_INTEGER_DIGITS_MAX = 20
"""Most digits of a JSON integer: 2**64 - 1 has as many."""

MESSAGES_MAX = 2048
"""Most messages of a conversation, and most parts of one message."""

N_MAX = 8
"""Most choices for one prompt."""

CHOICES_MAX = 64
"""Most choices of one request: prompts times `n`. Each is a flight of its own."""

LOGPROBS_MAX = 20
"""Most alternatives reported beside each token."""

NAME_CHARACTERS_MAX = 256
"""Longest model name, user and other label."""

STOP_CHARACTERS_MAX = 1024
"""Longest stop string: a quarter of what a frame holds, so that any UTF-8 fits."""


def limit(default: Any, setting: str = "") -> Any:
    """Declare a limit, and the setting that governs it if one does."""
    return attrs.field(default=default, metadata={"setting": setting})


@attrs.frozen(kw_only=True)
class Limits:
    """What one client may ask of the server. Sizes in bytes, times in seconds."""

    request_line_bytes_max: int = limit(8 * KIB)
    header_bytes_max: int = limit(8 * KIB)
    """One header: its name, colon and value."""
    headers_bytes_max: int = limit(32 * KIB, "http_header_bytes_max")
    """All headers of a request, line ends included."""
    headers_max: int = limit(100)
    body_bytes_max: int = limit(4 * MIB, "http_body_bytes_max")
    header_timeout_s: float = limit(10.0, "http_read_timeout_s")
    """From the first byte of a request to the end of its headers; also the longest wait within a body."""
    body_grace_s: float = limit(5.0)
    """How long a body may come slower than `body_bytes_per_s_min`."""
    body_bytes_per_s_min: int = limit(1 * KIB)
    """Mean rate that a body must keep after the grace."""
    idle_timeout_s: float = limit(30.0, "http_idle_timeout_s")
    """How long a kept connection may rest between requests."""
    write_timeout_s: float = limit(30.0, "http_write_timeout_s")
    """How long a client may leave an answer unread."""
    connections_max: int = limit(10_000, "http_connections_max")
    """Connections held at once by one listener; further ones are closed at once."""
    pipeline_bytes_max: int = limit(64 * KIB)
    """Bytes taken from a client beyond the request that is being answered."""

    @classmethod
    def of(cls, config: Any) -> Self:
        """Take from a node's configuration what it governs, and defaults for the rest."""
        settings = {name: setting for name, setting in SETTING.items() if setting}
        return cls(**{name: getattr(config, setting) for name, setting in settings.items()})


SETTING: dict[str, str] = {field.name: field.metadata["setting"] for field in attrs.fields(Limits)}
"""The setting that governs each limit; empty if none does."""


def exceeded(code: str, what: str, name: str, value: float) -> RequestError:
    """Say that a limit was exceeded: what, the limit's name and value, and how to raise it."""
    setting = SETTING.get(name, "")
    hint = f"\nhint: `--{setting.replace('_', '-')}` changes it" if setting else ""
    shown = f"{value:g}" if isinstance(value, float) else value
    return RequestError(code, f"{what}; the limit `{name}` is {shown}{hint}")

"""Broken files from a seed: bytes changed, numbers made huge, JSON nested, repeated, retyped and cut."""

import copy
import json
import random
from typing import Any

NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e308, -1e-308)
VALUES: tuple[Any, ...] = (None, True, [], {}, "", "\0", "\ud800", "a" * 5000, [[]], {"": {}}, *NUMBERS)


def changed_bytes(draw: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat or insert some bytes."""
    content = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.randint(1, 40))
        piece = draw.choice((b"", bytes(draw.randbytes(3)), b"\xff" * 8, content[at:end] * 2, b"[" * 3000))
        content[at:end] = piece
    return bytes(content[: draw.choice((len(content), draw.randint(0, len(content))))])


def changed_json(draw: random.Random, value: Any, budget: int = 3) -> Any:
    """A JSON value with some of its leaves and branches replaced; `value` itself is left as it is."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.randint(1, budget)):
        value = _changed_at(draw, value)
    return value


def _changed_at(draw: random.Random, value: Any) -> Any:
    """Walk down at random and replace what is found there."""
    if draw.random() < 0.25 or not value or not isinstance(value, (dict, list)):
        return copy.copy(draw.choice(VALUES)) if draw.random() < 0.8 else nested(draw.randint(1, 200))
    key: Any = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    if isinstance(value, dict) and draw.random() < 0.2:
        del value[key]
        return value
    value[key] = _changed_at(draw, value[key])
    return value


def nested(depth: int) -> Any:
    """Lists within lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def dumped(draw: random.Random, value: Any) -> bytes:
    """JSON text of a value; now and then nested beyond what a parser takes, or with its bytes changed."""
    text = json.dumps(value).encode(errors="replace")
    roll = draw.random()
    if roll < 0.05:
        return b"[" * 200_000
    if roll < 0.1:
        return b'{"a":' * 100_000
    return changed_bytes(draw, text) if roll < 0.3 else text


WORDS = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "*",
        "+",
        "?",
        "|",
        "\\",
        "^",
        "$",
        ".",
        "a",
        "b",
        "\\d",
        "\\p{L}",
        "\\b",
    ),
    *(
        "{1000}",
        "{0,99999}",
        "(?i)",
        "(?=a)",
        "\\1",
        "(a+)+",
        "(a|a)*",
        "[^a]",
        "\u00e9",
        "\U0001f600",
        "\x00",
    ),
)


def regex(draw: random.Random) -> str:
    """Pieces of regular expressions in any order, some of them explosive."""
    return "".join(draw.choice(WORDS) for _ in range(draw.randint(1, 30)))


KEYWORDS = (
    "type",
    "properties",
    "items",
    "anyOf",
    "allOf",
    "oneOf",
    "$ref",
    "pattern",
    "enum",
    "required",
    "not",
)
TYPES = ("object", "array", "string", "integer", "number", "null", "boolean", "no such type")


def schema(draw: random.Random, depth: int = 4) -> Any:
    """Something that looks like a JSON schema."""
    if depth == 0 or draw.random() < 0.1:
        return draw.choice(VALUES)
    made: dict[str, Any] = {"type": draw.choice(TYPES)}
    for keyword in draw.sample(KEYWORDS, draw.randint(0, 4)):
        made[keyword] = draw.choice(
            (
                lambda: schema(draw, depth - 1),
                lambda: [schema(draw, depth - 1) for _ in range(draw.randint(0, 3))],
                lambda: {f"k{n}": schema(draw, depth - 1) for n in range(draw.randint(0, 3))},
                lambda: draw.choice(("#", "#/properties/k0", "http://x/y", regex(draw))),
                lambda: draw.choice(VALUES),
            )
        )()
    for bound in draw.sample(
        ("minLength", "maxLength", "minItems", "maxItems", "minimum"), draw.randint(0, 2)
    ):
        made[bound] = draw.choice(NUMBERS)
    return made


STATEMENTS = (
    *("{{ messages }}", "{% for m in messages %}", "{% endfor %}", "{{ messages[0].content * 1000000 }}"),
    *(
        "{% for i in range(100000000) %}x{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{% if a %}",
        "{% endif %}",
    ),
    *("{{ raise_exception('no') }}", "{% set x = x ~ x %}", "{{ x }}", "{{ 9 ** 9 ** 9 }}", "{% break %}"),
    *("{{ cycler.__init__.__globals__ }}", "{{ messages | tojson(indent=100000000) }}", "{% macro f() %}"),
    *("{{ f() }}", "{% endmacro %}", "{{ '%0999999999d' | format(1) }}", "{{ 'a'.ljust(10 ** 9) }}", "{{"),
    *(
        "{{ [1] * 10 ** 9 }}",
        "{{ messages | map('upper') | list }}",
        "{{ strftime_now('%Y' * 100000) }}",
        "%}",
    ),
)


def template(draw: random.Random) -> str:
    """Statements of chat templates in any order."""
    return "".join(draw.choice(STATEMENTS) for _ in range(draw.randint(1, 12)))

"""JSON schemas drawn from a seed: every keyword that the grammars enforce, with outputs of bounded length."""

import json
import random
from typing import Any

Schema = dict[str, Any]

NAMES = ("id", "name", "é", "a b", "tags", "x\\y", 'quo"te', "size", "when", "nested_value")


def schema_of(seed: int) -> Schema:
    """Return the schema that a seed stands for."""
    rng = random.Random(seed)
    return _any(rng, 3)


def _any(rng: random.Random, depth: int) -> Schema:
    leaves = (_integer, _number, _string, _enum, _const, _boolean, _null, _format, _pattern)
    nodes = (_object, _array, _tuple, _any_of, _reference, _types)
    return rng.choice((*leaves, *nodes, *nodes) if depth else leaves)(rng, depth)


def _integer(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(-1000, 1000)
    key = rng.choice(("minimum", "exclusiveMinimum"))
    return {"type": "integer", key: low, "maximum": low + rng.randint(2, 5000)}


def _number(rng: random.Random, depth: int) -> Schema:
    return {"type": "number", "minimum": rng.randint(-5, 0), "maximum": rng.randint(1, 50) + 0.5}


def _string(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(0, 4)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 12)}


def _enum(rng: random.Random, depth: int) -> Schema:
    return {
        "enum": rng.sample(["a", "bb", 1, 2.5, None, True, "ü", [1, "x"], {"k": None}], rng.randint(1, 5))
    }


def _const(rng: random.Random, depth: int) -> Schema:
    return {"const": rng.choice(["only", 7, None, {"deep": [1, {"er": "x"}]}, []])}


def _boolean(rng: random.Random, depth: int) -> Schema:
    return {"type": "boolean"}


def _null(rng: random.Random, depth: int) -> Schema:
    return {"type": "null"}


def _format(rng: random.Random, depth: int) -> Schema:
    return {"type": "string", "format": rng.choice(["date", "uuid", "ipv4", "date-time", "time"])}


def _pattern(rng: random.Random, depth: int) -> Schema:
    return {"type": "string", "pattern": rng.choice(["^[a-c]{2,6}$", "^(foo|ba[rz])$", "^x{0,3}[0-9]{1,4}$"])}


def _types(rng: random.Random, depth: int) -> Schema:
    return {"type": ["integer", "null", "boolean"], "minimum": 0, "maximum": 99}


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(NAMES, rng.randint(0, 5))
    required = [name for name in names if rng.random() < 0.6]
    properties = {name: _any(rng, depth - 1) for name in names}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _any(rng, depth - 1),
        "minItems": low,
        "maxItems": low + rng.randint(0, 3),
    }


def _tuple(rng: random.Random, depth: int) -> Schema:
    parts = [_any(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}


def _any_of(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [_any(rng, depth - 1) for _ in range(rng.randint(2, 3))]}


def _reference(rng: random.Random, depth: int) -> Schema:
    part = _any(rng, depth - 1)
    properties = {"first": {"$ref": "#/$defs/part"}, "second": {"$ref": "#/$defs/part"}}
    body = {"type": "object", "properties": properties, "required": ["first"], "additionalProperties": False}
    return {"$defs": {"part": part}, **body} if depth == 3 else part


def shown(seed: int) -> str:
    """Return a schema as text, for whom a test has failed."""
    return json.dumps(schema_of(seed), ensure_ascii=False)

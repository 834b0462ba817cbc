"""`POST /v1/embeddings`: each input is a flight whose answer is a vector. Reading and writing are pure."""

import base64
import math
from array import array
from typing import Any

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from node.errors import RequestError
from node.http import document, fields, openai, schema

INPUTS_MAX = 256
"""Most inputs of one request; each is a flight of its own. OpenAI takes 2,048."""

DIMENSIONS_MAX = 1 << 16
POOLING = ("last", "mean")
ENCODINGS = ("float", "base64")


@attrs.frozen
class Ask:
    """A request for embeddings, checked."""

    model: str
    inputs: tuple[Segment, ...]
    pooling: str = "last"
    encoding: str = "float"
    dimensions: int | None = None
    """Leading elements that are kept, scaled to length one again; None keeps all."""


def one_of(names: tuple[str, ...]) -> fields.Reader:
    """Read one of some words."""

    def read(name: str, value: Any) -> str:
        if type(value) is not str or value not in names:
            raise fields.invalid(name, value, " or ".join(f"`{one}`" for one in names))
        return value

    return read


def read_inputs(name: str, value: Any) -> tuple[Segment, ...]:
    """Read `input`: a string, a list of token ids, or a list of up to `INPUTS_MAX` of either."""
    if type(value) is str or (type(value) is list and value and type(value[0]) is int):
        return (schema.read_prompt(name, value),)
    inputs: tuple[Segment, ...] = fields.array(schema.read_prompt, INPUTS_MAX, 1)(name, value)
    return inputs


FIELDS: dict[str, fields.Reader] = {
    "model": fields.label,
    "input": read_inputs,
    "pooling": one_of(POOLING),
    "encoding_format": one_of(ENCODINGS),
    "dimensions": fields.integer(1, DIMENSIONS_MAX),
    "user": fields.string(256),
}


def read(body: bytes) -> Ask:
    """Check the body of a request. Raises RequestError."""
    values = {name: value for name, value in document.read(body).items() if value is not None}
    unknown = next((name for name in values if name not in FIELDS), None)
    if unknown is not None:
        raise RequestError("unsupported_parameter", f"`{unknown:.80}` is an unknown field", unknown[:80])
    for name in ("model", "input"):
        if name not in values:
            raise RequestError("invalid_request", f"`{name}` is missing", name)
    found = {name: FIELDS[name](name, value) for name, value in values.items()}
    return Ask(
        found["model"],
        found["input"],
        found.get("pooling", "last"),
        found.get("encoding_format", "float"),
        found.get("dimensions"),
    )


def attempts(ask: Ask, created: int, trace: str) -> list[Attempt]:
    """Return one attempt per input."""
    asked = Parameters(max_tokens=0)
    return [
        Attempt(ask.model, (text,), asked, 0, rendered_at=created, trace=trace, pooling=ask.pooling)
        for text in ask.inputs
    ]


def shortened(vector: bytes, dimensions: int | None) -> "array[float]":
    """A vector's leading elements, of length one. Raises RequestError if it has fewer."""
    values = array("f", vector)
    if dimensions is None or dimensions == len(values):
        return values
    if dimensions > len(values):
        message = f"`dimensions` is `{dimensions}`, the model's embeddings have {len(values)}"
        raise RequestError("invalid_request", message, "dimensions")
    kept = values[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in kept)) or 1.0
    return array("f", [value / length for value in kept])


def answer(ask: Ask, vectors: list[bytes], tokens: int) -> bytes:
    """Write the answer as OpenAI does. Raises RequestError for `dimensions` that the model has not."""
    data = []
    for index, vector in enumerate(vectors):
        values = shortened(vector, ask.dimensions)
        packed = base64.b64encode(values.tobytes()).decode() if ask.encoding == "base64" else values.tolist()
        data.append({"object": "embedding", "index": index, "embedding": packed})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return openai.encode({"object": "list", "data": data, "model": ask.model, "usage": usage}).encode()

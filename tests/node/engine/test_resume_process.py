"""Real engine processes: killed in the middle, and every kind of stream goes on to the same bytes."""

import contextlib
import json
from pathlib import Path

import attrs
import pytest

from mesh import grammar
from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Kind, Tokens
from tests.node.engine import runaway
from tests.node.engine.test_process import Child

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(not runaway.MODEL.exists(), reason="ember-py has not been exported"),
]

SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["path", "line", "tags"],
    "properties": {
        "path": {"type": "string", "maxLength": 20}, "line": {"type": "integer", "minimum": 0, "maximum": 9999},
        "tags": {"type": "array", "minItems": 3, "maxItems": 3, "items": {"enum": ["error", "warning", "note"]}},
    },
}  # fmt: skip
MORE = {"max_tokens": 60, "ignore_eos": True}
KINDS = {
    1: (Parameters(temperature=0.9, top_p=0.95, **MORE), b""),
    2: (Parameters(frequency_penalty=0.7, repetition_penalty=1.2, bad_words=("import",), **MORE), b""),
    3: (Parameters(temperature=1.3, max_tokens=400), grammar.write("json", SCHEMA)),
    4: (Parameters(temperature=0.0, logprobs=2, **MORE), b""),
    5: (
        Parameters(typical_p=0.8, max_tokens=400),
        grammar.write("regex", "(def [a-z]{3,9}\\(x\\):\n    pass\n){8}"),
    ),
}


def attempt(flight: int) -> Attempt:
    parameters, source = KINDS[flight]
    return Attempt("m", (Segment("text", "# report\n"),), parameters, flight, grammar=source)


def start(directory: Path) -> Child:
    child = Child(str(directory), "--threads", "1", "--kv-bytes", str(32 << 20))
    child.next(Kind.READY)
    return child


def test_every_kind_of_stream_survives_the_death_of_its_engine(tmp_path: Path):
    directory = runaway.write(tmp_path)
    with contextlib.closing(start(directory)) as other:
        whole = {}
        for flight in KINDS:
            other.send(attempt(flight).frame(flight, 1))
            whole[flight] = other.text(flight)
        for kill_at in (1, 23):
            with contextlib.closing(start(directory)) as victim:
                victim.send(*(attempt(flight).frame(flight, 1) for flight in KINDS))
                texts, ids = dict.fromkeys(KINDS, ""), dict.fromkeys(KINDS, ())
                while max(map(len, ids.values())) < kill_at:
                    frame = victim.next(Kind.TOKENS)
                    tokens = Tokens.read(frame)
                    texts[frame.flight] += tokens.text
                    ids[frame.flight] += tokens.ids
                victim.process.kill()
            for flight in KINDS:
                other.send(attrs.evolve(attempt(flight), emitted=ids[flight]).frame(flight, 100 + kill_at))
                assert texts[flight] + other.text(flight) == whole[flight]
    assert set(json.loads(whole[3])) == {"path", "line", "tags"}
    assert whole[5].count("pass\n") == 8

"""The grammar of an output, as it travels in an attempt: what shall be said, not how it is enforced.

One JSON object with one key. The entry writes it, the worker's text process compiles it, and its bytes are
part of the resume contract: with the emitted ids they determine what may be said next.
"""

import hashlib
import json
from typing import Any

from mesh.errors import DecodeError

GRAMMAR_BYTES_MAX = 2**18
"""Largest grammar; the largest schema of jsonschemabench that anybody uses has some 100 KiB."""

KINDS = ("json", "regex", "choice", "lark", "gbnf")
"""`json`: a JSON schema (`{}` for any value); `regex`: Rust syntax; `choice`: a list of strings;
`lark`: the dialect of Lark that llguidance reads; `gbnf`: llama.cpp's EBNF."""


def write(kind: str, value: Any) -> bytes:
    """Return a grammar's bytes; the order of an object's keys is kept, since it is the order of the output's."""
    assert kind in KINDS
    return json.dumps({kind: value}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def read(data: bytes) -> tuple[str, Any]:
    """Return a grammar's kind and value. Raises DecodeError; total."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the grammar is no JSON: {error!s:.80}") from None
    if not isinstance(document, dict) or len(document) != 1:
        raise DecodeError("a grammar is an object with one key")
    ((kind, value),) = document.items()
    if kind not in KINDS:
        raise DecodeError(f"a grammar of kind `{kind:.32}` is not known")
    return kind, value


def identity(data: bytes) -> str:
    """Return the name by which a grammar is cached and logged: 128 bits of its digest, hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:32]

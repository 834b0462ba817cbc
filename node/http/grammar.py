"""What a request may say of its output's form: OpenAI's `response_format` and the fields of other servers.

All of them name one grammar (`mesh.grammar`); a request may use one of them. What they mean to a model is
decided by the worker, which compiles the grammar or refuses it with the library's words.
"""

import json
from typing import Any

from mesh import grammar
from mesh.grammar import GRAMMAR_BYTES_MAX
from node.errors import RequestError
from node.http import fields

CHOICE_STRINGS_MAX = 1024
"""Most strings that the output may be chosen from."""

TEXT_CHARACTERS_MAX = GRAMMAR_BYTES_MAX

FIELDS = (
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)
SHORT = ("regex", "ebnf", "grammar")
NAMES = (*FIELDS, *SHORT)
"""Every field that names a grammar: OpenAI's, vLLM's, SGLang's and llama.cpp's."""


def read(name: str, value: Any) -> bytes:
    """Return the grammar that a field asks for; empty if the output is free. Raises RequestError."""
    kind, what = _named(name, name, value)
    if kind == "free":
        return b""
    source = grammar.write(kind, what)
    if len(source) > GRAMMAR_BYTES_MAX:
        limit = f"the limit `grammar_bytes_max` is {GRAMMAR_BYTES_MAX}"
        message = f"`{name}` is a grammar of `{len(source)}` bytes; {limit}"
        raise RequestError("invalid_request", message, name)
    return source


def only(values: dict[str, Any]) -> bytes:
    """Return the one grammar of a request's checked fields. Raises RequestError if there are two."""
    asked = [name for name in NAMES if values[name]]
    if len(asked) > 1:
        message = (
            f"`{asked[0]}` and `{asked[1]}` both say what the output shall look like\nhint: leave one out"
        )
        raise RequestError("invalid_request", message, asked[1])
    return values[asked[0]] if asked else b""


def _named(field: str, name: str, value: Any) -> tuple[str, Any]:
    """Read a value in the manner of `field`; errors name it `name`."""
    match field:
        case "response_format":
            return _response_format(name, value)
        case "structured_outputs":
            return _structured(name, value)
        case "guided_json":
            return "json", _schema(name, value)
        case "guided_regex" | "regex":
            return "regex", _text(name, value)
        case "guided_choice":
            return "choice", _choice(name, value)
        case "ebnf":
            return "gbnf", _text(name, value)
    text = _text(name, value)
    return ("gbnf" if "::=" in text else "lark"), text


def _response_format(name: str, value: Any) -> tuple[str, Any]:
    if type(value) is not dict:
        raise fields.invalid(name, value, 'an object such as `{"type": "json_object"}`')
    match value.get("type"):
        case "text":
            return "free", None
        case "json_object":
            return "json", {"type": "object"}
        case "json_schema":
            return "json", _named_schema(f"{name}.json_schema", value.get("json_schema"))
        case "grammar" | "regex" as kind:
            return _named(f"guided_{kind}", f"{name}.{kind}", value.get(kind))
    raise fields.invalid(f"{name}.type", value.get("type"), "`text`, `json_object` or `json_schema`")


def _named_schema(name: str, value: Any) -> Any:
    if type(value) is not dict or "schema" not in value:
        raise fields.invalid(name, value, "an object with `name` and `schema`")
    return _schema(f"{name}.schema", value["schema"])


def _schema(name: str, value: Any) -> Any:
    """Read a JSON schema, given as such or as text."""
    if type(value) is str:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError("invalid_request", f"`{name}` is no JSON: {error!s:.100}", name) from None
    if type(value) not in (dict, bool):
        raise fields.invalid(name, value, "a JSON schema")
    return value


def _text(name: str, value: Any) -> str:
    return str(fields.string(TEXT_CHARACTERS_MAX, 1)(name, value))


def _choice(name: str, value: Any) -> list[str]:
    return list(fields.array(fields.string(TEXT_CHARACTERS_MAX, 1), CHOICE_STRINGS_MAX, 1)(name, value))


def _structured(name: str, value: Any) -> tuple[str, Any]:
    """Read vLLM's `{"json" | "regex" | "choice" | "grammar" | "json_object": ...}`."""
    asked = {key: item for key, item in value.items() if item is not None} if type(value) is dict else {}
    if len(asked) != 1:
        raise fields.invalid(
            name, value, "an object with one of `json`, `regex`, `choice`, `grammar`, `json_object`"
        )
    ((key, item),) = asked.items()
    if key == "json_object" and item is True:
        return "json", {"type": "object"}
    if key in ("json", "regex", "choice", "grammar"):
        return _named(f"guided_{key}", f"{name}.{key}", item)
    raise RequestError("unsupported_parameter", f"`{name}.{key:.40}` is not supported", name)

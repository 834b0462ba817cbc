"""A request's JSON, read strictly: no duplicate keys, no NaN, nothing too deep, too wide or too long."""

import json
import re
from typing import Any

from node.errors import RequestError
from node.http.limits import JSON_DEPTH_MAX, JSON_INTEGER_DIGITS_MAX, JSON_KEYS_MAX

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be half of a character; only then are strings worth checking."""


class _Refused(ValueError):
    """Something that JSON allows and we do not."""


def read(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds. Raises RequestError."""
    try:
        text = body.decode()
        value = _DECODER.decode(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _invalid("a string holds half of a surrogate pair") from None
    except UnicodeDecodeError:
        raise _invalid("it is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg.lower()} at byte {len(text[: error.pos].encode())}") from None
    except _Refused as error:
        raise _invalid(str(error)) from None
    if type(value) is not dict:
        raise _invalid("an object is wanted")
    check_depth(body, value)
    return value


def _invalid(why: str) -> RequestError:
    return RequestError("invalid_request", f"the body is no JSON that is taken here: {why}")


def _too_deep() -> RequestError:
    return _invalid(f"it nests deeper than {JSON_DEPTH_MAX} levels")


def check_depth(body: bytes, value: Any) -> None:
    """Refuse nesting beyond the limit; free for the usual body, which has few brackets at all."""
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH_MAX:
        return
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise _too_deep()


def _children(node: Any) -> list[Any]:
    values = node.values() if type(node) is dict else node
    return [value for value in values if type(value) in (dict, list)]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > JSON_KEYS_MAX:
        raise _Refused(f"an object has more than {JSON_KEYS_MAX} keys")
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"the key `{twice:.80}` stands twice in one object")
    return made


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > JSON_INTEGER_DIGITS_MAX:
        raise _Refused(f"an integer has more than {JSON_INTEGER_DIGITS_MAX} digits")
    return int(digits)


def _constant(word: str) -> Any:
    raise _Refused(f"`{word}` is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_constant=_constant)

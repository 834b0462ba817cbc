"""Readers of single fields: a JSON value in, a checked value out, or RequestError that names the field."""

from collections.abc import Callable
from typing import Any

from node.errors import RequestError
from node.http.limits import NAME_CHARACTERS_MAX

Reader = Callable[[str, Any], Any]
"""`reader(field's name, value)`."""


def invalid(name: str, value: Any, wanted: str) -> RequestError:
    """Say what a field holds and what it should."""
    shown = (
        "an object"
        if isinstance(value, dict)
        else "a list"
        if isinstance(value, list)
        else f"`{value!r:.60}`"
    )
    return RequestError("invalid_request", f"`{name}` is {shown}; it must be {wanted}", name)


def number(low: float, high: float, above: bool = False) -> Reader:
    """Read a number within [low, high], or (low, high] if `above`."""
    wanted = f"a number {f'above {low:g} and at most' if above else f'from {low:g} to'} {high:g}"

    def read(name: str, value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high or (above and value == low):
            raise invalid(name, value, wanted)
        return float(value)

    return read


def integer(low: int, high: int) -> Reader:
    """Read a whole number within [low, high]; a JSON `1.0` is none."""

    def read(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise invalid(name, value, f"a whole number from {low} to {high}")
        return value

    return read


def anything(_: str, value: Any) -> Any:
    """Read what depends on other fields and is checked with them."""
    return value


def flag(name: str, value: Any) -> bool:
    """Read a boolean."""
    if type(value) is not bool:
        raise invalid(name, value, "`true` or `false`")
    return value


def string(characters_max: int, characters_min: int = 0) -> Reader:
    """Read a string."""

    def read(name: str, value: Any) -> str:
        if type(value) is not str or not characters_min <= len(value) <= characters_max:
            raise invalid(name, value, f"a string of {characters_min} to {characters_max} characters")
        return value

    return read


label = string(NAME_CHARACTERS_MAX, 1)


def array(reader: Reader, items_max: int, items_min: int = 0) -> Reader:
    """Read a list into a tuple."""

    def read(name: str, value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not items_min <= len(value) <= items_max:
            held = value if type(value) is not list else f"a list of {len(value)}"
            raise invalid(name, held, f"a list of {items_min} to {items_max} items")
        return tuple(reader(f"{name}[{index}]", item) for index, item in enumerate(value))

    return read


def ids(id_max: int, items_max: int) -> Reader:
    """Read a list of token ids, fast: there may be a hundred thousand."""

    def read(name: str, value: Any) -> tuple[int, ...]:
        if not 1 <= len(value) <= items_max:
            raise invalid(name, f"a list of {len(value)}", f"a list of 1 to {items_max} token ids")
        if set(map(type, value)) != {int} or min(value) < 0 or max(value) > id_max:
            raise invalid(name, value, f"a list of whole numbers from 0 to {id_max}")
        return tuple(value)

    return read


def one_or_many(reader: Reader, items_max: int) -> Reader:
    """Read a single value or a list of them into a tuple."""
    several = array(reader, items_max)

    def read(name: str, value: Any) -> tuple[Any, ...]:
        return several(name, value) if type(value) is list else (reader(name, value),)

    return read


def mapped(reader: Reader, change: Callable[[Any], Any]) -> Reader:
    """Read with `reader`, then change what was read."""
    return lambda name, value: change(reader(name, value))


def bias(entries_max: int) -> Reader:
    """Read `{"token id": bias}` into pairs."""
    amount = number(-100, 100)

    def read(name: str, value: Any) -> tuple[tuple[int, float], ...]:
        if type(value) is not dict or len(value) > entries_max:
            raise invalid(name, value, f"an object of at most {entries_max} token ids and numbers")
        return tuple((token_id(name, key), amount(f"{name}.{key:.20}", item)) for key, item in value.items())

    return read


def token_id(name: str, key: str) -> int:
    """Read a token id that stands as an object's key."""
    if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 2**32):
        raise invalid(name, key, "an object whose keys are token ids")
    return int(key)

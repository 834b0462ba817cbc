"""The options of a node as a person writes them: a preset and what differs from it.

    lan                                      the preset alone
    lan,swim.probe_period_s=0.5              with one knob turned
    local,swim.shared_probing=false,node.flights_max=64

A knob is a part (`PARTS`) of `node.core.NodeOptions` and one of its fields. Whoever names none that exists, or gives a
value that does not fit, gets a `ConfigurationError` that says what there is.
"""

import types
import typing
from collections.abc import Callable
from typing import Any

import attrs

from mesh.swim_options import SwimOptions
from node.core import NodeOptions

PRESETS: dict[str, Callable[[], SwimOptions]] = {
    "local": SwimOptions.local,
    "lan": SwimOptions.lan,
    "wan": SwimOptions.wan,
    "plain": SwimOptions.plain_swim,
    "lifeguard": SwimOptions.lifeguard,
}
"""What a configuration begins with; `plain` and `lifeguard` are the papers' protocols."""
PARTS: dict[str, tuple[str, ...]] = {
    "swim": ("swim",),
    "links": ("links",),
    "forward": ("forward",),
    "route": ("forward", "route"),
    "engines": ("engines",),
    "node": (),
}
"""Part -> where it lies in `NodeOptions`."""
WORDS = {"true": True, "false": False}


class ConfigurationError(ValueError):
    """What was written makes no sense; `hint` says what would."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def preset(name: str) -> NodeOptions:
    """Return the options of a preset. Raises ConfigurationError."""
    if name not in PRESETS:
        raise ConfigurationError(f"`{name}` is no preset", f"there are {', '.join(PRESETS)}")
    return NodeOptions(PRESETS[name]())


def parse(text: str) -> NodeOptions:
    """Return the options of a configuration such as `lan,swim.probe_period_s=0.5`. Raises ConfigurationError."""
    first, *knobs = (part.strip() for part in text.split(","))
    if "=" in first:
        first, knobs = "local", [first, *knobs]
    options = preset(first)
    for knob in knobs:
        name, equals, value = knob.partition("=")
        if not equals:
            raise ConfigurationError(
                f"`{knob}` is not of the form part.knob=value", "write swim.probe_period_s=0.5"
            )
        options = turn(options, name.strip(), _word(value.strip()))
    return options


def turn(options: NodeOptions, name: str, value: object) -> NodeOptions:
    """Return options with one knob turned. Raises ConfigurationError."""
    part, _, knob = name.partition(".")
    if part not in PARTS:
        raise ConfigurationError(f"`{name}` names no part", f"there are {', '.join(PARTS)}")
    return _replaced(options, PARTS[part], _turned(_at(options, PARTS[part]), knob, name, value))


def differences(options: NodeOptions) -> tuple[str, dict[str, object]]:
    """Return (preset, knobs that differ): what `turn` needs to make these options again."""
    found = {name: _knobs(options, preset(name)) for name in PRESETS}
    best = min(found, key=lambda name: len(found[name]))
    return best, found[best]


def describe(options: NodeOptions) -> str:
    """Return options as `parse` reads them."""
    name, knobs = differences(options)
    return ",".join([name, *(f"{knob}={_said(value)}" for knob, value in knobs.items())])


def fit(value: object, wanted: Any, where: str) -> Any:
    """Return a value as the type that a field wants, or raise ConfigurationError.

    Numbers become floats where floats are wanted, lists tuples; nothing else is changed.
    """
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        return _fit_any(value, parts, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = parts[:1] * len(value) if parts[-1:] == (Ellipsis,) else parts
        if len(kinds) == len(value):
            return tuple(fit(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or wanted
    is_it = isinstance(plain, type) and isinstance(value, plain)
    if is_it and (not isinstance(value, bool) or plain is bool) and origin is not tuple:
        return value
    name = getattr(wanted, "__name__", str(wanted)) if origin is None else str(wanted)
    raise ConfigurationError(f"`{where}` is `{value}`", f"it takes {name}")


def _fit_any(value: object, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        try:
            return fit(value, kind, where)
        except ConfigurationError:
            continue
    raise ConfigurationError(f"`{where}` is `{value}`", f"it takes {' or '.join(map(str, kinds))}")


def types_of(kind: type) -> dict[str, Any]:
    """Return the fields of an attrs class that its constructor takes, with their types."""
    attrs.resolve_types(kind)
    return {field.name: field.type for field in attrs.fields(kind) if field.init}


def make(kind: type, table: dict[str, Any], where: str, base: object = None) -> Any:
    """Make a value of an attrs class from a table; what is not there comes from `base`, or its default.

    Raises ConfigurationError.
    """
    kinds = types_of(kind)
    only(table, frozenset(kinds), where)
    fields = {name: fit(value, kinds[name], f"{where} {name}") for name, value in table.items()}
    if base is not None:
        return attrs.evolve(base, **fields)
    lacking = [
        f.name for f in attrs.fields(kind) if f.init and f.default is attrs.NOTHING and f.name not in fields
    ]
    if lacking:
        raise ConfigurationError(f"`{where}` lacks `{lacking[0]}`", f"its fields are {', '.join(kinds)}")
    return kind(**fields)


def only(table: dict[str, Any], known: frozenset[str], where: str) -> None:
    """Refuse keys that are not known. Raises ConfigurationError."""
    for key in table:
        if key not in known:
            raise ConfigurationError(
                f"`{key}` is unknown in {where}", f"there are {', '.join(sorted(known))}"
            )


def _at(value: Any, path: tuple[str, ...]) -> Any:
    return _at(getattr(value, path[0]), path[1:]) if path else value


def _replaced(value: Any, path: tuple[str, ...], part: Any) -> Any:
    if not path:
        return part
    return attrs.evolve(value, **{path[0]: _replaced(getattr(value, path[0]), path[1:], part)})


def _turned(part: Any, knob: str, name: str, value: object) -> Any:
    kinds = types_of(type(part))
    if knob not in kinds or attrs.has(kinds[knob]):
        there = ", ".join(field for field, kind in kinds.items() if not attrs.has(kind))
        raise ConfigurationError(f"`{name}` is no knob", f"there are {there}")
    return attrs.evolve(part, **{knob: fit(value, kinds[knob], name)})


def _knobs(options: NodeOptions, base: NodeOptions) -> dict[str, object]:
    knobs: dict[str, object] = {}
    for part, path in PARTS.items():
        knobs |= _differing(part, _at(options, path), _at(base, path))
    return knobs


def _differing(part: str, one: Any, base: Any) -> dict[str, object]:
    names = [
        field.name for field in attrs.fields(type(base)) if not attrs.has(type(getattr(base, field.name)))
    ]
    return {
        f"{part}.{name}": getattr(one, name) for name in names if getattr(one, name) != getattr(base, name)
    }


def _word(text: str) -> object:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

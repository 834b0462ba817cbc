"""From what was given (flags, environment, file, defaults) to one complete, checked `Config`.

A value is taken from the first place that gives one: flag, environment, file, default; `Config.sources`
remembers which. This is the only module that reads the environment. Whatever cannot be used is a
`SettingsError` that names the value, the place and what would have been right; nothing is guessed or ignored.
"""

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from node import values
from node.settings import BY_NAME, DEFAULT, SETTINGS, Config, Setting
from node.values import HostPort

CONFIG_FILE_BYTES_MAX = 1 << 20
"""A configuration file is read whole before it is parsed."""

Given = Mapping[str, tuple[str, Any]]
"""Values that one place gives, by name of the setting: (how the place calls it, the raw value)."""


class SettingsError(Exception):
    """A setting that cannot be used. The operator's mistake; nothing was started or changed."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Config:
    """Read every place that may hold settings and return the complete Config, or raise SettingsError.

    `flags` are raw words by name of the setting; `environment` is the process's own unless given.
    """
    environ = os.environ if environment is None else environment
    from_flags = {name: (BY_NAME[name].flag, raw) for name, raw in flags.items()}
    from_environment = read_environment(environ)
    chosen = resolve([from_flags, from_environment])
    file = chosen["config"][1]
    places = (
        [from_flags, from_environment] if file is None else [from_flags, from_environment, read_file(file)]
    )
    resolved = resolve(places)
    if resolved["name"][1] is None:
        resolved["name"] = (DEFAULT, fresh_name())
    config = Config(
        **{name: value for name, (_, value) in resolved.items()},
        sources={name: source for name, (source, _) in resolved.items()},
    )
    check(config)
    return config


def resolve(places: Iterable[Given]) -> dict[str, tuple[str, Any]]:
    """Choose for each setting the value of the first place that gives one: name -> (source, value)."""
    places = list(places)
    return {setting.name: choose(setting, places) for setting in SETTINGS}


def choose(setting: Setting, places: Iterable[Given]) -> tuple[str, Any]:
    """Return the source and the parsed value of one setting."""
    for place in places:
        if setting.name in place:
            source, raw = place[setting.name]
            return source, parse(setting, source, raw)
    if setting.default is None:
        return DEFAULT, () if setting.repeated else None
    return DEFAULT, setting.value(setting.default)


def parse(setting: Setting, source: str, raw: Any) -> Any:
    """Parse what one place gives, or raise a SettingsError that names value, place and limit."""
    try:
        return setting.value(raw)
    except ValueError as error:
        limits = f" ({setting.limits})" if setting.limits else ""
        message = f"`{shown(raw)}` cannot be used for {named(setting, source)}{limits}"
        raise SettingsError(message, str(error)) from None


def shown(raw: Any) -> str:
    """Return what was given, on one line and not too long."""
    text = ", ".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 80 else text[:77] + "..."


def named(setting: Setting, source: str) -> str:
    """Say which setting is meant, in the words of the place that gave it."""
    return f"`{setting.name}` in {source}" if not source.startswith(("--", *setting.variables)) else source


def read_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Pick our variables. An empty one counts as not given; an unknown INFERNO_ one is an error."""
    known = {variable for setting in SETTINGS for variable in setting.variables}
    for variable in sorted(environ):
        if variable.startswith("INFERNO_") and variable not in known:
            hint = nearest(variable, known) or "docs/reference/settings.md lists every variable"
            raise SettingsError(f"there is no setting `{variable}` (in the environment)", hint)
    found = {}
    for setting in SETTINGS:
        given = [variable for variable in setting.variables if environ.get(variable)]
        if given:
            text = environ[given[0]]
            found[setting.name] = (given[0], text.split(",") if setting.repeated else text)
    return found


def read_file(path: Path) -> dict[str, tuple[str, Any]]:
    """Read a TOML file of settings; keys are the names of the table, at top level."""
    import tomllib  # costs 5 ms, and only a file needs it

    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(
            f"`{path}` cannot be read: {error.strerror}", "--config names a TOML file of settings"
        ) from None
    if len(text) > CONFIG_FILE_BYTES_MAX:
        raise SettingsError(
            f"`{path}` is longer than {CONFIG_FILE_BYTES_MAX} bytes", "is it a file of settings?"
        )
    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(
            f"`{path}` is not TOML: {error}", 'a line looks like `log_level = "debug"`, text stands in quotes'
        ) from None
    keys = {setting.name for setting in SETTINGS if setting.in_file}
    for key in table:
        if key not in keys:
            hint = (
                nearest(key, keys)
                or "docs/reference/settings.md lists every key; they all stand at top level"
            )
            raise SettingsError(f"there is no setting `{key}` (in {path})", hint)
    return {key: (str(path), value) for key, value in table.items()}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the most similar known word, if one is similar."""
    import difflib  # costs 4 ms, and only a mistake needs it

    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None


def check(config: Config) -> None:
    """Refuse what no single setting can tell: addresses out of reach, contradictions between settings."""
    check_addresses(config)
    if config.role in ("entry", "observer") and config.explicit("model"):
        raise SettingsError(
            f"a model was given ({config.sources['model']}) although role `{config.role}` loads none",
            "leave out the model, or use `--role all`",
        )
    check_ports(config)


def check_addresses(config: Config) -> None:
    """Refuse to leave loopback with traffic that anybody could read or forge."""
    for name, address in (("http", config.http), ("ops", config.ops)):
        if not address.is_loopback:
            raise SettingsError(
                f"`{address}` ({name}, from {config.sources[name]}) is not a loopback address, and clients are"
                " not authenticated yet",
                f"use `{BY_NAME[name].flag} 127.0.0.1:{address.port}`, behind something that asks who they are",
            )
    mesh = [("bind", config.bind), ("advertise", config.advertise), *(("join", peer) for peer in config.join)]
    for name, address in mesh:
        if address is not None and not address.is_loopback and config.mesh_key_file is None:
            raise SettingsError(
                f"`{address}` ({name}, from {config.sources[name]}) is not a loopback address, and without a mesh"
                " key anybody could read the traffic and join",
                "make a key with `python -m node keys`, give it to every node with --mesh-key-file",
            )
    if config.bind.host in ("0.0.0.0", "::") and config.advertise is None:
        raise SettingsError(
            f"`{config.bind}` (bind, from {config.sources['bind']}) is every address of this machine, and other"
            " nodes must be told one",
            f"name the one that they reach, as in `--advertise 192.0.2.1:{config.bind.port or 7946}`",
        )


def check_ports(config: Config) -> None:
    """Refuse two services on one port, where both were asked for by name."""
    seen: dict[HostPort, str] = {}
    for name in ("http", "ops", "bind"):
        address: HostPort = getattr(config, name)
        if address.port and config.explicit(name) and address in seen:
            raise SettingsError(
                f"`{address}` is given for both {seen[address]} and {config.sources[name]}",
                "give each its own port; port 0 takes any free one",
            )
        if config.explicit(name):
            seen[address] = config.sources[name]


def to_flags(config: Config) -> list[str]:
    """Return the flags that give another process every explicit value of this Config, the file's included."""
    words: list[str] = []
    for setting in SETTINGS:
        if not config.explicit(setting.name) or setting.name == "config":
            continue
        value = getattr(config, setting.name)
        for item in value if setting.repeated else (value,):
            words += [setting.flag, values.show(item, setting.unit)]
    return words


def environment(**changed: str) -> dict[str, str]:
    """Return a copy of the process's environment, with some variables replaced: for children and NO_COLOR."""
    return {**os.environ, **changed}


def fresh_name() -> str:
    """Draw a name for a node that was given none."""
    host = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())
    return f"{host[:50].strip('._-') or 'node'}-{os.urandom(2).hex()}"

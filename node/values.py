"""Words that people type, turned into values, and values back into words.

A parser takes text (or a TOML scalar) and returns a value, or raises `ValueError` whose message says
what would have been right; `node.settings` adds the name of the setting and where it came from.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Parser = Callable[[Any], Any]

BYTE_UNITS = {
    "": 1,
    "B": 1,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
SECOND_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ZONE = re.compile(r"[A-Za-z0-9._-]{1,32}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class HostPort(NamedTuple):
    """An address as people write it; compares and unpacks like the plain pair."""

    host: str
    """An IP address without brackets, or a host name."""
    port: int
    """0 asks the system for any free port."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def host_port(text: Any) -> HostPort:
    """Parse `HOST:PORT`; IPv6 stands in brackets, as in `[::1]:8080`."""
    host, colon, port = str(text).rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets, as in `[::1]:8080`")
    elif not colon or not HOST.fullmatch(host):
        raise ValueError("write HOST:PORT, as in `127.0.0.1:8080`")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("a port is a whole number from 0 to 65535")
    return HostPort(host, int(port))


def peer_address(text: Any) -> HostPort:
    """Parse `HOST:PORT` of something that already listens, so that port 0 makes no sense."""
    address = host_port(text)
    if address.port == 0:
        raise ValueError("port 0 cannot be reached; name the port that the node listens on")
    return address


def whole(text: Any) -> int:
    """Parse a whole number; `10_000` is one."""
    if isinstance(text, bool | float) or not re.fullmatch(r"[+-]?[0-9][0-9_]{0,17}", str(text).strip()):
        raise ValueError("a whole number is wanted")
    return int(text)


def byte_count(text: Any) -> int:
    """Parse a number of bytes: `4194304`, `4MiB`, `4 MB`."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", str(text).strip())
    if isinstance(text, bool) or not match or match[2].upper() not in BYTE_UNITS:
        raise ValueError("write a number of bytes, as in `4MiB` or `4194304`")
    return int(float(match[1]) * BYTE_UNITS[match[2].upper()])


def seconds(text: Any) -> float:
    """Parse a duration: `2`, `2s`, `250ms`, `1.5m`."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,18})?)\s*([a-z]*)", str(text).strip())
    if isinstance(text, bool) or not match or match[2] not in SECOND_UNITS:
        raise ValueError("write a duration, as in `2s` or `250ms`")
    return float(match[1]) * SECOND_UNITS[match[2]]


def node_name(text: Any) -> str:
    """Parse a node's name: it must survive in logs, metrics and headers unquoted."""
    if not NAME.fullmatch(str(text)):
        raise ValueError(
            "a name has 1 to 63 letters, digits, `.`, `_` or `-` and begins with a letter or digit"
        )
    return str(text)


def zone(text: Any) -> str:
    """Parse the name of a zone: it travels in every load record."""
    if not ZONE.fullmatch(str(text)):
        raise ValueError("a zone has 1 to 32 letters, digits, `.`, `_` or `-`")
    return str(text)


def device(text: Any) -> str:
    """Parse `auto`, `cpu` or `cuda:N`; `cuda` alone is the first one."""
    word = "cuda:0" if text == "cuda" else str(text)
    if word not in ("auto", "cpu") and not re.fullmatch(r"cuda:[0-9]{1,3}", word):
        raise ValueError("write `auto`, `cpu` or `cuda:N`")
    return word


def threads(text: Any) -> int:
    """Parse a number of threads; `auto` is 0, and means every core that the process may use."""
    return 0 if text == "auto" else whole(text)


def path(text: Any) -> Path:
    """Parse a path; `~` is the home directory."""
    if not isinstance(text, str | Path) or not str(text) or "\0" in str(text):
        raise ValueError("a path is wanted")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("there is no such home directory") from None


def words(text: Any) -> str:
    """Parse any text that is not blank."""
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise ValueError("a word or a path is wanted")
    return text.strip()


def one_of(*choices: str) -> Parser:
    """Return a parser that accepts exactly these words."""

    def parse(text: Any) -> str:
        if text not in choices:
            raise ValueError("write one of " + ", ".join(f"`{choice}`" for choice in choices))
        return text

    return parse


def show(value: Any, unit: str = "") -> str:
    """Write a value in a form that its parser reads back as the same value."""
    if value is None:
        return ""
    if unit == "bytes":
        return show_bytes(value)
    if unit == "s":
        return f"{value:.15g}s"
    return str(value)


def show_bytes(count: int) -> str:
    """Write a number of bytes with the largest binary unit that divides it."""
    for name, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % size == 0:
            return f"{count // size}{name}"
    return str(count)

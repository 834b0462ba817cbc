"""Errors of the mesh. Each says who caused it and whether state changed."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 40, 40, 40


def shown(value: object) -> str:
    """Return what came from elsewhere on one short line, however deep it is: plain `repr` runs out of stack."""
    return _SHORT.repr(value)[:60]


class MeshError(Exception):
    """Base class; never raised itself."""


class DecodeError(MeshError):
    """Bytes from another machine do not mean anything. The peer's fault; no state changed.

    The receiver counts it and drops the datagram, or closes the link.
    """


class LimitError(MeshError):
    """A named bound was exceeded. The caller's fault; no state changed."""


class ClockError(MeshError):
    """A clock of this machine is too far off for what was asked. Nobody's fault; no state changed."""


class RevokedError(MeshError):
    """What was to be written has been revoked for good. The caller's fault; no state changed."""

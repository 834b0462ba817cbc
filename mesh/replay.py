"""Which counters of one session have been seen: a sliding window, as in IPsec and WireGuard (RFC 6479).

Invariants: no counter is fresh twice; the window only moves up; what is older than the window
is not fresh, seen or not.
"""

import attrs

WINDOW = 1024
"""Packets of one sender by which one may be late. A sender counts all its receivers together:
at 200 packets a second, a packet may be overtaken for five seconds."""

_ALL = (1 << WINDOW) - 1


@attrs.define
class ReplayWindow:
    """Begins with `top` and everything below it seen: nothing recorded before is ever fresh."""

    top: int
    """Greatest counter seen."""
    _seen: int = attrs.field(init=False, default=_ALL)
    """Bit n: counter `top - n` has been seen."""

    def is_fresh(self, counter: int) -> bool:
        """Whether a packet of that counter may be opened. Changes nothing: forged packets ask too."""
        below = self.top - counter
        return below < 0 or (below < WINDOW and not self._seen >> below & 1)

    def note(self, counter: int) -> None:
        """A packet of that fresh counter was authentic."""
        above = counter - self.top
        if above <= 0:
            self._seen |= 1 << -above
        else:
            self._seen = (self._seen << above | 1) & _ALL if above < WINDOW else 1
            self.top = counter

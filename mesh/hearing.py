"""Whether this node hears at all: what a judgment on somebody's silence rests on.

Who accuses another of silence may be deaf. So a failed round accuses somebody only from a node whose pings are
answered, a last look (`mesh.inquest`) begins only right after an echo, and who has heard nobody for `alone_s` takes
itself for the only one left, as far as it can know. Two nodes have nobody else to ask.
"""

import attrs

from mesh.detector import Detector
from mesh.members import Members
from mesh.now import Now
from mesh.swim_options import SwimOptions


@attrs.frozen
class Hearing:
    """Questions about our own ears; the detector keeps what they rest on."""

    _options: SwimOptions
    _members: Members
    _detector: Detector

    def is_alone(self, now: Now) -> bool:
        """Whether nobody has been heard for `alone_s`."""
        heard_at = self._detector.heard_anybody_at
        return heard_at is None or now.mono - heard_at > self._options.alone_s

    def is_answered(self) -> bool:
        """Whether pings of ours are answered."""
        if self._has_no_other:
            return True
        return self._detector.echoed_at is not None and not self._detector.loss.is_deaf

    def heard_just_now(self, now: Now) -> bool:
        """Whether a ping of ours, sent less than a verdict ago, was answered; or there is nobody to ask."""
        if self._has_no_other:
            return True
        echoed_at = self._detector.echoed_at
        return echoed_at is not None and now.mono - echoed_at < self._options.verdict_min_s

    @property
    def _has_no_other(self) -> bool:
        return self._members.live <= 2 or not self._options.control_echo

"""What a port has done, counted for metrics."""

from collections import Counter

import attrs


@attrs.define
class Counters:
    """What the server has done, for metrics."""

    connections: int = 0
    """Open now."""
    accepted: int = 0
    turned_away: int = 0
    """Closed at once, because `connections_max` were open."""
    accept_errors: int = 0
    disconnects: int = 0
    """Clients that went away before their answer was complete."""
    answers: Counter[tuple[str, int]] = attrs.Factory(Counter)
    """By route and status."""
    refused: Counter[str] = attrs.Factory(Counter)
    """Requests that never reached a route, by error code."""

    def statistics(self) -> dict[str, object]:
        """Return a snapshot for `node.ops.metrics`."""
        answers: dict[str, dict[str, int]] = {}
        for (route, status), count in sorted(self.answers.items()):
            answers.setdefault(route, {})[str(status)] = count
        return {
            "connections": self.connections,
            "accepted": self.accepted,
            "turned_away": self.turned_away,
            "accept_errors": self.accept_errors,
            "disconnects": self.disconnects,
            "answers": answers,
            "refused": dict(self.refused),
        }

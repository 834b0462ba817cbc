"""The two clocks that every core is handed, and never reads for itself.

Deadlines and failure detectors use `mono`, which only moves forward. Hybrid
clocks, certificates and the shared probing index use `wall`, which an operator
or NTP may move either way. In the simulator both come from virtual time.
"""

from mesh.hot import hot


@hot
class Now:
    """One instant, as a node sees it."""

    mono: float
    """Seconds since an arbitrary origin; monotonic; comparable on this node only."""

    wall: float
    """Seconds since the Unix epoch; may jump; comparable between nodes to within their skew."""

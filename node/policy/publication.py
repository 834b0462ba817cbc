"""When this node tells the mesh how loaded it is, and what the mesh was lately seen to have.

Figures are renewed every `publish_s`, and sooner when they change, but never more often than
`publish_min_s`: a quarter of a second is fresh beside a service time of seconds.
"""

import attrs

from mesh.effects import Effect
from mesh.errors import LimitError
from mesh.facts import Fact
from mesh.load import LoadRecord
from mesh.now import Now
from mesh.swim import Swim
from node.policy.capacity import KnownModels


@attrs.define
class Publication:
    """The clock of this node's load record."""

    publish_s: float
    publish_min_s: float
    due_at: float = attrs.field(init=False, default=0.0)
    """When the figures are next to be told, monotonic seconds."""
    known_models: KnownModels = attrs.field(init=False, factory=KnownModels)
    _published_at: float = attrs.field(init=False, default=0.0)

    def publish(self, now: Now, swim: Swim, load: LoadRecord) -> list[Effect | Fact]:
        """Tell the mesh. A record too large for a datagram loses its last models."""
        self._published_at = now.mono
        self.due_at = now.mono + self.publish_s
        self.known_models.note(now, [*swim.loads.model_names(), *(model.name for model in load.models)])
        while True:
            try:
                return swim.publish_load(now, load)
            except LimitError:
                load = attrs.evolve(load, models=load.models[:-1])

    def changed(self, now: Now) -> None:
        """The figures have changed: tell it soon."""
        soonest = max(now.mono, self._published_at + self.publish_min_s)
        self.due_at = min(self.due_at, soonest)

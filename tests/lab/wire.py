"""The simulator's network in real time: its rules and chances decide, and who waits for a change is woken."""

import attrs
import trio

from sim.network import Network
from sim.rule import Rule


@attrs.define
class Wire(Network):
    """`sim.network.Network`, which real sockets feed and are fed by."""

    _moved: trio.Event = attrs.field(init=False, factory=trio.Event)

    def lay(self, name: str, *rules: Rule) -> None:
        """Put rules in force under a name, and wake who waits."""
        super().lay(name, *rules)
        self.move()

    def lift(self, name: str) -> None:
        """Take back the rules of a name, and wake who waits."""
        super().lift(name)
        self.move()

    def heal(self) -> None:
        """Take back every rule, and wake who waits."""
        super().heal()
        self.move()

    def move(self) -> None:
        """Wake who waits for a change."""
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    async def moved(self) -> None:
        """Wait for the next change."""
        await self._moved.wait()

"""The engine shell beside a core that notes what it is told."""

from typing import Any

import attrs
import pytest
import trio

from node.supervise import EngineCommand, EngineShell


@attrs.define
class Notes:
    """A core that notes each input."""

    exits: list[tuple[str, str]] = attrs.Factory(list)

    def engine_exited(self, replica: str, reason: str) -> None:
        self.exits.append((replica, reason))

    def step(self, method: Any, *arguments: Any) -> Any:
        return method(*arguments)


async def test_an_engine_that_cannot_be_started_is_told_like_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    core = Notes()
    async with trio.open_nursery() as nursery:
        shell = EngineShell(core, core.step, None, nursery, {"toy": EngineCommand((), ())})
        shell.start("toy", 1)
    assert core.exits == [("toy", "cannot be started: Too many open files")]
    assert shell.pids == []

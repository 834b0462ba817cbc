"""The driver on trio's virtual clock: effects in order, one timer, sockets before judgement."""

import attrs
import trio
from trio.testing import MockClock

from mesh.effects import (
    CloseLink,
    Dial,
    Effect,
    FlushLink,
    KeepGeneration,
    KillEngine,
    Report,
    SendDatagram,
    StartEngine,
    Stop,
    Wake,
)
from mesh.now import Now
from node.driver import Driver


@attrs.define
class Echo:
    """A core that asks for whatever a test tells it to, and notes when it is ticked."""

    deadline: float = 10.0
    period: float = 10.0
    ticks: list[float] = attrs.Factory(list)
    inputs: list[float] = attrs.Factory(list)
    is_idle: bool = False

    def ask(self, now: Now, *effects: Effect) -> list[Effect]:
        self.inputs.append(now.mono)
        return list(effects)

    def sooner(self, now: Now, deadline: float) -> tuple[str, list[Effect]]:
        self.deadline = deadline
        return "a value", []

    def next_deadline(self) -> float:
        return self.deadline

    def tick(self, now: Now) -> list[Effect]:
        self.ticks.append(now.mono)
        self.deadline = now.mono + self.period
        return []


@attrs.define
class Recorder:
    """Shells that only remember what they were asked, in one list."""

    asked: list[tuple] = attrs.Factory(list)

    def __getattr__(self, name: str):
        return lambda *arguments: self.asked.append((name, *arguments))


def driver(core: Echo) -> tuple[Driver, Recorder]:
    shells = Recorder()
    return Driver(
        core, lambda report: shells.asked.append(("report", report.event)), shells, shells, shells
    ), shells


async def test_effects_are_carried_out_in_order() -> None:
    core = Echo()
    node, shells = driver(core)
    address = ("127.0.0.1", 1)
    effects = [
        Dial(1, address),
        SendDatagram(address, b"x"),
        FlushLink(1),
        Report("event"),
        StartEngine("toy", 2),
        KillEngine("toy", "frozen"),
        CloseLink(1, "idle"),
    ]
    node.step(core.ask, *effects)
    assert [asked[0] for asked in shells.asked] == [
        "dial",
        "send",
        "flush",
        "report",
        "start",
        "kill",
        "close",
    ]


async def test_a_raised_generation_is_kept_and_a_reason_to_stop_is_told() -> None:
    told: list[object] = []
    node = Driver(Echo(), lambda _: None, keep=told.append, stop=told.append)
    node.step(node.core.ask, KeepGeneration(7), Stop("two of us"))
    assert told == [7, "two of us"]


async def test_a_value_is_returned_beside_the_effects() -> None:
    core = Echo()
    assert driver(core)[0].step(core.sooner, 5.0) == "a value"


async def test_a_watcher_is_woken_and_the_next_watch_is_new() -> None:
    core = Echo()
    node, _ = driver(core)
    first = node.watch(7)
    assert node.watch(7) is first
    node.step(core.ask, Wake(7), Wake(8))
    assert first.is_set() and not node.watch(7).is_set()


async def test_the_timer_fires_at_the_deadline_and_moves_when_it_comes_nearer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    core = Echo(deadline=trio.current_time() + 10)
    node, _ = driver(core)
    began = trio.current_time()
    nursery.start_soon(node.run_timer)
    await trio.sleep(1)
    node.step(core.sooner, began + 2)
    await trio.sleep(13)
    assert [round(tick - began, 6) for tick in core.ticks] == [2, 12]


async def test_a_deadline_that_moves_away_wakes_nobody(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    core = Echo(deadline=began + 2)
    node, _ = driver(core)
    nursery.start_soon(node.run_timer)
    await trio.sleep(1)
    node.step(core.sooner, began + 7)
    await trio.sleep(8)
    assert [round(tick - began, 6) for tick in core.ticks] == [7]


async def test_after_a_pause_the_sockets_are_heard_before_the_timer_fires(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    core = Echo(deadline=1.0)
    node, _ = driver(core)
    arrived = trio.Event()

    async def receiver() -> None:
        await arrived.wait()
        assert core.ticks == [], "judged before it was heard"
        node.step(core.ask)

    nursery.start_soon(node.run_timer)
    nursery.start_soon(receiver)
    await trio.testing.wait_all_tasks_blocked()
    arrived.set()
    mock_clock.jump(30)
    await trio.testing.wait_all_tasks_blocked()
    assert core.inputs and core.ticks


async def test_whoever_waits_for_rest_is_woken_by_the_step_that_brings_it(nursery: trio.Nursery) -> None:
    core = Echo()
    node, _ = driver(core)
    rested = trio.Event()

    async def wait() -> None:
        await node.wait_idle()
        rested.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    node.step(core.ask)
    await trio.testing.wait_all_tasks_blocked()
    assert not rested.is_set()
    core.is_idle = True
    node.step(core.ask)
    await rested.wait()


def test_what_its_machine_has_dropped_is_told_once_a_tick_and_before_it():
    told = []

    class Lossy(Echo):
        def lost_input(self, now: Now, count: int) -> list[Effect]:
            told.append((count, len(self.ticks)))
            return []

    class Intake:
        waiting = [3, 0, 5]

        def lost(self) -> int:
            return self.waiting.pop(0)

    driver = Driver(Lossy(), lambda _report: None, intake=Intake())

    async def main():
        for _ in range(3):
            driver.tick()

    trio.run(main, clock=MockClock())
    assert told == [(3, 0), (5, 2)]

"""Engine supervision as a policy: restarts, backoff, frozen engines, broken models."""

from mesh.effects import KillEngine, StartEngine
from mesh.facts import EngineLost, EngineReady
from mesh.frames import Ready, Step
from mesh.now import Now
from node.policy.engines import EngineOptions, Engines, EngineState, Replica

READY = Ready("toy", "d", "p")


def engines() -> Engines:
    return Engines({"toy": Replica("toy", "toy")}, EngineOptions())


def at(seconds: float) -> Now:
    return Now(seconds, seconds)


def ready(engines: Engines, seconds: float) -> Replica:
    replica = engines.replicas["toy"]
    assert engines.start(at(seconds), replica, 1) == [StartEngine("toy", 1)]
    assert EngineReady("toy") in engines.became_ready(at(seconds), "toy", READY)
    return replica


def waits(engines: Engines, deaths: int) -> list[float]:
    """Let an engine die as soon as it is ready, again and again; return the waits before each restart."""
    now, found = 0.0, []
    for _ in range(deaths):
        replica = ready(engines, now)
        engines.exited(at(now), "toy", "killed by signal 9")
        found.append(round(replica.restart_at - now, 3))
        now = replica.restart_at
    return found


def test_a_crash_loop_costs_less_and_less() -> None:
    assert waits(engines(), 8) == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_healthy_life_begins_the_backoff_anew() -> None:
    e = engines()
    waits(e, 5)
    replica = ready(e, 100)
    e.exited(at(100 + EngineOptions().healthy_s), "toy", "killed")
    assert round(replica.restart_at - 130, 3) == 0.2


def test_a_restart_is_due_when_its_wait_is_over() -> None:
    e = engines()
    ready(e, 0)
    e.exited(at(0), "toy", "killed")
    assert e.next_deadline() == 0.2
    assert e.due(at(0.1)) == [] and [r.name for r in e.due(at(0.2))] == ["toy"]


def test_its_last_step_is_told_with_its_death() -> None:
    e = engines()
    ready(e, 0).in_step = Step((3, 4)).tickets
    assert EngineLost("toy", "killed", (3, 4)) in e.exited(at(1), "toy", "killed")
    assert e.replicas["toy"].in_step == ()


def test_a_model_that_cannot_be_loaded_is_not_tried_again() -> None:
    e = engines()
    e.start(at(0), e.replicas["toy"], 1)
    e.broken("toy", "no config.json")
    e.exited(at(1), "toy", "exited with status 3")
    assert e.replicas["toy"].state is EngineState.BROKEN
    assert e.replicas["toy"].reason == "no config.json"
    assert e.next_deadline() is None


def kills(e: Engines, samples: list[tuple[float, bool, int, float]]) -> list[float]:
    """Feed (time, has_work, layers, cpu_s) samples; return the times at which the engine was to be killed."""
    found = []
    for seconds, has_work, layers, cpu_s in samples:
        if any(isinstance(o, KillEngine) for o in e.progress(at(seconds), "toy", layers, cpu_s, has_work)):
            found.append(seconds)
    return found


def test_frozen_at_work_is_killed_within_about_a_second() -> None:
    e = engines()
    ready(e, 0)
    assert kills(e, [(0.25 * n, True, 7, 3.0) for n in range(6)]) == [1.0]


def test_slow_is_not_frozen() -> None:
    by_counter, by_processor = engines(), engines()
    ready(by_counter, 0)
    ready(by_processor, 0)
    assert kills(by_counter, [(n, True, n, 3.0) for n in range(60)]) == []
    assert kills(by_processor, [(n, True, 7, n / 10) for n in range(60)]) == []


def test_frozen_while_it_loads_is_killed_after_a_longer_patience() -> None:
    e = engines()
    e.start(at(0), e.replicas["toy"], 1)
    still = [(float(n), False, 0, 0.1) for n in range(40)]
    assert kills(e, still) == [EngineOptions().frozen_start_s]
    working = [(40.0 + n, False, 0, 0.1 * n) for n in range(2, 80)]
    assert kills(e, working) == []


def test_idle_is_not_frozen() -> None:
    e = engines()
    ready(e, 0)
    assert kills(e, [(n, False, 7, 3.0) for n in range(60)]) == []


def test_after_a_long_rest_the_patience_begins_with_the_work() -> None:
    e = engines()
    ready(e, 0)
    rest = [(n / 4, False, 7, 3.0) for n in range(240)]
    work = [(60 + n / 4, True, 7, 3.0) for n in range(5)]
    assert kills(e, rest + work) == [61.0]


def test_work_that_came_just_before_a_sample_does_not_look_frozen() -> None:
    e = engines()
    ready(e, 0)
    assert kills(e, [(0.0, False, 7, 3.0), (1.0, True, 7, 3.0), (1.25, True, 7, 3.0)]) == []


def test_a_leaving_node_starts_nothing_again() -> None:
    e = engines()
    ready(e, 0)
    e.stop()
    e.exited(at(1), "toy", "exited with status 0")
    assert e.next_deadline() is None

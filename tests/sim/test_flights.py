"""Streams that see trouble: every client knows every token that it must receive."""

import pytest

from sim.engine import POISON_ID
from sim.fault import Fault, Strike
from sim.faults import Crash, EngineCrash, EngineFreeze, OneWayCut, Partition, Pause
from sim.liveness import Bounds
from sim.scenario import Result, Scenario, run
from sim.workload import Client, Request

NAMES = tuple(f"node-{index}" for index in range(5))
WORKERS = NAMES[2:]


def streams(count: int, tokens: int = 400, **more: object) -> tuple[Request, ...]:
    return tuple(
        Request(NAMES[index % 2], 2.0 + 0.01 * index, f"story {index}", 1000 + index, tokens, **more)
        for index in range(count)
    )


def played(requests: tuple[Request, ...], *faults: tuple[float, Fault], end_s: float = 8.0) -> Result:
    """Run requests under faults on two entries and three workers; everything must hold."""
    strikes = tuple(Strike(at, fault) for at, fault in faults)
    bounds = Bounds(views_s=10.0, engines_s=10.0, clients_s=20.0, left_s=5.0)
    result = run(Scenario("test", 5, 5, 3, requests, strikes, end_s, NAMES, bounds=bounds))
    assert result.violation is None, "\n".join([str(result.violation), *result.world.trace.tail(40)])
    return result


def moved(result: Result) -> list[Client]:
    return [client for client in result.world.clients if client.moves]


def test_streams_that_nothing_befalls_are_exact_and_unmoved():
    result = played(streams(12, 60), end_s=4.0)
    assert result.outcomes == {"done": 12}
    assert not moved(result)


@pytest.mark.parametrize("power", [False, True], ids=["process killed", "power lost"])
def test_streams_of_a_killed_worker_go_on_elsewhere_to_the_character(power: bool):
    result = played(streams(12), (3.0, Crash("node-3", power)))
    assert result.outcomes == {"done": 12}
    assert 1 <= len(moved(result)) < 12
    assert max(client.longest_pause_s for client in moved(result)) < (2.0 if power else 0.2)


@pytest.mark.parametrize("pause_s", [1.6, 2.5, 6.0])
def test_a_paused_worker_is_left_and_its_streams_are_exact(pause_s: float):
    result = played(streams(12), (3.0, Pause("node-3", pause_s)))
    assert result.outcomes == {"done": 12}
    assert moved(result)


def test_late_tokens_of_a_worker_that_was_cut_off_are_not_spliced_in():
    result = played(streams(12), (3.0, OneWayCut("node-3", "node-0", 1.5)))
    assert result.outcomes == {"done": 12}
    assert moved(result)
    late = result.world["node-0"].core.forwarder.statistics.stale_frames
    assert late > 0, "no late token came, so the test shows nothing"


def test_two_workers_may_die_one_after_the_other():
    result = played(streams(12), (2.8, Crash("node-2")), (3.4, Crash("node-4", power=True)))
    assert result.outcomes == {"done": 12}


def test_streams_cross_a_partition_that_heals_under_them():
    result = played(streams(12), (3.0, Partition(("node-3", "node-4"), 3.0)))
    assert result.outcomes == {"done": 12}
    assert moved(result)


@pytest.mark.parametrize("fault", [EngineCrash("node-3"), EngineFreeze("node-3")], ids=["crash", "freeze"])
def test_an_engine_that_fails_comes_back_and_its_node_stays_a_member(fault: Fault):
    result = played(streams(12), (3.0, fault))
    assert result.outcomes == {"done": 12}
    node = result.world["node-3"]
    assert node.engines["toy-0"].pid == 2
    assert node.core.swim.me.identity.incarnation == 0, "somebody doubted the node itself"


def test_a_poisonous_request_ends_alone():
    poison = Request("node-0", 2.3, f"drink {chr(POISON_ID)} this", 666, 50)
    result = played((*streams(12), poison))
    assert result.outcomes == {"done": 12, "failed:engine_crash": 1}
    crashes = sum(engine.pid - 1 for name in WORKERS for engine in result.world[name].engines.values())
    assert crashes == 2, "it should die twice: once in company, once alone"


def test_a_cancelled_stream_leaves_nothing_behind():
    result = played(streams(6, 2000, cancel_after_s=0.5), end_s=4.0)
    assert result.outcomes == {"cancelled": 6}


def test_a_stream_whose_time_is_up_ends_then():
    result = played(streams(3, 4000, timeout_s=1.0), end_s=6.0)
    assert result.outcomes == {"failed:deadline_exceeded": 3}
    assert all(client.ended_at - client.request.at < 1.1 for client in result.world.clients)


def test_a_slow_reader_gets_every_token_and_delays_nobody():
    slow = streams(1, 300, read_s=1.5)[0]
    result = played((slow, *streams(8, 200)[1:]), end_s=4.0)
    assert result.outcomes == {"done": 8}
    first, *others = result.world.clients
    assert max(client.longest_pause_s for client in others) < 0.2
    assert first.text


def test_clients_of_an_entry_that_dies_are_told_so():
    requests = streams(4)
    scenario = Scenario(
        "test",
        5,
        5,
        3,
        requests,
        (Strike(2.5, Crash("node-0")),),
        5.0,
        NAMES,
        crashed=("node-0",),
        exam=False,
    )
    result = run(scenario)
    assert result.violation is None
    assert result.outcomes == {"entry_lost": 2, "done": 2}


@pytest.mark.parametrize("path", [("node-0", "node-3"), ("node-3", "node-0")], ids=["requests", "answers"])
def test_a_one_way_cut_between_entry_and_worker_stalls_no_stream_for_long(path: tuple[str, str]):
    requests = tuple(
        Request(NAMES[index % 2], 2.0 + 0.2 * index, f"story {index}", 1000 + index, 200)
        for index in range(40)
    )
    result = played(requests, (3.0, OneWayCut(*path, 8.0)), end_s=12.0)
    assert result.outcomes == {"done": 40}
    assert moved(result)
    assert max(client.longest_pause_s for client in result.world.clients) < 2.0


def test_requests_after_a_partition_do_not_wait_for_a_kernels_backoff():
    requests = tuple(
        Request("node-0", 2.0 + 0.1 * index, f"story {index}", 1000 + index, 100) for index in range(80)
    )
    result = played(requests, (3.0, Partition(("node-4",), 4.0)), end_s=12.0)
    assert result.outcomes == {"done": 80}
    late = [client.longest_pause_s for client in result.world.clients if client.request.at > 7.0]
    assert max(late) < 1.5

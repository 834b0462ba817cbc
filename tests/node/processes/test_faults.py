"""Faults of real processes under running streams: the text must be the one that the toy defines."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from node.cli.fleet import ANY_PORTS, Fleet, Member, wait_until
from node.cli.streams import Crowd, Watched
from node.engine.toy import expected_text

pytestmark = [pytest.mark.process, pytest.mark.slow]

PROMPT = "def f("
TOKENS = 700


def body(number: int) -> dict[str, object]:
    return {
        "model": "toy",
        "prompt": f"{PROMPT}{number}",
        "max_tokens": TOKENS,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def crowd(entry: Member, count: int) -> Crowd:
    return Crowd([Watched(n, entry.http, body(n)) for n in range(count)])


def serving(entry: Member, worker: str) -> int:
    """Return how many streams of this entry a worker serves, each well under way."""
    flights = entry.ask("/flights") or []
    return sum(flight["worker"] == worker and flight["delivered"] > 20 for flight in flights)


def under_way(entry: Member, worker: str) -> None:
    wait_until(lambda: serving(entry, worker), 20, f"`{worker}` to serve a stream")


def assert_exact(crowd: Crowd) -> None:
    crowd.join()
    for stream in crowd.streams:
        assert stream.error == ""
        assert stream.text == expected_text(f"{PROMPT}{stream.number}", stream.number, TOKENS)
        assert (stream.finish, stream.tokens) == ("length", TOKENS)


def test_a_killed_node_loses_no_byte_of_its_streams(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(3)
    streams = crowd(fleet["n1"], 9)
    under_way(fleet["n1"], "n2")
    fleet["n2"].kill()
    assert_exact(streams)
    assert any(stream.moves for stream in streams.streams)


def test_a_killed_engine_comes_back_and_its_node_stays_a_member(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(3)
    streams = crowd(fleet["n1"], 9)
    under_way(fleet["n1"], "n2")
    os.kill(fleet["n2"].engines[0], signal.SIGKILL)
    assert_exact(streams)
    assert any(stream.moves for stream in streams.streams)
    wait_until(lambda: "toy" in row(fleet["n1"], "n2")["models"], 5, "the engine to be back")
    assert row(fleet["n1"], "n2")["state"] == "alive"
    assert row(fleet["n1"], "n2")["incarnation"] == 0, "it never had to refute anything"


def row(member: Member, name: str) -> dict:
    return next(row for row in member.ask("/members") if row["name"] == name)


def test_a_frozen_node_is_left_and_its_late_tokens_are_not_spliced(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(3)
    streams = crowd(fleet["n1"], 9)
    under_way(fleet["n1"], "n2")
    fleet["n2"].send(signal.SIGSTOP)
    wait_until(lambda: not serving(fleet["n1"], "n2"), 5, "its streams to be moved")
    fleet["n2"].send(signal.SIGCONT)
    assert_exact(streams)
    moved = [stream for stream in streams.streams if stream.moves]
    assert moved and max(stream.longest_pause_s for stream in moved) < 4
    wait_until(lambda: row(fleet["n1"], "n2")["state"] == "alive", 10, "it to be trusted again")


def test_a_frozen_engine_is_killed_and_replaced(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(3)
    streams = crowd(fleet["n1"], 9)
    under_way(fleet["n1"], "n2")
    os.kill(fleet["n2"].engines[0], signal.SIGSTOP)
    assert_exact(streams)
    wait_until(lambda: "toy" in row(fleet["n1"], "n2")["models"], 10, "a new engine to be ready")


def test_engines_end_with_their_node(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(1)
    engine = fleet["n1"].engines[0]
    fleet["n1"].kill()
    wait_until(lambda: not os.path.exists(f"/proc/{engine}"), 5, "the engine to end")


def test_streams_wait_while_every_worker_is_dead_and_go_on_with_the_first_that_returns(
    fleet: Fleet, tmp_path: Path
) -> None:
    worker = ("worker", *ANY_PORTS, "--model", "toy", "--data-dir", str(tmp_path / "data"))
    fleet.start(*worker).wait_ready_file()
    fleet.start("entry", *ANY_PORTS, "--role", "entry").wait_ready_file()
    entry = fleet["entry"]
    wait_until(lambda: entry.ask("/health/ready") == "ready", 20, "the entry to know of a model")
    streams = crowd(entry, 4)
    under_way(entry, "worker")
    fleet["worker"].kill()
    wait_until(lambda: entry.ask("/health/ready") is None, 5, "the entry to say that nobody can answer")
    assert len(entry.ask("/flights")) == 4
    fleet.start(*worker).wait_ready_file()
    assert_exact(streams)
    assert [stream.moves for stream in streams.streams] == [1] * 4
    assert row(entry, "worker")["generation"] == 2


@pytest.mark.parametrize("ask_to_leave", [lambda m: m.send(signal.SIGTERM), lambda m: post_drain(m)])
def test_a_drained_node_finishes_its_streams_and_leaves(
    toys: Callable[[int], Fleet], ask_to_leave: Callable[[Member], None]
) -> None:
    fleet = toys(2)
    streams = crowd(fleet["n2"], 2)
    wait_until(lambda: len(fleet["n2"].ask("/flights")) == 2, 10, "its streams to run")
    ask_to_leave(fleet["n2"])
    assert_exact(streams)
    wait_until(lambda: row(fleet["n1"], "n2")["state"] == "left", 10, "the goodbye to be heard")
    assert fleet["n2"].process.wait(10) == 0


def post_drain(member: Member) -> None:
    request = urllib.request.Request(f"http://{member.ops}/drain", data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 202


def test_a_drained_node_waits_for_a_client_who_reads_late(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(1)
    host, _, port = fleet["n1"].http.rpartition(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.connect((host, int(port)))
        asked = json.dumps(body(1) | {"max_tokens": LATE_TOKENS}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(asked)}\r\n\r\n"
        slow.sendall(head.encode() + asked)
        wait_until(lambda: fleet["n1"].ask("/flights"), 10, "the stream to run")
        fleet["n1"].send(signal.SIGTERM)
        wait_until(lambda: not fleet["n1"].ask("/flights"), 30, "the stream to be computed")
        read = bytearray()
        while data := slow.recv(65536):
            read += data
    assert read.count(b'"text":') == LATE_TOKENS + 1 and b"data: [DONE]" in read


LATE_TOKENS = 3000
"""About a megabyte of events: more than sockets hold while nobody reads."""

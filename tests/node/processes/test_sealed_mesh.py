"""Real nodes with a mesh key: they serve; others are kept out and say why; keys are rotated under way."""

import signal
import socket
from pathlib import Path

import pytest

from node import keys
from node.cli.fleet import ANY_PORTS, Fleet, wait_until
from tests.node.processes.test_faults import assert_exact, crowd, under_way
from tests.node.processes.test_life import post

pytestmark = [pytest.mark.process, pytest.mark.slow]


def log_of(fleet: Fleet, name: str) -> str:
    return fleet[name].log.read_text()


def alive(fleet: Fleet, name: str) -> int:
    return sum(row["state"] == "alive" for row in fleet[name].ask("/members") or [])


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    keys.add(tmp_path / "mesh.key")
    return tmp_path / "mesh.key"


@pytest.fixture
def three(fleet: Fleet, key_file: Path) -> Fleet:
    """An entry and two workers that share a key."""
    flags = (*ANY_PORTS, "--model", "toy", "--mesh-key-file", str(key_file))
    fleet.start("n1", *ANY_PORTS, "--role", "entry", "--mesh-key-file", str(key_file)).wait_ready_file()
    for name in ("n2", "n3"):
        fleet.start(name, *flags).wait_ready_file()
    wait_until(lambda: fleet["n1"].ask("/health/ready") == "ready", 30, "a worker to be ready")
    wait_until(lambda: all(alive(fleet, n) == 3 for n in ("n1", "n2", "n3")), 20, "three members each")
    return fleet


def ask(fleet: Fleet) -> str:
    body = {"model": "toy", "prompt": "a b", "max_tokens": 20, "seed": 1}
    status, answer = post(fleet["n1"], "/v1/completions", body)
    assert status == 200, answer
    return answer["choices"][0]["text"]


def refused(metrics: str, reason: str) -> float:
    wanted = f'inferno_net_links_refused_total{{reason="{reason}"}} '
    return sum(float(line[len(wanted) :]) for line in metrics.splitlines() if line.startswith(wanted))


def test_three_nodes_with_a_key_serve_and_strangers_stay_out_and_say_why(
    three: Fleet, tmp_path: Path
) -> None:
    assert ask(three) == ask(three) != ""
    other = tmp_path / "other.key"
    keys.add(other)
    for name, flags in {
        "key": ("--mesh-key-file", str(other)),
        "label": ("--mesh-key-file", str(tmp_path / "mesh.key"), "--mesh-name", "other"),
        "clear": (),
    }.items():
        three.start(name, *ANY_PORTS, "--role", "entry", *flags).wait_ready_file()
    for name in ("key", "label"):
        wait_until(lambda n=name: "link_refused" in log_of(three, n), 20, f"`{name}` to say why")
        assert "another mesh key or another mesh name" in log_of(three, name)
    wait_until(lambda: "reason=clear" in log_of(three, "n1"), 20, "the seed to name the clear one")
    metrics = three["n1"].ask("/metrics")
    assert refused(metrics, "clear") >= 1 and refused(metrics, "broken_off") >= 2
    assert alive(three, "n1") == 3
    assert [alive(three, name) for name in ("key", "label", "clear")] == [1, 1, 1]


def test_the_key_is_rotated_under_way_and_nobody_is_lost(three: Fleet, key_file: Path) -> None:
    text = ask(three)
    keys.add(key_file)
    steps = [lambda lines: lines, lambda lines: lines[::-1], lambda lines: lines[:1]]
    for step in steps:
        key_file.write_text("\n".join(step(key_file.read_text().splitlines())) + "\n")
        for member in three.members:
            told = log_of(three, member.name).count("rekeyed")
            member.send(signal.SIGHUP)
            wait_until(lambda m=member, t=told: log_of(three, m.name).count("rekeyed") > t, 10, "a new ring")
        assert ask(three) == text
    key_file.write_text("nonsense\n")
    three["n1"].send(signal.SIGHUP)
    wait_until(lambda: "keys_not_read" in log_of(three, "n1"), 10, "the mistake to be told")
    assert ask(three) == text
    assert [alive(three, name) for name in ("n1", "n2", "n3")] == [3, 3, 3]
    assert all("state=dead" not in log_of(three, name) for name in ("n1", "n2", "n3"))


def test_a_killed_node_loses_no_byte_over_secured_links(three: Fleet) -> None:
    streams = crowd(three["n1"], 6)
    under_way(three["n1"], "n2")
    three["n2"].kill()
    assert_exact(streams)
    assert any(stream.moves for stream in streams.streams)


def test_a_mesh_over_ipv6_serves_through_its_peer(fleet: Fleet, key_file: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    ports = (
        "--http",
        "127.0.0.1:0",
        "--ops",
        "127.0.0.1:0",
        "--bind",
        "[::1]:0",
        "--mesh-key-file",
        str(key_file),
    )
    fleet.start("n1", *ports, "--role", "entry").wait_ready_file()
    fleet.start("n2", *ports, "--model", "toy").wait_ready_file()
    wait_until(lambda: fleet["n1"].ask("/health/ready") == "ready", 30, "the worker to be ready")
    assert ask(fleet) != ""
    assert all(row["address"].startswith("[::1]:") for row in fleet["n1"].ask("/members"))


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True

"""Starting, being refused, being asked: one or two real nodes."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from node.cli.fleet import ANY_PORTS, Fleet, Member, wait_until
from node.cli.streams import Crowd, Watched
from node.engine.toy import expected_text

pytestmark = [pytest.mark.process, pytest.mark.slow]


def post(member: Member, path: str, body: object) -> tuple[int, dict]:
    host, _, port = member.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, body if isinstance(body, str) else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_the_ready_file_tells_where_the_node_is(fleet: Fleet) -> None:
    fleet.start("n1", *ANY_PORTS, "--model", "toy").wait_ready_file()
    ready = json.loads(fleet["n1"].ready_file.read_text())
    assert set(ready) == {"name", "pid", "http", "ops", "bind", "engines", "startup_ms"}
    assert ready["pid"] == fleet["n1"].process.pid and len(ready["engines"]) == 1
    assert fleet["n1"].ask("/health") == "healthy"
    assert {"gossip", "ops", "http"} <= set(ready["startup_ms"])


def test_a_second_node_moves_on_from_the_default_ports_and_says_so(fleet: Fleet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run_node("--http", f"127.0.0.1:{port}")
    assert refused.returncode == 2
    assert f"--http `127.0.0.1:{port}` is taken" in refused.stderr and "hint:" in refused.stderr
    fleet.start("n1", "--model", "toy").wait_ready_file()
    fleet.start("n2", "--model", "toy").wait_ready_file()
    one, two = fleet["n1"], fleet["n2"]
    assert len({one.http, two.http, one.ops, two.ops, one.bind, two.bind}) == 6
    assert "port_moved what=http" in (two.log or Path()).read_text()


def run_node(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", *flags], capture_output=True, text=True, timeout=30, check=False
    )


def test_anything_but_loopback_is_refused_with_the_reason() -> None:
    refused = run_node("--bind", "0.0.0.0:0")
    assert refused.returncode == 2 and "mesh key" in refused.stderr and "hint:" in refused.stderr


def test_a_dead_seed_is_named_and_does_not_stop_the_node(fleet: Fleet) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        fleet.start("n1", *ANY_PORTS, "--model", "toy", "--join", dead).wait_ready_file()
        member = fleet["n1"]
        wait_until(lambda: member.ask("/health/ready") == "ready", 10, "the node to be ready alone")
        wait_until(lambda: dead in member.log.read_text(), 10, "the dead seed to be named in the log")


def test_an_entry_without_a_model_serves_through_its_peers(fleet: Fleet) -> None:
    fleet.start_all(["worker"], *ANY_PORTS, "--model", "toy", "--role", "worker")
    fleet.start("entry", *ANY_PORTS, "--role", "entry").wait_ready_file()
    entry = fleet["entry"]
    assert fleet["worker"].http == "" and entry.engines == []
    wait_until(lambda: entry.ask("/health/ready") == "ready", 20, "the entry to know of a model")
    status, answer = post(
        entry, "/v1/completions", {"model": "toy", "prompt": "x", "max_tokens": 9, "seed": 4}
    )
    assert (status, answer["choices"][0]["text"]) == (200, expected_text("x", 4, 9))
    assert answer["inferno"]["worker"] == "worker"


@pytest.mark.parametrize("spoil", ["empty", "truncated", "file"])
def test_a_broken_model_is_explained_and_the_rest_of_the_node_lives(
    fleet: Fleet, tmp_path: Path, spoil: str
) -> None:
    directory = broken_model(tmp_path / "broken", spoil)
    fleet.start("n1", *ANY_PORTS, "--model", "toy", "--model", str(directory)).wait_ready_file()
    member = fleet["n1"]
    wait_until(lambda: "model_broken" in member.log.read_text(), 30, "the model to be refused")
    line = next(line for line in member.log.read_text().splitlines() if "model_broken" in line)
    assert "hint:" in line and str(directory) in line
    status, answer = post(
        member, "/v1/completions", {"model": "toy", "prompt": "x", "max_tokens": 3, "seed": 1}
    )
    assert (status, answer["choices"][0]["text"]) == (200, expected_text("x", 1, 3))


def broken_model(directory: Path, spoil: str) -> Path:
    if spoil == "file":
        directory.write_text("no directory")
        return directory
    directory.mkdir()
    if spoil == "truncated":
        whole = Path(__file__).parents[3] / "node" / "models" / "ember-py"
        for file in whole.iterdir():
            data = file.read_bytes()
            (directory / file.name).write_bytes(
                data[: len(data) // 2] if file.suffix == ".safetensors" else data
            )
    return directory


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/v1/completions", '{"model": "toy", "prompt": ', 400, "json"),
        ("/v1/completions", {"model": "nope", "prompt": "x"}, 404, "nope"),
        ("/v1/completions", {"model": "toy", "prompt": "x", "temperature": -1}, 400, "temperature"),
        ("/v1/completions", {"model": "toy", "prompt": "x", "max_tokens": -5}, 400, "max_tokens"),
        ("/v1/completions", {"model": "toy", "prompt": "x", "max_tokens": 10**30}, 400, "digits"),
        ("/v1/completions", {"model": "toy", "prompt": "x" * 100_000}, 400, "8192"),
        ("/v1/chat/completions", {"model": "toy", "messages": []}, 400, "messages"),
        (
            "/v1/chat/completions",
            {"model": "toy", "messages": [{"role": "user", "content": "x"}], "tools": [{}]},
            400,
            "tools",
        ),
        ("/v1/nowhere", {}, 404, "/v1/nowhere"),
    ],
)
def test_bad_requests_are_answered_with_the_reason(asked, path, body, status, told) -> None:
    got, answer = post(asked, path, body)
    assert (got, told.lower() in answer["error"]["message"].lower()) == (status, True), answer


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Member:
    with Fleet(tmp_path_factory.mktemp("asked")) as fleet:
        fleet.start("n1", *ANY_PORTS, "--model", "toy").wait_ready_file()
        fleet.wait_converged()
        yield fleet["n1"]


def test_any_entry_gives_the_same_text(toys: Callable[[int], Fleet]) -> None:
    fleet = toys(3)
    ask = {"model": "toy", "prompt": "same", "max_tokens": 30, "seed": 9}
    texts = {post(member, "/v1/completions", ask)[1]["choices"][0]["text"] for member in fleet.members}
    assert texts == {expected_text("same", 9, 30)}


def test_the_openai_client_lists_completes_and_streams_on_any_node(toys: Callable[[int], Fleet]) -> None:
    import openai

    for member in toys(2).members:
        with openai.OpenAI(base_url=f"http://{member.http}/v1", api_key="unused") as client:
            assert [model.id for model in client.models.list()] == ["toy"]
            whole = client.completions.create(model="toy", prompt="x", max_tokens=8, seed=3)
            parts = client.completions.create(model="toy", prompt="x", max_tokens=8, seed=3, stream=True)
            assert whole.choices[0].text == expected_text("x", 3, 8)
            assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
            chat = client.chat.completions.create(
                model="toy", messages=[{"role": "user", "content": "hi"}], max_tokens=8, seed=3
            )
            assert chat.choices[0].message.content and chat.usage.completion_tokens == 8


def test_a_mesh_in_the_foreground_stops_cleanly_on_one_signal() -> None:
    words = [sys.executable, "-m", "node", "mesh", "--nodes", "2", "--model", "toy"]
    mesh = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    shown = []
    for line in mesh.stdout:
        shown.append(line)
        if "Ctrl-C" in line:
            break
    assert any("curl -N http://" in line for line in shown) and any("chat page" in line for line in shown)
    os.killpg(mesh.pid, signal.SIGINT)
    _, errors = mesh.communicate(timeout=30)
    assert mesh.returncode == 0 and "Traceback" not in errors


def test_a_model_that_the_mesh_had_a_moment_ago_is_waited_for(fleet: Fleet) -> None:
    fleet.start_all(["worker"], *ANY_PORTS, "--model", "toy", "--role", "worker")
    fleet.start("entry", *ANY_PORTS, "--role", "entry").wait_ready_file()
    entry = fleet["entry"]
    wait_until(lambda: entry.ask("/health/ready") == "ready", 20, "the entry to know of a model")
    fleet["worker"].kill()
    wait_until(lambda: "dead" in {row["state"] for row in entry.ask("/members")}, 20, "the worker to be dead")
    crowd = Crowd(
        [Watched(0, entry.http, {"model": "toy", "prompt": "x", "max_tokens": 9, "seed": 4, "stream": True})]
    )
    wait_until(lambda: entry.ask("/flights"), 10, "the request to wait")
    fleet.start(
        "another", *ANY_PORTS, "--model", "toy", "--role", "worker", "--join", entry.bind
    ).wait_ready_file()
    crowd.join()
    assert (crowd.streams[0].error, crowd.streams[0].text) == ("", expected_text("x", 4, 9))

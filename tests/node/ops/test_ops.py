"""The operations port: what a supervisor, a scraper and an operator are told."""

import io
import json

import pytest
import trio
import trio.testing
from trio.testing import MockClock as Clock

from node.http.counters import Counters
from node.http.limits import Limits
from node.logs import Log
from node.ops.app import serve_ops
from node.ops.metrics import exposition
from tests.node.http.fake import FakeGateway
from tests.node.http.test_http_server import BrokenListener


async def ask(nursery: trio.Nursery, gateway: FakeGateway, line: str) -> tuple[int, bytes]:
    """Ask a fresh operations port one thing."""
    client, end = trio.testing.memory_stream_pair()
    http = Counters(connections=7)
    http.answers["/v1/models", 200] = 5
    await nursery.start(serve_ops, BrokenListener([end]), gateway, Limits(), Log(io.StringIO()), http)
    await client.send_all(f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    data = b""
    while piece := await client.receive_some(65536):
        data += piece
    top, _, body = data.partition(b"\r\n\r\n")
    return int(top.split()[1]), body


@pytest.mark.parametrize("path", ["/health", "/health/live"])
async def test_health_is_one_word(autojump_clock: Clock, nursery: trio.Nursery, path: str):
    assert await ask(nursery, FakeGateway(is_ready=False), f"GET {path}") == (200, b"healthy")


async def test_readiness_says_why_not(autojump_clock: Clock, nursery: trio.Nursery):
    assert await ask(nursery, FakeGateway(), "GET /health/ready") == (200, b"ready")
    status, why = await ask(nursery, FakeGateway(is_ready=False), "GET /health/ready")
    assert (status, why) == (503, b"the model `ember-py` is still loading on node-a")


async def test_members_and_flights_are_arrays(autojump_clock: Clock, nursery: trio.Nursery):
    _, members = await ask(nursery, FakeGateway(), "GET /members")
    assert [one["state"] for one in json.loads(members)] == ["alive", "alive", "suspect"]
    assert await ask(nursery, FakeGateway(), "GET /flights") == (200, b"[]")


async def test_records_are_listed_whole_or_by_namespace(autojump_clock: Clock, nursery: trio.Nursery):
    _, everything = await ask(nursery, FakeGateway(), "GET /records")
    assert [row["id"] for row in json.loads(everything)] == ["a", "k"]
    _, some = await ask(nursery, FakeGateway(), "GET /records?namespace=keys")
    assert json.loads(some) == [{"namespace": "keys", "id": "k"}]


async def test_verdicts_are_explained_of_one_member_or_of_all(autojump_clock: Clock, nursery: trio.Nursery):
    _, everything = await ask(nursery, FakeGateway(), "GET /why")
    assert [row["verdict"] for row in json.loads(everything)] == ["quarantined", "dead"]
    _, one = await ask(nursery, FakeGateway(), "GET /why?node=b")
    assert json.loads(one) == [{"node": "b", "verdict": "dead"}]


@pytest.mark.parametrize("id", ["00000000000000ab", "chatcmpl-00000000000000ab"])
async def test_a_request_is_explained_by_its_id(autojump_clock: Clock, nursery: trio.Nursery, id: str):
    status, body = await ask(nursery, FakeGateway(), f"GET /why?request={id}")
    assert (status, json.loads(body)) == (200, [{"request": "00000000000000ab", "chosen": "b"}])


async def test_an_unknown_request_is_404_and_no_id_is_400(autojump_clock: Clock, nursery: trio.Nursery):
    assert (await ask(nursery, FakeGateway(), "GET /why?request=00000000000000ac"))[0] == 404
    for id in ("ab", "zz000000000000ab", "%0a"):
        assert (await ask(nursery, FakeGateway(), f"GET /why?request={id}"))[0] == 400


async def test_drain_is_an_act(autojump_clock: Clock, nursery: trio.Nursery):
    gateway = FakeGateway()
    assert (await ask(nursery, gateway, "GET /drain"))[0] == 405
    assert not gateway.drained
    assert await ask(nursery, gateway, "POST /drain") == (202, b'{"draining": true}')
    assert gateway.drained


async def test_a_member_is_forgotten_by_its_id(autojump_clock: Clock, nursery: trio.Nursery):
    gateway = FakeGateway()
    assert (await ask(nursery, gateway, "GET /forget?node=00000000000000ab"))[0] == 405
    assert (await ask(nursery, gateway, "POST /forget?node=00000000000000ab"))[0] == 202
    status, body = await ask(nursery, gateway, "POST /forget")
    assert (status, "no other member" in json.loads(body)["error"]) == (404, True)
    assert gateway.forgotten == ["00000000000000ab", ""]


async def test_metadata_are_given_as_they_are_and_missed_when_they_are_not_here(
    autojump_clock: Clock, nursery: trio.Nursery
):
    gateway = FakeGateway()
    assert await ask(nursery, gateway, "GET /metadata?node=00000000000000ab") == (200, b"zone = 'b'\x00")
    assert await ask(nursery, gateway, "GET /metadata?node=00000000000000ac") == (200, b"")
    status, body = await ask(nursery, gateway, "GET /metadata")
    assert (status, "is known here" in json.loads(body)["error"]) == (404, True)


async def test_an_event_is_announced_and_read(autojump_clock: Clock, nursery: trio.Nursery):
    gateway = FakeGateway()
    post = "POST /events?name={} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}"

    async def tell(name: str, payload: str) -> int:
        client, end = trio.testing.memory_stream_pair()
        await nursery.start(serve_ops, BrokenListener([end]), gateway, Limits(), Log(io.StringIO()), None)
        await client.send_all(post.format(name, len(payload), payload).encode())
        return int((await client.receive_some(65536)).split()[1])

    assert await tell("deploy", "v2") == 202
    assert await tell("", "v2") == await tell("deploy", "x" * 1025) == 400
    status, body = await ask(nursery, gateway, "GET /events")
    assert (status, json.loads(body)) == (200, [{"name": "deploy", "payload": "v2"}])


async def test_the_view_is_a_snapshot_and_then_changes(autojump_clock: Clock, nursery: trio.Nursery):
    client, end = trio.testing.memory_stream_pair()
    await nursery.start(serve_ops, BrokenListener([end]), FakeGateway(), Limits(), Log(io.StringIO()), None)
    await client.send_all(b"GET /view HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = b""
    while data.count(b"data: ") < 2:
        data += await client.receive_some(65536)
    assert b"text/event-stream" in data
    told = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: ")]
    assert [(event["kind"], event["number"]) for event in told] == [("snapshot", 7), ("change", 8)]


async def test_who_waits_for_agreement_hears_who_does_not_agree(autojump_clock: Clock, nursery: trio.Nursery):
    status, body = await ask(nursery, FakeGateway(), "GET /converged")
    assert (status, json.loads(body)) == (200, {"converged": True, "waited_s": 3.0, "unlike": []})
    status, body = await ask(nursery, FakeGateway(), "GET /converged?timeout_s=1")
    assert (status, json.loads(body)["unlike"]) == (503, ["node-c"])
    for wrong in ("never", "-1", "nan", "1e9"):
        assert (await ask(nursery, FakeGateway(), f"GET /converged?timeout_s={wrong}"))[0] == 400


async def test_metrics_tell_of_the_node_and_of_both_ports(autojump_clock: Clock, nursery: trio.Nursery):
    status, text = await ask(nursery, FakeGateway(), "GET /metrics")
    lines = text.decode().splitlines()
    assert status == 200
    for line in (
        'inferno_swim_members{liveness="alive"} 2.0',
        "inferno_swim_lag_seconds 0.25",
        "inferno_swim_quarantined 1.0",
        'inferno_swim_digest{digest="ab12"} 1.0',
        'inferno_engines_state{engine="ember-py",state="ready"} 1.0',
        'inferno_engines_deaths_total{engine="ember-py"} 2.0',
        "inferno_forward_moves_total 3.0",
        "inferno_http_connections 7.0",
        'inferno_http_answers_total{route="/v1/models",status="200"} 5.0',
        "inferno_ops_connections 1.0",
    ):
        assert line in lines


def test_the_exposition_is_what_prometheus_reads():
    from prometheus_client.parser import text_string_to_metric_families

    odd = {"engines": {'a"b\n\\': {"state": "re\nady"}}, "x.y-z": {"flag": True, "none": None}}
    read = {family.name: family for family in text_string_to_metric_families(exposition(odd).decode())}
    [sample] = read["inferno_engines_state"].samples
    assert sample.labels == {"engine": 'a"b\n\\', "state": "re\nady"}
    assert read["inferno_x_y_z_flag"].samples[0].value == 1


def test_an_exposition_is_bounded():
    crowd = {"http": {"refused": {f"code{number}": 1 for number in range(20_000)}}}
    text = exposition(crowd).decode()
    assert text.count("inferno_http_refused_total{") == 10_000
    assert "inferno_metrics_dropped 10000.0" in text

"""The lines that contenders really write."""

import io

import pytest

from node.logs import Level, Log
from tests.bench.mesh.contenders import OURS, SERF
from tests.bench.mesh.views import Kind


def our_line(event: str, **fields: str) -> str:
    return Log(io.StringIO(), name="n1").line(Level.INFO, event, fields)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (our_line("member", node="n2", state="dead", was="suspect"), (Kind.DEAD, "n2")),
        (our_line("member", node="n2", state="alive", was="unknown"), (Kind.ALIVE, "n2")),
        (our_line("quarantined", node="n2", reason="link lost"), (Kind.QUARANTINED, "n2")),
        (our_line("quarantine_lifted", node="n2"), (Kind.LIFTED, "n2")),
        (our_line("joined", through="n2", members="3"), None),
    ],
)
def test_our_lines_are_read(line: str, said: object):
    assert OURS.said(line) == said


def test_our_node_says_when_it_is_ready():
    assert OURS.ready in our_line("serving", name="n1", bind="127.0.0.1:7001")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("    2026/11/21 14:50:36 [INFO] serf: EventMemberFailed: n2 127.0.0.1", (Kind.DEAD, "n2")),
        ("    2026/11/21 14:50:29 [INFO] serf: EventMemberJoin: n2 127.0.0.1", (Kind.ALIVE, "n2")),
        ("    2026/11/21 14:50:29 [INFO] serf: EventMemberLeave: n2 127.0.0.1", (Kind.LEFT, "n2")),
        ("    2026/11/21 14:50:29 [INFO] serf: EventMemberLeave (forced): n2 127.0.0.1", (Kind.LEFT, "n2")),
        (
            "    2026/11/21 14:50:32 [INFO] memberlist: Suspect n2 has failed, no acks received",
            (Kind.DOUBTED, "n2"),
        ),
        ("    2026/11/21 14:50:36 [INFO] agent: Received event: member-failed", None),
    ],
)
def test_serfs_lines_are_read(line: str, said: object):
    assert SERF.said(line) == said

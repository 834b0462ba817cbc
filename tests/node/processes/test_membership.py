"""Who is in the mesh, when real control processes die, stop, come back and move. No engines: nothing else runs."""

import shutil
import signal
import urllib.request
from pathlib import Path

import pytest

from node.cli.fleet import ANY_PORTS, Fleet, Member, wait_until
from node.cli.main import main

pytestmark = [pytest.mark.process, pytest.mark.slow]

NOTICED_S = 20.0
"""Noticing takes about a second; on a starved machine more."""


@pytest.fixture
def entries(fleet: Fleet) -> Fleet:
    """Four nodes without engines, each of which sees all."""
    fleet.start_all(["n1", "n2", "n3", "n4"], *ANY_PORTS, "--role", "entry")
    for member in fleet.members:
        wait_seen(member, {"n1", "n2", "n3", "n4"})
    return fleet


def rows(member: Member) -> dict[str, dict]:
    """The latest life of each name, as a node sees it."""
    found: dict[str, dict] = {}
    for row in member.ask("/members") or []:
        if row["name"] not in found or row["state"] == "alive":
            found[row["name"]] = row
    return found


def trusted(member: Member) -> set[str]:
    """Whom a node holds alive and would send requests to."""
    return {name for name, row in rows(member).items() if row["state"] == "alive" and not row["quarantined"]}


def wait_seen(member: Member, names: set[str]) -> None:
    wait_until(lambda: trusted(member) == names, NOTICED_S, f"`{member.name}` to trust {sorted(names)}")


def wait_state(member: Member, name: str, state: str) -> None:
    wait_until(
        lambda: rows(member)[name]["state"] == state, NOTICED_S, f"`{member.name}` to hold `{name}` {state}"
    )


def test_a_killed_node_is_dead_everywhere_and_nobody_else_is(entries: Fleet) -> None:
    entries["n3"].kill()
    for member in entries.running:
        wait_state(member, "n3", "dead")
        assert trusted(member) == {"n1", "n2", "n4"}


def test_a_stopped_node_is_dead_and_back_by_itself_and_costs_no_other_its_place(entries: Fleet) -> None:
    entries["n2"].send(signal.SIGSTOP)
    for name in ("n1", "n3", "n4"):
        wait_state(entries[name], "n2", "dead")
        assert trusted(entries[name]) == {"n1", "n3", "n4"}
    entries["n2"].send(signal.SIGCONT)
    for member in entries.members:
        wait_seen(member, {"n1", "n2", "n3", "n4"})
    assert {rows(entries["n1"])[name]["incarnation"] for name in ("n1", "n3", "n4")} == {0}
    assert rows(entries["n1"])["n2"]["incarnation"] > 0, "it refuted its death"


def test_a_restart_with_the_same_data_directory_is_the_next_life_of_the_same_node_elsewhere(
    fleet: Fleet, tmp_path: Path
) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    fleet.start_all(["n1", "n2"], *ANY_PORTS, "--role", "entry")
    fleet.start("n3", *ANY_PORTS, "--role", "entry", *data).wait_ready_file()
    one = fleet["n1"]
    wait_seen(one, {"n1", "n2", "n3"})
    before = rows(one)["n3"]
    fleet["n3"].kill()
    fleet.start("n3", *ANY_PORTS, "--role", "entry", *data).wait_ready_file()
    for member in (one, fleet["n2"]):
        wait_until(
            lambda m=member: rows(m)["n3"]["address"] == fleet["n3"].bind, NOTICED_S, "the new address"
        )
        after = rows(member)["n3"]
        assert (after["node"], after["generation"]) == (before["node"], before["generation"] + 1)
        assert after["address"] != before["address"] and [*names(member)].count("n3") == 1
        wait_seen(member, {"n1", "n2", "n3"})


def test_a_dead_member_is_forgotten_by_a_command(entries: Fleet) -> None:
    entries["n3"].kill()
    wait_state(entries["n1"], "n3", "dead")
    assert main(["forget", "n3", "--ops", entries["n1"].ops]) == 0
    for member in entries.running:
        wait_state(member, "n3", "left")


def test_an_event_is_heard_once_by_every_node(entries: Fleet) -> None:
    url = f"http://{entries['n1'].ops}/events?name=deploy"
    with urllib.request.urlopen(urllib.request.Request(url, b"v2", method="POST"), timeout=5.0) as answer:
        assert answer.status == 202
    for member in entries.members:
        wait_until(lambda m=member: m.ask("/events"), NOTICED_S, f"`{member.name}` to hear it")
        assert [(event["name"], event["payload"]) for event in member.ask("/events")] == [("deploy", "v2")]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_copy_whose_only_seed_is_its_original_ends_with_a_clear_error(
    fleet: Fleet, tmp_path: Path, sealed: bool
) -> None:
    key = ("--mesh-key-file", str(tmp_path / "mesh.key"))
    assert not sealed or main(["keys", *key]) == 0
    flags = (*ANY_PORTS, "--role", "entry", *(key if sealed else ()))
    original, copy = tmp_path / "original", tmp_path / "copy"
    fleet.start("n1", *flags, "--data-dir", str(original)).wait_ready_file()
    shutil.copytree(original, copy)
    fleet.start("n2", *flags, "--data-dir", str(copy))
    wait_until(lambda: len(fleet.running) == 1, NOTICED_S, "one of the two to end")
    (ended,) = (member for member in fleet.members if not member.is_running)
    assert ended.process.returncode != 0
    assert "the id of this node, is also used at" in ended.log.read_text()
    fleet.running[0].ask("/members")


def test_a_node_of_a_mesh_of_another_name_stays_out_and_both_say_so(fleet: Fleet) -> None:
    fleet.start("red", *ANY_PORTS, "--role", "entry", "--mesh-name", "red").wait_ready_file()
    fleet.start("blue", *ANY_PORTS, "--role", "entry", "--mesh-name", "blue").wait_ready_file()
    for member in fleet.members:
        wait_until(
            lambda m=member: "other_mesh" in m.log.read_text(), NOTICED_S, f"`{member.name}` to say so"
        )
        assert names(member) == [member.name]


def names(member: Member) -> list[str]:
    return [row["name"] for row in member.ask("/members")]


def test_what_a_node_publishes_is_held_by_all_and_read_again_at_sighup(fleet: Fleet, tmp_path: Path) -> None:
    labels = tmp_path / "labels.toml"
    labels.write_bytes(b"zone = 'a'\n" + bytes(range(256)) * 250)
    fleet.start_all(["n1", "n2", "n3"], *ANY_PORTS, "--role", "entry", "--metadata-file", str(labels))
    first = fleet["n1"]
    for member in fleet.members:
        wait_seen(member, {"n1", "n2", "n3"})
    node = rows(first)["n1"]["node"]
    for member in fleet.members:
        wait_until(
            lambda member=member: _metadata(member, node) == labels.read_bytes(), NOTICED_S, "the value"
        )
    assert rows(fleet["n2"])["n1"]["metadata"]["bytes"] == len(labels.read_bytes())
    labels.write_bytes(b"zone = 'b'\n")
    first.send(signal.SIGHUP)
    for member in fleet.members:
        wait_until(lambda member=member: _metadata(member, node) == b"zone = 'b'\n", NOTICED_S, "the change")
    labels.write_bytes(bytes(65_537))
    first.send(signal.SIGHUP)
    wait_until(lambda: "metadata_not_read" in first.log.read_text(), NOTICED_S, "the mistake to be told")
    assert _metadata(first, node) == b"zone = 'b'\n"


def _metadata(member: Member, node: str) -> bytes | None:
    url = f"http://{member.ops}/metadata?node={node}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except OSError:
        return None

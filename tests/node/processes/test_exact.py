"""The embedded model through real nodes: one seeded request, one text, however it is computed."""

from pathlib import Path

import pytest

from node.cli.fleet import ANY_PORTS, Fleet, Member, wait_until
from node.cli.streams import Crowd, Watched

pytestmark = [pytest.mark.process, pytest.mark.slow]

PROMPT = "# Lib/textwrap.py\n" + "".join(
    f"def function_{n}(value):\n    return value + {n}\n\n" for n in range(24)
)
"""Longer than one page of the cache, so that chunks, pages and decode all meet."""

TOKENS = 48


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    with Fleet(tmp_path_factory.mktemp("exact")) as fleet:
        fleet.start("coarse", *ANY_PORTS, "--threads", "1").wait_ready_file()
        fleet.start("fine", *ANY_PORTS, "--threads", "2", "--prefill-chunk-tokens", "23").wait_ready_file()
        fleet.start("entry", *ANY_PORTS, "--role", "entry").wait_ready_file()
        for member in fleet.members:
            wait_until(lambda m=member: knows_both(m), 60, "both models to be ready")
        yield fleet


def knows_both(member: Member) -> bool:
    rows = member.ask("/members") or []
    return {row["name"] for row in rows if row["models"]} == {"coarse", "fine"}


def body(seed: int) -> dict[str, object]:
    return {
        "model": "ember-py",
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "temperature": 0.8,
        "seed": seed,
        "ignore_eos": True,
        "stream": True,
    }


def ask(member: Member, seeds: list[int]) -> list[Watched]:
    crowd = Crowd([Watched(n, member.http, body(seed)) for n, seed in enumerate(seeds)])
    crowd.join()
    assert [stream.error for stream in crowd.streams] == [""] * len(seeds)
    return crowd.streams


def test_alone_in_company_in_any_chunks_on_any_threads_and_through_any_entry(fleet: Fleet) -> None:
    (alone,) = ask(fleet["coarse"], [5])
    (elsewhere,) = ask(fleet["fine"], [5])
    (through,) = ask(fleet["entry"], [5])
    company = ask(fleet["coarse"], [5, *range(100, 115)])
    assert len(alone.text) > TOKENS
    assert elsewhere.text == alone.text, "other chunks, other threads, another node"
    assert through.text == alone.text, "through an entry without a model"
    assert company[0].text == alone.text, "in a batch of sixteen"
    assert len({stream.text for stream in company}) == 16, "different seeds give different texts"
    assert {worker for stream in company for worker in stream.workers} == {"coarse", "fine"}


def test_the_text_goes_on_equal_when_its_worker_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    (whole,) = ask(fleet["coarse"], [77])
    with Fleet(tmp_path) as second:
        second.members.append(fleet["coarse"])
        victim = second.start("victim", *ANY_PORTS)
        victim.wait_ready_file()
        entry = second.start("second-entry", *ANY_PORTS, "--role", "entry", "--prefix-affinity", "off")
        entry.wait_ready_file()
        wait_until(lambda: "victim" in ready_on(entry), 60, "the victim's model to be ready")
        crowd = Crowd([Watched(n, entry.http, body(77)) for n in range(8)])
        wait_until(lambda: serving(entry, "victim"), 30, "the victim to serve")
        victim.kill()
        crowd.join()
        second.members.remove(fleet["coarse"])
    assert {stream.text for stream in crowd.streams} == {whole.text}
    assert any(stream.moves for stream in crowd.streams)


def ready_on(member: Member) -> set[str]:
    return {row["name"] for row in member.ask("/members") or [] if row["models"]}


def serving(member: Member, worker: str) -> bool:
    return any(flight["worker"] == worker and flight["delivered"] for flight in member.ask("/flights") or [])

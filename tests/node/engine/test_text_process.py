"""The text worker itself: a real child, real runaway templates, real kills."""

import contextlib
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mesh import grammar
from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Frame, Kind, Prepared, Reject
from node.engine.errands import STILLBORN_MAX, Errand, Errands
from node.engine.process import COUNTER
from node.engine.text import prepare
from node.engine.text_process import TextProcess, command
from node.engine.tokenizer import ModelText
from tests.node.engine import runaway
from tests.node.engine.test_process import Child

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(not runaway.MODEL.exists(), reason="ember-py has not been exported"),
]

WAIT_S = 60


class Desk:
    """Errands and the process that does them."""

    def __init__(self, command) -> None:
        self.errands, self.process = Errands(), TextProcess(command)
        self.answers: dict[int, Prepared | Reject] = {}

    def ask(self, number: int, attempt: Attempt) -> None:
        self.errands.add(Errand(Frame(Kind.OPEN, number, 1, attempt.frame().body), "messages"))

    def wait(self, *numbers: int) -> list[Prepared | Reject]:
        """Carry until these have been answered."""
        until = time.monotonic() + WAIT_S
        while not set(numbers) <= set(self.answers):
            assert time.monotonic() < until
            self.answers |= dict(self.process.turn(time.monotonic(), self.errands))
            poll = select.poll()
            self.process.watch(poll)
            poll.poll(50)
        return [self.answers[number] for number in numbers]

    @property
    def pid(self) -> int:
        """The worker's: our child, so that its number cannot have passed to another."""
        return self.process._worker.process.pid


def said(text: str) -> Attempt:
    return Attempt("m", (Segment("text", text),), Parameters(bad_words=("foo",)), 1)


SPIN = Attempt("m", (Segment("messages", runaway.SPIN),), Parameters(), 1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(command(str(runaway.write(tmp_path))))
    yield desk
    desk.process.close()


def test_a_runaway_template_is_ended_and_the_other_prompts_are_not(desk: Desk):
    expected = prepare(ModelText.load(runaway.MODEL), said("import os\n"))
    for number, attempt in enumerate((said("import os\n"), SPIN, said("import os\n")), 1):
        desk.ask(number, attempt)
    first, spun, last = desk.wait(1, 2, 3)
    assert first == last == expected
    assert expected.bad_words
    assert (spun.code, spun.retryable, spun.param) == ("invalid_request", False, "messages")
    assert "took longer than 1002 ms" in spun.message
    assert (desk.errands.deaths, desk.errands.timeouts) == (1, 1)


def test_a_killed_worker_is_replaced_and_nobody_notices(desk: Desk):
    desk.ask(1, said("import os\n"))
    (first,) = desk.wait(1)
    os.kill(desk.pid, signal.SIGKILL)
    desk.ask(2, said("import os\n"))
    assert desk.wait(2) == [first]
    assert desk.errands.deaths == 1


def test_what_a_client_did_wrong_is_said_and_ends_nothing(desk: Desk):
    wrong = Attempt("m", (Segment("messages", json.dumps({"messages": []})),), Parameters(), 1)
    desk.ask(1, wrong)
    desk.ask(2, said("x" * 900_000))
    refused, long = desk.wait(1, 2)
    assert (refused.param, desk.errands.deaths) == ("messages", 0)
    assert isinstance(long, Prepared | Reject)


def test_a_worker_that_cannot_start_is_said_to_be_lost():
    desk = Desk(lambda fd: [sys.executable, "-c", "raise SystemExit(7)"])
    desk.ask(1, said("hi"))
    (lost,) = desk.wait(1)
    assert (lost.code, lost.retryable) == ("text_worker_lost", True)
    assert "status 7" in lost.message
    assert desk.errands.deaths == STILLBORN_MAX
    desk.process.close()


def test_it_loads_no_torch():
    code = "import sys, node.engine.text_worker; print(*({'torch', 'trio'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runaway.MODEL.parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_a_runaway_template_stops_no_stream(tmp_path: Path):
    child = Child(str(runaway.write(tmp_path)), "--kv-bytes", str(64 << 20), "--threads", "1")
    with contextlib.closing(child):
        child.next(Kind.READY)
        parameters = Parameters(max_tokens=1500, ignore_eos=True, temperature=0.0)
        child.send(Attempt("m", (Segment("text", "import os\n"),), parameters, 1).frame(1, 1))
        child.next(Kind.TOKENS)
        child.send(SPIN.frame(2, 1), said("def f(").frame(3, 1))
        meanwhile, frame = 0, child.next(Kind.TOKENS, Kind.REJECT)
        while frame.kind != Kind.REJECT:
            meanwhile += frame.flight == 1
            frame = child.next(Kind.TOKENS, Kind.REJECT)
        assert (frame.flight, Reject.read(frame).code) == (2, "invalid_request")
        assert meanwhile > 20
        assert child.text(3)


def test_an_engine_that_waits_for_its_text_worker_alone_is_not_frozen(tmp_path: Path):
    with tempfile.TemporaryFile() as page:
        page.truncate(COUNTER.size)
        fd = page.fileno()
        child = Child(str(runaway.write(tmp_path)), "--progress-fd", str(fd), "--threads", "1", keep=(fd,))
        with contextlib.closing(child), mmap.mmap(fd, COUNTER.size) as counter:
            child.next(Kind.READY)
            before = COUNTER.unpack_from(counter)[0]
            child.send(SPIN.frame(1, 1))
            assert Reject.read(child.next(Kind.REJECT)).code == "invalid_request"
            assert COUNTER.unpack_from(counter)[0] >= before + 4


def test_a_runaway_grammar_is_ended(desk: Desk):
    patterns = [{"type": "string", "pattern": f"^(a|b)*a(a|b){{{n}}}$"} for n in range(1, 30)]
    spin = Attempt(
        "m", (Segment("text", "hi"),), Parameters(), 1, grammar=grammar.write("json", {"allOf": patterns})
    )
    good = attrs.evolve(said("hi"), grammar=grammar.write("json", {"type": "object"}))
    wrong = attrs.evolve(said("hi"), grammar=grammar.write("regex", "("))
    for number, attempt in enumerate((spin, good, wrong), 1):
        desk.ask(number, attempt)
    spun, prepared, refused = desk.wait(1, 2, 3)
    assert "the grammar took longer than 250 ms" in spun.message
    assert (spun.param, spun.retryable) == ("response_format", False)
    assert isinstance(prepared, Prepared)
    assert "unclosed group" in refused.message
    assert desk.errands.timeouts == 1


def test_the_real_model_obeys_a_schema(tmp_path: Path):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 99}}}
    schema |= {"required": ["n"], "additionalProperties": False}
    child = Child(str(runaway.write(tmp_path)), "--threads", "1")
    with contextlib.closing(child):
        child.next(Kind.READY)
        for flight in range(1, 6):
            parameters = Parameters(max_tokens=100, temperature=1.5)
            source = grammar.write("json", schema)
            attempt = Attempt("m", (Segment("text", "n = "),), parameters, flight, grammar=source)
            child.send(attempt.frame(flight, 1))
            text = child.text(flight)
            assert 1 <= json.loads(text)["n"] <= 99

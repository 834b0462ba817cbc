"""The engine process itself, with the toy: a real child over a real socketpair."""

import contextlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Accept, Cancel, Finish, Frame, Hello, Kind, Ping, Ready, Reject, Step, Tokens
from mesh.link import PROTOCOL, Link
from node.engine.process import COUNTER, EXIT_MODEL, OOM_SCORE, progress_counter
from node.engine.toy import DIGEST, expected_ids, expected_text

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
WAIT_S = 30


class Child:
    """An engine process and our end of its link."""

    def __init__(self, directory: str = "toy", *arguments: str, keep: tuple[int, ...] = ()) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(WAIT_S)
        command = [sys.executable, "-m", "node.engine", "--fd", str(theirs.fileno()), "--model", "toy"]
        self.process = subprocess.Popen(
            [*command, "--directory", directory, "--name", "toy-0", *arguments],
            pass_fds=(theirs.fileno(), *keep),
            cwd=ROOT,
        )
        theirs.close()
        self.link = Link(Hello(PROTOCOL, "control"))
        self.inbox: list[Frame] = []
        self.send()

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.link.send(frame)
        while self.link.outbox_bytes:
            self.socket.sendall(self.link.output())

    def next(self, *kinds: Kind) -> Frame:
        """Wait for the next frame of these kinds; others are dropped."""
        while True:
            while self.inbox:
                frame = self.inbox.pop(0)
                if frame.kind in kinds:
                    return frame
            received = self.socket.recv(65536)
            assert received, "the engine has closed its link"
            self.inbox += self.link.input(received)

    def text(self, flight: int) -> str:
        """Read one flight to its end."""
        text = ""
        while True:
            frame = self.next(Kind.TOKENS, Kind.FINISH, Kind.REJECT)
            if frame.flight == flight:
                text += (Tokens if frame.kind == Kind.TOKENS else Finish).read(frame).text
                if frame.kind == Kind.FINISH:
                    return text

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait(WAIT_S)


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child("toy", "--worker", "here", "--toy-step-us", "1000")
    yield child
    child.close()


def ask(prompt: str, seed: int, count: int, **more) -> Attempt:
    return Attempt("toy", (Segment("text", prompt),), Parameters(max_tokens=count), seed, **more)


def test_it_greets_loads_and_streams(child: Child):
    hello, ready = Hello.read(child.next(Kind.HELLO)), Ready.read(child.next(Kind.READY))
    assert (hello.node, ready.model, ready.model_digest) == ("toy-0", "toy", DIGEST)
    assert [stage for stage, _ in ready.stages_ms] == ["load"]
    child.send(ask("hi", 5, 50).frame(7, 1))
    assert Accept.read(child.next(Kind.ACCEPT)).worker == "here"
    assert Step.read(child.next(Kind.STEP)).tickets == (7,)
    assert child.text(7) == expected_text("hi", 5, 50)


def test_a_cancelled_stream_ends_and_others_go_on(child: Child):
    child.send(ask("one", 1, 5000).frame(1, 1), ask("two", 2, 100).frame(2, 1))
    while child.next(Kind.TOKENS).flight != 1:
        pass
    child.send(Cancel().frame(1, 1))
    text = ""
    after_cancel = []
    while True:
        frame = child.next(Kind.TOKENS, Kind.FINISH)
        if frame.flight == 1:
            after_cancel.append(frame)
        elif frame.kind == Kind.FINISH:
            break
    assert len(after_cancel) < 50
    child.send(ask("three", 3, 5).frame(3, 1))
    text = child.text(3)
    assert text == expected_text("three", 3, 5)


def test_a_killed_engines_stream_goes_on_in_another(child: Child):
    child.send(ask("move me", 9, 200).frame(1, 1))
    text, ids = "", []
    while len(ids) < 37:
        tokens = Tokens.read(child.next(Kind.TOKENS))
        text, ids = text + tokens.text, [*ids, *tokens.ids]
    child.process.send_signal(signal.SIGKILL)
    with contextlib.closing(Child()) as other:
        other.send(ask("move me", 9, 200, emitted=tuple(ids)).frame(1, 2))
        assert tuple(ids) == expected_ids(b"move me", 9, len(ids))
        assert text + other.text(1) == expected_text("move me", 9, 200)


def test_it_ends_with_its_parent_even_in_the_middle_of_a_step():
    child = Child("toy", "--toy-step-us", "60000000")
    child.send(ask("slow", 1, 5).frame(1, 1))
    child.next(Kind.STEP)
    child.socket.close()
    assert child.process.wait(WAIT_S) == 0


PARENT = """
import socket, subprocess, sys
ours, theirs = socket.socketpair()
fd = str(theirs.fileno())
command = [sys.executable, "-m", "node.engine", "--fd", fd, "--model", "toy", "--directory", "toy", "--deathsig"]
child = subprocess.Popen(command, pass_fds=(theirs.fileno(),), start_new_session=True)
theirs.close()
while b"toy-model" not in ours.recv(65536):
    pass
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_frozen_engine_does_not_outlive_its_killed_parent():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, text=True, **pipes) as parent:
        engine = os.pidfd_open(int(parent.stdout.readline()))
        signal.pidfd_send_signal(engine, signal.SIGSTOP)
        parent.kill()
        ended = select.poll()
        ended.register(engine, select.POLLIN)
        outlived = not ended.poll(1000 * WAIT_S)
        if outlived:
            signal.pidfd_send_signal(engine, signal.SIGKILL)
        os.close(engine)
    assert not outlived


def test_ctrl_c_is_left_to_the_parent_and_sigterm_ends_it(child: Child):
    child.next(Kind.READY)
    child.process.send_signal(signal.SIGINT)
    child.send(Ping(5).frame())
    child.next(Kind.PONG)
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait(WAIT_S) == 0


def test_it_runs_below_its_parents_priority(child: Child):
    child.next(Kind.READY)
    assert os.getpriority(os.PRIO_PROCESS, child.process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert int(Path(f"/proc/{child.process.pid}/oom_score_adj").read_text()) == OOM_SCORE


@pytest.mark.parametrize("make", [lambda path: None, lambda path: (path / "config.json").write_text("{}")])
def test_a_directory_that_is_no_model_is_an_error_in_words(tmp_path: Path, make):
    make(tmp_path)
    with contextlib.closing(Child(str(tmp_path))) as child:
        assert child.process.wait(WAIT_S) == EXIT_MODEL
        reject = Reject.read(child.next(Kind.REJECT))
    assert (reject.code, reject.retryable) == ("model_error", False)
    assert "hint: " in reject.message


def test_progress_is_counted_on_a_shared_page():
    with tempfile.TemporaryFile() as file:
        file.truncate(COUNTER.size)
        number = str(file.fileno())
        with contextlib.closing(Child("toy", "--progress-fd", number, keep=(file.fileno(),))) as child:
            child.send(ask("hi", 5, 10).frame(1, 1))
            child.text(1)
        with mmap.mmap(file.fileno(), COUNTER.size) as page:
            assert COUNTER.unpack_from(page)[0] == 10


def test_without_a_page_nothing_is_counted():
    assert progress_counter(-1)(3) is None


def test_the_toy_loads_nothing_heavy():
    code = "import sys, node.engine.process; print(*({'torch', 'trio', 'tokenizers', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

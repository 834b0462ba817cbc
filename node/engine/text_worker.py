"""The text worker: `python -m node.engine.text_worker --fd N --directory D`. No torch, and nothing to lose.

Beside each engine one such process renders chat templates, tokenises prompts and compiles grammars: foreign
programs and foreign patterns, run on what clients sent. It serves one errand (`node.engine.errands`) after the
other. A timer of the kernel's counts the processor time of each and ends the process when it has had enough:
the default action of SIGPROF, which no template, no lock and no extension module can refuse. A second timer
does the same in real time, for what waits without computing. Its memory is limited beyond what it has loaded.

It ends when the engine closes its end of the socketpair; the engine starts the next one.
"""

import argparse
import contextlib
import functools
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from mesh.attempt import Attempt
from mesh.errors import DecodeError
from mesh.frames import Frame, Hello, Kind, Progress, Reject
from mesh.link import PROTOCOL, Link
from node.engine.channel import Channel
from node.engine.door import MESSAGE_CHARS_MAX
from node.engine.errands import GRAMMAR_MS_MAX, STAGES, prompt_ms_max
from node.engine.grammar import Compiler
from node.engine.text import Text, TextError, prepare
from node.engine.tokenizer import ModelText

WALL = 8
"""An errand may last so many times longer on the clock than it may compute: neighbours are busy, disks are slow."""

MEMORY_BYTES_MAX = 1 << 30
"""Address space that errands may take beside what is loaded."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the engine has gone."""
    parser = argparse.ArgumentParser("python -m node.engine.text_worker", description="An engine starts it.")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a stream socketpair")
    parser.add_argument("--directory", required=True, help="folder of a Hugging Face model")
    options = parser.parse_args(arguments)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGPROF, signal.SIGALRM))
    text = ModelText.load(options.directory)
    clerk = Clerk(text, functools.cache(text.compiler))
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES_MAX,) * 2)
    channel = Channel(socket.socket(fileno=options.fd), Link(Hello(PROTOCOL, "text")))
    with contextlib.suppress(ConnectionError):
        channel.send([])
        while True:
            for frame in channel.receive(wait=True):
                for answer in clerk.serve(frame):
                    channel.send([answer])
    return 0


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@contextlib.contextmanager
def within(ms: int) -> Iterator[None]:
    """Have the kernel end this process if the body takes longer."""
    signal.setitimer(signal.ITIMER_PROF, ms / 1000)
    signal.setitimer(signal.ITIMER_REAL, WALL * ms / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


@attrs.frozen
class Clerk:
    """Serves errands over one model's text."""

    text: Text
    compiler: Callable[[], Compiler]

    def serve(self, frame: Frame) -> Iterator[Frame]:
        """Yield the frames that answer one; each must have left before the next is asked for."""
        if frame.kind != Kind.OPEN:
            return
        yield self._stage(frame, "prompt")
        try:
            with within(prompt_ms_max(len(frame.body))):
                attempt = Attempt.read(frame)
                prepared = prepare(self.text, attempt)
            if attempt.grammar:
                compiler = self.compiler()
                yield self._stage(frame, "grammar")
                with within(GRAMMAR_MS_MAX):
                    compiler.begin(attempt.grammar)
            yield prepared.frame(frame.flight, frame.attempt)
        except TextError as error:
            yield _refusal(error).frame(frame.flight, frame.attempt)
        except DecodeError as error:
            yield Reject("malformed", str(error)[:1000], False).frame(frame.flight, frame.attempt)

    def _stage(self, frame: Frame, name: str) -> Frame:
        return Progress(STAGES.index(name), len(STAGES)).frame(frame.flight, frame.attempt)


def _refusal(error: TextError) -> Reject:
    message = error.message[:MESSAGE_CHARS_MAX].encode(errors="replace").decode()
    return Reject(error.code, message, retryable=False, param=error.param)


if __name__ == "__main__":
    raise SystemExit(main())

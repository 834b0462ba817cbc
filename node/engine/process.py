"""The engine process: `python -m node.engine --fd N --model NAME --directory DIR`.

Its parent, the control process, hands it one end of a socketpair and speaks the frames of
`mesh.frames` over it: HELLO at once, READY when the model is loaded and warm, then the verbs of
`node.engine.core`. Torch is imported here and nowhere near the control process.

It ends when its parent does: the kernel closes the parent's end of the socketpair, and a thread
waits for just that, also while a step runs. With `--deathsig` the kernel also kills it with the
thread that started it: only for parents that start it from a thread as long-lived as they are
(trio starts processes from a thread that ends after ten idle seconds). Ctrl-C in the terminal
goes to the whole group and is left to the parent; SIGTERM ends it.

    exit 0  the parent has gone, or SIGTERM
    exit 2  wrong arguments
    exit 3  the model cannot be served; a REJECT on flight 0 has said why
    else    a step failed: our bug or the device's, with a trace on stderr
"""

import argparse
import ctypes
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from mesh.frames import Hello, Reject
from mesh.link import PROTOCOL, Link
from node.engine.channel import Channel
from node.engine.config_hf import ModelError, read_config, shape_of
from node.engine.constraint import Constraint, Grammars
from node.engine.core import EngineCore, Options, describe
from node.engine.plan import Plan, Sampled
from node.engine.scheduler import Limits
from node.engine.shell import Shell
from node.engine.text import Text
from node.engine.text_process import TextProcess, command
from node.engine.toy import END, VOCABULARY, ToyCost, ToyRunner, ToyText

NICE = 5
"""Below the control process, which must answer probes while a step burns every core."""

OOM_SCORE = 500
"""Of 1,000: short of memory, the kernel takes an engine, which is mended, before a member of the mesh."""

EXIT_MODEL = 3
PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine process until its parent has gone; return the exit status."""
    options = parser().parse_args(arguments)
    prepare(options)
    channel = Channel(socket.socket(fileno=options.fd), Link(Hello(PROTOCOL, options.name or options.model)))
    threading.Thread(target=_die_with, args=(channel.socket.fileno(),), daemon=True).start()
    try:
        channel.send([])
        return _run(channel, options)
    except ConnectionError:
        return 0


def _run(channel: Channel, options: argparse.Namespace) -> int:
    clock = Stopwatch()
    texts = None if options.directory == "toy" else TextProcess(command(options.directory))
    try:
        runner, text, grammars = load(options, clock)
    except ModelError as error:
        reject = Reject("model_error", str(error)[:1000], retryable=False)
        channel.send([reject.frame()])
        return EXIT_MODEL
    ready = describe(options.model, runner, tuple(clock.stages), text.digest)
    draft_rows = options.draft_rows if getattr(runner, "guesses", False) and runner.exact else 0
    embeds = options.directory == "toy" or getattr(runner, "embeds", False)
    scores = options.directory == "toy" or getattr(runner, "guesses", False)
    limits = Limits(options.step_tokens, options.running_max, options.waiting_max, draft_rows)
    core = EngineCore(
        Options(
            runner.block_tokens,
            limits,
            options.step_ms / 1000,
            options.worker,
            texts is not None,
            scores,
            embeds,
        ),
        text,
        ready,
        grammars,
    )
    channel.send([ready.frame()])
    Shell(channel, core, runner, texts, progress_counter(options.progress_fd)).serve()
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the process's arguments."""
    parser = argparse.ArgumentParser("python -m node.engine", description="One engine; a node starts it.")
    add = parser.add_argument
    add("--fd", type=int, required=True, help="inherited end of a stream socketpair")
    add("--model", required=True, help="the model's name, as requests spell it")
    add("--directory", required=True, help="folder of a Hugging Face model, or `toy`")
    add("--name", default="", help="the replica's name, as HELLO gives it (default: the model's)")
    add("--worker", default="", help="label of the node, as ACCEPT gives it")
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add("--dtype", default="auto", choices=("auto", "bf16", "int8", "fp32"))
    add("--kv-dtype", default="auto", choices=("auto", "bf16", "int8", "fp8"))
    add("--cache-dir", type=Path, default=None, help="folder for what makes the next start faster")
    add("--threads", type=int, default=0, help="threads of a step; 0 is every core that the process may use")
    add("--kv-bytes", type=int, default=0, help="memory for keys and values; 0 lets the runner choose")
    add("--block-tokens", type=int, default=0, help="tokens per KV block; 0 lets the runner choose")
    add("--step-tokens", type=int, default=Limits().step_tokens, help="budget of a step, and largest chunk")
    add("--step-ms", type=int, default=250, help="aim for steps no longer than this")
    add("--running-max", type=int, default=Limits().running_max, help="most sequences computed at once")
    add("--waiting-max", type=int, default=Limits().waiting_max, help="most sequences that wait")
    add(
        "--draft-rows", type=int, default=0, help="rows of a step up to which sequences guess ahead; 0 is off"
    )
    add("--progress-fd", type=int, default=-1, help="inherited file of 8 bytes: a counter, bumped per layer")
    add("--deathsig", action="store_true", help="be killed with the thread that started this process")
    add("--toy-step-us", type=float, default=4000, help="the toy's cost of a step")
    add("--toy-prefill-us", type=float, default=50, help="the toy's cost of a token of prefill")
    add("--toy-decode-us", type=float, default=200, help="the toy's cost of a token of decode")
    add("--toy-end-one-in", type=int, default=0, help="the toy ends once in so many tokens; 0 never")
    return parser


def prepare(options: argparse.Namespace) -> None:
    """Set what must be set before torch is imported: threads, priority, signals."""
    os.putenv("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: they would starve the control process
    os.putenv("OMP_NUM_THREADS", str(options.threads or len(os.sched_getaffinity(0))))
    os.nice(NICE)
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if options.deathsig:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with(fd: int) -> None:
    """Wait until the other end is closed, then end the process, whatever it is doing."""
    hangup = select.poll()
    hangup.register(fd, 0)
    hangup.poll()
    os._exit(0)


@attrs.define
class Stopwatch:
    """Measures the stages of start-up."""

    stages: list[tuple[str, int]] = attrs.Factory(list)
    """Name and milliseconds of each stage so far."""
    _last: float = attrs.Factory(time.monotonic)

    def lap(self, stage: str) -> None:
        """Note that `stage` has ended."""
        now = time.monotonic()
        self.stages.append((stage, round(1000 * (now - self._last))))
        self._last = now


def load(options: argparse.Namespace, clock: Stopwatch) -> tuple[Any, Text, Grammars]:
    """Return the runner, the text and the grammars that the arguments name. Raises ModelError."""
    if options.directory == "toy":
        return _toy(options, clock), ToyText(), ToyGrammars()
    shape = shape_of(read_config(Path(options.directory)))
    from node.engine.tokenizer import ModelText

    text = ModelText.load(options.directory)
    grammars = text.compiler(shape.vocabulary)
    clock.lap("tokenizer")
    from node.engine.open_runner import open_runner

    clock.lap("import")
    runner, choice = open_runner(
        options.directory,
        options.device,
        options.dtype,
        threads=options.threads or None,
        block_tokens=options.block_tokens or None,
        kv_bytes=options.kv_bytes or None,
        step_tokens=options.step_tokens,
        progress=progress_counter(options.progress_fd),
        keep=options.cache_dir,
        kv_dtype=options.kv_dtype,
    )
    if choice.objection and any(Path(path).exists() for path in GPU_FILES):
        sys.stderr.write(f"engine of `{options.model}`: computes on the CPU: {choice.objection}\n")
    clock.lap("load")
    return runner, text, grammars


@attrs.define
class ToyGrammars:
    """Grammars over the toy's words; the library is loaded when the first is asked for."""

    _compiler: Grammars | None = None

    def begin(self, source: bytes, emitted: Sequence[int]) -> Constraint:
        """Return a grammar's state after the emitted ids. Raises TextError, or Strayed."""
        if self._compiler is None:
            from node.engine.grammar import Compiler, Vocabulary

            words = [ToyText().piece(id) for id in range(VOCABULARY)]
            self._compiler = Compiler(Vocabulary(words, (END,), (END,)), VOCABULARY, (END,))
        return self._compiler.begin(source, emitted)


GPU_FILES = ("/dev/nvidiactl", "/dev/kfd")
"""There is a GPU if one of them exists: then it is said why it is not used."""


def _toy(options: argparse.Namespace, clock: Stopwatch) -> "PacedToy":
    costs = (options.toy_step_us, options.toy_prefill_us, options.toy_decode_us)
    toy = ToyRunner(cost=ToyCost(*(cost / 1e6 for cost in costs)), end_one_in=options.toy_end_one_in)
    if options.block_tokens:
        toy.block_tokens = options.block_tokens
    if options.kv_bytes:
        toy.blocks = max(1, options.kv_bytes // (toy.block_tokens * TOY_TOKEN_BYTES))
    clock.lap("load")
    return PacedToy(toy, progress_counter(options.progress_fd))


TOY_TOKEN_BYTES = 1024
"""What a token of the toy's is said to take, so that `--kv-bytes` means something."""


@attrs.define
class PacedToy:
    """A toy that takes the time which its steps cost."""

    toy: ToyRunner
    progress: Callable[..., None]
    _due: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.toy, name)

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        """Compute one step, and return when a device would have."""
        self._due = max(self._due, time.monotonic()) + self.toy.step_cost_s(plan)
        sampled = self.toy.run(plan)
        self.progress()
        _NEVER.wait(max(0.0, self._due - time.monotonic()))
        return sampled


_NEVER = threading.Event()


def progress_counter(fd: int) -> Callable[..., None]:
    """Return what bumps the 64-bit counter in the inherited file; nothing is bumped without one."""
    if fd < 0:
        return lambda *_: None
    page = mmap.mmap(fd, COUNTER.size)

    def bump(*_: object) -> None:
        COUNTER.pack_into(page, 0, (COUNTER.unpack_from(page, 0)[0] + 1) % 2**64)

    return bump


COUNTER = struct.Struct("<Q")

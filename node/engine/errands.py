"""What a text worker has been asked and has not answered: a pure machine beside the engine core.

Theory of operation. Templates, tokenisers and grammars are foreign code; they run in a process of their own
that serves one errand after the other, in order, and writes each answer before it begins the next. The kernel
ends that process when one errand takes longer than it may. So when it dies, the first errand that is not
answered is the one it was at; all others are innocent and are given to its successor.

    died by its time limit      the first errand is refused for good
    died otherwise              the first errand is tried once more, then refused for good
    died before it had greeted  nobody is to blame; after `STILLBORN_MAX` in a row, all are told to go elsewhere

Invariant: each errand is answered once, or forgotten.
"""

from collections import deque

import attrs

from mesh.errors import DecodeError
from mesh.frames import Frame, Kind, Prepared, Progress, Reject

WINDOW_BYTES = 8 * 2**20
"""Most bytes of errands that one worker holds, unless it holds a single larger one."""

WINDOW = 32
"""Most errands that one worker holds; the engine looks for answers between steps."""

TRIES_MAX = 2
"""Deaths that were not by the time limit which one errand may have seen as the first."""

STILLBORN_MAX = 3
"""Workers in a row that died before they had loaded."""

STAGES = ("prompt", "grammar")
"""What a worker does for an errand, in order; PROGRESS says which it begins, by its index."""

PROMPT_MS_MAX = 1000
"""Longest time for a chat template and the tokeniser, beside `PROMPT_MS_PER_MIB`; processor time of the worker."""

PROMPT_MS_PER_MIB = 2000
"""... and for each MiB of prompt; tokenisers take some 600 ms on an idle core."""

GRAMMAR_MS_MAX = 250
"""Longest time to compile a grammar; processor time of the worker. The engine compiles it once more: it is stopped
for no longer than a step may last."""


@attrs.frozen
class Errand:
    """An OPEN that a worker shall prepare; the frame's flight is its number."""

    frame: Frame
    param: str = "prompt"
    """The request's field that the prompt came from."""
    stage: int = 0
    tries: int = 0

    @property
    def number(self) -> int:
        """Its number, unique in the engine's life."""
        return self.frame.flight

    @property
    def prompt_ms_max(self) -> int:
        """How long its prompt may take."""
        return prompt_ms_max(len(self.frame.body))


Answer = tuple[int, Prepared | Reject]
"""An errand's number, and what has come of it."""


def prompt_ms_max(size: int) -> int:
    """Return how long a prompt may take whose OPEN has `size` bytes."""
    return PROMPT_MS_MAX + PROMPT_MS_PER_MIB * size // 2**20


@attrs.define
class Errands:
    """The errands of one engine."""

    deaths: int = attrs.field(init=False, default=0)
    """Workers that have died so far."""
    timeouts: int = attrs.field(init=False, default=0)
    """... and those of them that the time limit ended."""
    malformed: int = attrs.field(init=False, default=0)
    """Frames of workers that meant nothing."""
    stillborn: int = attrs.field(init=False, default=0)
    """Workers that died before they had greeted, in a row."""
    _waiting: deque[Errand] = attrs.field(init=False, factory=deque)
    _out: dict[int, Errand] = attrs.field(init=False, factory=dict)
    """Given to the present worker, in order."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._out)

    def add(self, errand: Errand) -> None:
        """Queue an errand."""
        self._waiting.append(errand)

    def forget(self, number: int) -> None:
        """Drop an errand that nobody waits for. One that the worker holds is still done, for the order's sake."""
        self._waiting = deque(errand for errand in self._waiting if errand.number != number)

    def take(self) -> list[Frame]:
        """Return what the worker shall be sent now."""
        frames = []
        size = sum(len(errand.frame.body) for errand in self._out.values())
        while self._waiting and len(self._out) < WINDOW:
            size += len(self._waiting[0].frame.body)
            if self._out and size > WINDOW_BYTES:
                break
            errand = self._waiting.popleft()
            self._out[errand.number] = errand
            frames.append(errand.frame)
        return frames

    def heard(self, frame: Frame) -> list[Answer]:
        """Take a worker's frame; return the answer if it is one."""
        if frame.kind == Kind.HELLO:
            self.stillborn = 0
            return []
        try:
            return self._heard(frame)
        except DecodeError:
            self.malformed += 1
            lost = self._out.pop(frame.flight, None)
            return [] if lost is None else [(lost.number, _lost("answered nonsense"))]

    def _heard(self, frame: Frame) -> list[Answer]:
        errand = self._out.get(frame.flight)
        if errand is None:
            raise DecodeError(f"an answer to errand {frame.flight}, which is not out")
        match frame.kind:
            case Kind.PROGRESS:
                self._out[frame.flight] = attrs.evolve(errand, stage=Progress.read(frame).done)
                return []
            case Kind.PREPARED:
                answer: Prepared | Reject = Prepared.read(frame)
            case Kind.REJECT:
                answer = Reject.read(frame)
            case _:
                raise DecodeError(f"a frame of type {frame.kind} is not a text worker's to send")
        del self._out[frame.flight]
        return [(frame.flight, answer)]

    def died(self, why: str, *, timed_out: bool, greeted: bool) -> list[Answer]:
        """The worker is gone; return the answers that this settles. The rest waits for the next one."""
        self.deaths += 1
        out, self._out = deque(self._out.values()), {}
        answers = self._blame(out, why, timed_out) if greeted else self._bury()
        self._waiting = deque([*out, *self._waiting])
        if not greeted and not self.stillborn:
            answers, self._waiting = [(errand.number, _lost(why)) for errand in self._waiting], deque()
        return answers

    def _bury(self) -> list[Answer]:
        self.stillborn = (self.stillborn + 1) % STILLBORN_MAX
        return []

    def _blame(self, out: deque[Errand], why: str, timed_out: bool) -> list[Answer]:
        """Judge the first errand of those that were out."""
        self.timeouts += timed_out
        if not out:
            return []
        first = out.popleft()
        if timed_out:
            return [(first.number, _too_long(first))]
        if first.tries + 1 >= TRIES_MAX:
            return [(first.number, _fatal(first, why))]
        out.appendleft(attrs.evolve(first, tries=first.tries + 1, stage=0))
        return []


def _too_long(errand: Errand) -> Reject:
    if errand.stage < STAGES.index("grammar"):
        hint = "shorten the prompt; a model's own chat template may be at fault"
        message = (
            f"the chat template and the tokeniser took longer than {errand.prompt_ms_max} ms\nhint: {hint}"
        )
        return Reject("invalid_request", message, retryable=False, param=errand.param)
    message = f"the grammar took longer than {GRAMMAR_MS_MAX} ms to compile\nhint: make it simpler"
    return Reject("invalid_request", message, retryable=False, param="response_format")


def _fatal(errand: Errand, why: str) -> Reject:
    stage = STAGES[min(errand.stage, len(STAGES) - 1)]
    message = f"the text worker {why} twice at this request's {stage}"
    param = errand.param if stage == "prompt" else "response_format"
    return Reject("invalid_request", message, retryable=False, param=param)


def _lost(why: str) -> Reject:
    return Reject("text_worker_lost", f"the engine's text worker does not serve: it {why}")

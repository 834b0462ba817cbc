"""A conversation with an engine core, in virtual time: what the tests of the core share."""

import attrs

from mesh.attempt import Attempt, Parameters, Segment
from mesh.frames import Accept, Finish, Frame, Pong, Progress, Reject, Status, Step, Tokens, Verb
from node.engine.core import EngineCore, Options, describe
from node.engine.plan import Plan, Sampled
from node.engine.toy import DIGEST, TEXT_DIGEST, VOCABULARY, ToyRunner, ToyText

VERBS: dict[int, type[Verb]] = {
    verb.KIND: verb for verb in (Accept, Finish, Pong, Progress, Reject, Status, Step, Tokens)
}


@attrs.define
class Scripted:
    """A runner that says given ids, by the position among the produced ones."""

    script: list[int]
    context_max: int = 512
    vocabulary: int = VOCABULARY
    blocks: int = 64
    block_tokens: int = 4
    digest: str = DIGEST
    policy: str = "script"
    exact: bool = True
    dtype: str = "none"
    plans: list[Plan] = attrs.Factory(list)

    def run(self, plan: Plan) -> tuple[Sampled, ...]:
        self.plans.append(plan)
        return tuple(
            Sampled(row.sequence, self.script[len(row.produced)], -0.5, ((1, -0.5), (2, -1.5)))
            for row in plan.rows
            if row.sample
        )


class Engine:
    """A core and a runner, with virtual time; what it said is kept as verbs."""

    def __init__(self, runner=None, grammars=None, **options) -> None:
        self.runner = runner or ToyRunner(blocks=64, block_tokens=4, context_max=512)
        options = {"block_tokens": self.runner.block_tokens, "worker": "here", **options}
        self.core = EngineCore(
            Options(**options), ToyText(), describe("toy", self.runner, (), TEXT_DIGEST), grammars
        )
        self.now = 0.0
        self.said: list[tuple[int, int, Verb]] = []

    def hear(self, *frames: Frame) -> list[Verb]:
        """Hand in frames; return what was answered on flights."""
        return self.note([said for frame in frames for said in self.core.receive(self.now, frame)])

    def note(self, frames: list[Frame]) -> list[Verb]:
        verbs = [(frame.flight, frame.attempt, VERBS[frame.kind].read(frame)) for frame in frames]
        self.said += verbs
        return [verb for flight, _, verb in verbs if flight]

    def open(self, attempt: Attempt, flight: int = 1, number: int = 1) -> list[Verb]:
        return self.hear(attempt.frame(flight, number))

    def step(self, cost_s: float = 0.01) -> bool:
        plan, frames = self.core.plan(self.now)
        self.note(frames)
        if plan is None:
            return False
        sampled = self.runner.run(plan)
        self.now += cost_s
        self.note(self.core.commit(self.now, plan, sampled))
        return True

    def run(self) -> None:
        while self.step():
            assert self.now < 1000
        self.core.scheduler.check_integrity()
        assert self.core.tickets == ()

    def verbs(self, kind: type[Verb], flight: int = 1) -> list:
        return [verb for of, _, verb in self.said if of == flight and type(verb) is kind]

    def text(self, flight: int = 1) -> str:
        return "".join(v.text for of, _, v in self.said if of == flight and isinstance(v, Tokens | Finish))

    def ids(self, flight: int = 1) -> list[int]:
        return [id for tokens in self.verbs(Tokens, flight) for id in tokens.ids]


def ask(prompt: str = "hello", seed: int = 7, **more) -> Attempt:
    names = {field.name for field in attrs.fields(Parameters)}
    parameters = {"max_tokens": 20, **{name: more.pop(name) for name in list(more) if name in names}}
    return Attempt("toy", (Segment("text", prompt),), Parameters(**parameters), seed, **more)


def scripted(text: str, *ends: int) -> Scripted:
    """Return a runner that says a text byte by byte, then the given ids."""
    return Scripted([*text.encode(), *ends, *(65,) * 100])

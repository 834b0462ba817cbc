"""Killed at every token: the real model goes on to the same ids and the same text, in bf16 and in eight bits."""

import functools
from pathlib import Path

import attrs
import pytest

from mesh.attempt import Attempt, Parameters, Segment
from mesh.flight import Flight, State
from mesh.frames import Accept, Finish, Kind, Reject, Tokens
from node.engine.core import EngineCore, Options, describe
from node.engine.scheduler import Limits
from node.engine.tokenizer import ModelText

MODEL = Path(__file__).parents[3] / "node" / "models" / "ember-py"
TOKENS = 64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="ember-py has not been exported"),
]

KINDS = {
    "sampled": Parameters(max_tokens=TOKENS, temperature=0.9, top_p=0.95, ignore_eos=True, logprobs=1),
    "penalised": Parameters(
        max_tokens=TOKENS, frequency_penalty=0.6, repetition_penalty=1.2, ignore_eos=True, bad_words=("self",)
    ),
}


@functools.cache
def text() -> ModelText:
    return ModelText.load(MODEL)


@functools.cache
def runner(dtype: str):
    from node.engine.config_hf import ModelError
    from node.engine.runner import Runner

    try:
        return Runner(MODEL, dtype=dtype, threads=1, block_tokens=64, kv_blocks=32)
    except ModelError as error:
        pytest.skip(str(error))


@attrs.define
class Line:
    """A flight and the engine that serves it, which can be taken away; each engine begins with an empty cache."""

    flight: Flight
    dtype: str
    core: EngineCore | None = None

    def begin(self) -> None:
        engine = runner(self.dtype)
        ready = describe("ember-py", engine, (), text().digest)
        self.core = EngineCore(Options(engine.block_tokens, Limits(), step_s_max=1e9), text(), ready)
        attempt = self.flight.open("engine", 0)
        self._hear(self.core.receive(0.0, attempt.frame(1, self.flight.attempt)))

    def step(self) -> None:
        plan, frames = self.core.plan(0.0)
        self._hear(frames + self.core.commit(0.1, plan, runner(self.dtype).run(plan)))

    def kill(self) -> None:
        self.core = None
        assert self.flight.lost(self.flight.attempt, "killed")

    def _hear(self, frames: list) -> None:
        number = self.flight.attempt
        for frame in frames:
            assert frame.kind != Kind.REJECT, Reject.read(frame)
            match frame.kind:
                case Kind.ACCEPT:
                    assert self.flight.accept(number, Accept.read(frame))
                case Kind.TOKENS:
                    assert self.flight.tokens(number, Tokens.read(frame))
                case Kind.FINISH:
                    assert self.flight.finished(number, Finish.read(frame))


def line(kind: str, dtype: str) -> Line:
    segment = Segment("text", "def mean(values):\n    return sum(")
    flight = Flight(1, Attempt("ember-py", (segment,), KINDS[kind], 5), moves_max=TOKENS)
    flight.route()
    return Line(flight, dtype)


def undisturbed(kind: str, dtype: str) -> Flight:
    whole = line(kind, dtype)
    whole.begin()
    while not whole.flight.ended:
        whole.step()
    assert whole.flight.state is State.DONE
    assert len(whole.flight.ids) == TOKENS
    return whole.flight


def told(flight: Flight) -> tuple:
    logprobs = [one for chunk in flight.log for one in chunk.logprobs]
    return flight.ids, "".join(chunk.text for chunk in flight.log), logprobs, flight.finish


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_token_the_rest_is_the_same(kind: str, dtype: str):
    """One kill per stream, at each of its tokens in turn, then to the end."""
    whole = undisturbed(kind, dtype)
    for index in range(1, TOKENS):
        one = line(kind, dtype)
        one.begin()
        while one.flight.delivered < index:
            one.step()
        one.kill()
        one.begin()
        while not one.flight.ended:
            one.step()
        assert told(one.flight) == told(whole), f"killed after token {index}"
        assert not one.flight.policy_changed


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_after_every_token_the_stream_is_the_same(kind: str, dtype: str):
    """As many engines as tokens: each says one, and dies."""
    whole = undisturbed(kind, dtype)
    one = line(kind, dtype)
    while not one.flight.ended:
        one.begin()
        before = one.flight.delivered
        while one.flight.delivered == before and not one.flight.ended:
            one.step()
        if not one.flight.ended:
            one.kill()
    assert told(one.flight) == told(whole)
    assert one.flight.attempt == TOKENS

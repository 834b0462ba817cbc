"""The device's runner says what the CPU's says, whatever shares its steps. In Triton's interpreter.

Bits are compared where our order of sums decides them; with the CPU's path, which has another order, the
logits are compared within a tolerance, and the tokens in fp32, where ties are improbable.
"""

import functools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from kernels._triton import installed
from node.engine.config_hf import read_config, shape_of
from node.engine.plan import Plan, Sampling
from node.engine.runner import Runner
from node.engine.weights import expected_tensors, open_weights
from tests.node.engine import interpreted_runner as child
from tests.node.engine import moves
from tests.node.engine.tiny import GREEDY, LLAMA, QWEN2, QWEN3, generate, load, row, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not installed(), reason="Triton is not installed"),
]

DRAWN = Sampling(seed=77, temperature=0.9)
FILTERED = Sampling(seed=77, temperature=0.9, top_p=0.9, frequency_penalty=0.3, logprobs=1)
PROMPT = [index * 37 % 320 for index in range(34)]
COUNT = 4
MODELS = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3}
Interpreter = Callable[..., object]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    """Call a function of `interpreted_runner` in the process that interprets."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=child.prepare) as pool:
        yield lambda function, *inputs, **named: pool.submit(function, *inputs, **named).result()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    return {name: str(write(place / name, config)) for name, config in MODELS.items()}


@pytest.fixture(scope="module")
def cpu(directories: dict[str, str]) -> Callable[[str], Runner]:
    """The CPU's runner of a model in fp32, by name, loaded once."""
    return functools.cache(lambda name: load(Path(directories[name]), "fp32"))


@pytest.fixture(scope="module")
def ember(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two of ember-py's layers, with its vocabulary."""
    config = json.loads((moves.MODEL / "config.json").read_text()) | {"num_hidden_layers": 2}
    weights = open_weights(moves.MODEL, shape_of(read_config(moves.MODEL)))
    names = expected_tensors(shape_of(config))
    tensors = {name: weights.read(name, torch.bfloat16) for name in names}
    return str(write(tmp_path_factory.mktemp("ember"), config, tensors))


@pytest.fixture(scope="module")
def llama(directories: dict[str, str]) -> str:
    return directories["llama"]


@pytest.mark.parametrize("name", MODELS)
def test_it_says_what_the_cpu_says(
    interpreter: Interpreter, directories: dict[str, str], cpu: Callable[[str], Runner], name: str
):
    for sampling in (GREEDY, DRAWN)[: 1 + (name == "llama")]:
        got = interpreter(child.said, directories[name], "fp32", PROMPT, COUNT, sampling)
        assert got == generate(cpu(name), PROMPT, COUNT, sampling)
    expected = cpu(name).logits(Plan((row(PROMPT),))).numpy()
    got = interpreter(child.logits, directories[name], "fp32", PROMPT)
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 0.03), ("int8", 0.1), ("fp8", 0.2)])
def test_narrow_weights_stay_near_the_cpu_in_fp32(
    interpreter: Interpreter, llama: str, cpu: Callable[[str], Runner], dtype: str, most: float
):
    """Bounds are twice what was seen; fp32 arithmetic in a narrow form's place would be below the least."""
    expected = cpu("llama").logits(Plan((row(PROMPT),))).numpy()
    got = interpreter(child.logits, llama, dtype, PROMPT)
    assert 1e-4 < np.abs(got - expected).max() / np.abs(expected).max() <= most


def test_it_says_what_it_is(interpreter: Interpreter, llama: str, cpu: Callable[[str], Runner]):
    here, there = interpreter(child.about, llama, "fp32"), cpu("llama")
    assert here["exact"]
    assert (here["digest"], here["vocabulary"]) == (there.digest, there.vocabulary)
    assert here["policy"] != there.policy
    assert here["policy"] != interpreter(child.about, llama, "bf16")["policy"]
    assert (here["device"], here["dtype"], here["blocks"]) == ("cpu", "fp32", child.BLOCKS)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "bf16/int8", "bf16/fp8"])
def test_a_text_is_the_same_alone_in_company_and_in_chunks(interpreter: Interpreter, llama: str, dtype: str):
    def say(**company: int) -> object:
        return interpreter(child.said, llama, dtype, PROMPT, COUNT, DRAWN, **company)

    alone = say()
    assert say(strangers=3) == alone  # more rows than any recorded step has
    if dtype.startswith("bf16"):
        assert say(chunk=17, strangers=1, first_block=32) == alone
    if dtype == "bf16":
        assert say(strangers=2) == alone


@pytest.mark.parametrize("dtype", ["bf16", "bf16/int8", "bf16/fp8"])
def test_it_goes_on_where_another_stopped(interpreter: Interpreter, llama: str, dtype: str):
    whole = interpreter(child.said, llama, dtype, PROMPT, COUNT, DRAWN)
    rest = interpreter(child.said, llama, dtype, PROMPT, COUNT - 2, DRAWN, whole[:2], first_block=32)
    assert rest == whole[2:]


def test_filters_penalties_and_log_probabilities_are_the_hosts(
    interpreter: Interpreter, llama: str, cpu: Callable[[str], Runner]
):
    got = interpreter(child.said, llama, "fp32", PROMPT, COUNT, FILTERED)
    assert got == generate(cpu("llama"), PROMPT, COUNT, FILTERED)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_step_may_begin_before_the_last_ones_tokens_are_read(
    interpreter: Interpreter, llama: str, sampling: Sampling
):
    expected = interpreter(child.said, llama, "bf16", PROMPT, COUNT, sampling)
    assert interpreter(child.ahead, llama, "bf16", PROMPT, COUNT, sampling) == expected
    assert interpreter(child.unread_of_nobody, llama, "bf16") == "KeyError 987"


def test_steps_of_decode_are_replayed(interpreter: Interpreter, llama: str):
    interpreter(child.said, llama, "fp32", PROMPT, 3)
    plain, recorded, replays = interpreter(child.graph_counts, llama, "fp32")
    interpreter(child.said, llama, "fp32", PROMPT, 5)
    later = interpreter(child.graph_counts, llama, "fp32")
    assert recorded >= 1
    assert later == (plain, recorded, replays + 4)  # the first of five tokens comes from prefill


@pytest.mark.parametrize("dtype", ["bf16", "bf16/int8"])
def test_an_earlier_tenants_nan_is_not_read(interpreter: Interpreter, llama: str, dtype: str):
    expected = interpreter(child.said, llama, dtype, PROMPT, COUNT, DRAWN)
    interpreter(child.poison, llama, dtype)
    assert interpreter(child.said, llama, dtype, PROMPT, COUNT, DRAWN, strangers=1) == expected


def test_codes_stay_near_a_cache_that_is_not_narrow(interpreter: Interpreter, llama: str):
    """Bounds are twice what was seen, and a cache that is secretly wide would be below the least."""
    expected = interpreter(child.logits, llama, "bf16", PROMPT)
    for kv, most in (("int8", 0.053), ("fp8", 0.19)):
        got = interpreter(child.logits, llama, f"bf16/{kv}", PROMPT)
        assert 1e-4 < np.abs(got - expected).max() / np.abs(expected).max() <= most
    names = ("bf16", "bf16/int8", "bf16/fp8")
    about = [interpreter(child.about, llama, name) for name in names]
    assert all(one["exact"] for one in about)
    assert len({one["policy"] for one in about}) == 3


@pytest.mark.parametrize("kv", ["int8", "fp8"])
def test_a_request_moves_between_caches_of_codes_and_the_cpu_without_a_gap(
    interpreter: Interpreter, ember: str, kv: str
):
    """Between two of the same codes the text is the undisturbed one; the CPU's has no codes, and may differ."""
    whole = interpreter(child.leg, ember, f"bf16/{kv}", (), moves.COUNT)
    first = interpreter(child.leg, ember, f"bf16/{kv}", (), 3)
    rest = interpreter(child.leg, ember, f"bf16/{kv}", first.ids, moves.COUNT)
    moves.check([first, rest])
    assert (first.ids + rest.ids, first.text + rest.text) == (whole.ids, whole.text)
    cpu = Runner(ember, device="cpu", dtype="fp32", threads=1, kv_blocks=8)
    between = moves.serve(cpu, first.ids, 3)
    last = interpreter(child.leg, ember, f"bf16/{kv}", first.ids + between.ids, moves.COUNT)
    moves.check([first, between, last])


def test_a_damaged_sequence_is_named(interpreter: Interpreter, llama: str):
    assert "sequence 4" in interpreter(child.damaged, llama, "fp32")


def test_a_model_that_sees_its_batch_is_caught_by_the_canary(interpreter: Interpreter, llama: str):
    assert not interpreter(child.leaky, llama)


@pytest.mark.parametrize("order", ["cpu-triton-cpu", "triton-cpu-triton"])
def test_a_request_moves_between_cpu_and_triton_without_a_gap(
    interpreter: Interpreter, ember: str, order: str
):
    """In fp32, where both say the same; the policies differ, and each ACCEPT says which it is."""
    cpu = Runner(ember, device="cpu", dtype="fp32", threads=1, kv_blocks=8)
    undisturbed = moves.serve(cpu, (), moves.COUNT)
    legs, ids = [], ()
    for name, count in zip(order.split("-"), (3, 3, moves.COUNT), strict=True):
        legs.append(
            moves.serve(cpu, ids, count)
            if name == "cpu"
            else interpreter(child.leg, ember, "fp32", ids, count)
        )
        ids += legs[-1].ids
    moves.check(legs)
    assert (ids, "".join(leg.text for leg in legs)) == (undisturbed.ids, undisturbed.text)
    assert legs[0].policy == legs[2].policy != legs[1].policy


def test_guesses_and_the_scores_of_a_prompt_are_the_cpus(
    interpreter: Interpreter, llama: str, cpu: Callable[[str], Runner]
):
    scored = attrs.evolve(row(PROMPT, prompt=PROMPT), scored=1)
    penalised = Sampling(seed=77, temperature=0.9, frequency_penalty=0.3)
    ahead = ((penalised, None), (penalised, b"\x0f" * 40))
    guessed = attrs.evolve(
        row([5, 6, 7], len(PROMPT), sampling=penalised, produced=(5,)), drafts=2, ahead=ahead
    )
    plans = [Plan((scored,)), Plan((row([9], sequence=3, blocks=range(40, 44)), guessed))]
    for ours, theirs in zip(
        interpreter(child.ran, llama, "fp32", plans), [cpu("llama").run(plan) for plan in plans], strict=True
    ):
        assert [(one.sequence, one.id, one.rank) for one in ours] == [
            (one.sequence, one.id, one.rank) for one in theirs
        ]
        assert np.allclose([one.logprob for one in ours], [one.logprob for one in theirs], atol=1e-3)

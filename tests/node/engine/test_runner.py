"""The runner's surface: what it says of itself, what it refuses, and that steps keep sequences apart."""

from pathlib import Path

import attrs
import pytest
import torch

import kernels
from kernels import native
from node.engine.config_hf import ModelError
from node.engine.memory import available_bytes
from node.engine.plan import NotFinite, Plan, Sampled, Sampling
from node.engine.runner import Runner
from tests.node.engine.tiny import GREEDY, LLAMA, LONG, LOW, generate, load, row, tensors_of, write

BLOCK = 2 * 2 * 2 * 32 * 32 * (2 if LOW == "bf16" else 4)
"""Bytes of a block of LLAMA's cache: layers, keys and values, heads, tokens, width, bytes."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("llama"), LLAMA)


@pytest.fixture(scope="module")
def runner(directory: Path) -> Runner:
    return load(directory)


def test_it_says_what_it_is(runner: Runner):
    assert (runner.blocks, runner.block_tokens, runner.context_max, runner.vocabulary) == (96, 32, 1024, 320)
    assert (runner.dtype, runner.threads, runner.exact) == (LOW, 1, True)
    assert len(runner.digest) == len(runner.policy) == 64


def test_the_policy_is_the_same_for_equals_and_differs_with_what_decides_bits(
    directory: Path, runner: Runner
):
    assert load(directory).policy == runner.policy
    assert (load(directory, dtype="fp32").policy == runner.policy) == (LOW == "fp32")
    assert load(directory, block_tokens=64).policy != runner.policy
    assert load(directory, kv_blocks=50).policy == runner.policy


def test_the_policy_measures_the_weights(tmp_path: Path, runner: Runner):
    other = load(write(tmp_path, LLAMA, tensors_of(LLAMA, seed=1)))
    assert other.policy != runner.policy
    assert other.digest != runner.digest


def test_threads_are_measured_unless_given(directory: Path):
    assert load(directory, threads=None).threads in (1, 2, 4, 8, 16, 32, 64)
    assert load(directory, threads=2).threads == 2


def test_results_come_in_the_plans_order_and_only_where_asked(runner: Runner):
    rows = (
        row([1, 2, 3], sequence=9, blocks=[0]),
        row([4], sequence=3, blocks=[1]),
        row([5, 6], sequence=7, blocks=[2], sample=False),
        row([7], sequence=1, blocks=[3]),
    )
    results = runner.run(Plan(rows))
    assert [result.sequence for result in results] == [9, 3, 1]
    alone = [runner.run(Plan((one,)))[0] for one in rows if one.sample]
    assert list(results) == alone


def test_an_empty_step_and_a_step_that_samples_nothing(runner: Runner):
    assert runner.run(Plan(())) == ()
    assert runner.run(Plan((row([1, 2], sample=False),))) == ()


def test_progress_is_told_per_layer(runner: Runner):
    seen: list[int] = []
    runner.progress = seen.append
    runner.run(Plan((row([1]),)))
    runner.progress = None
    assert seen == [1, 2]


def test_loading_is_told(directory: Path, tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    load(directory, loading=lambda *step: seen.append(step), keep=tmp_path)
    assert [what for what, done, total in seen if done == total] == ["digest", "weights"]


def test_log_probabilities_are_the_models(runner: Runner):
    ids = [3, 1, 4, 1, 5]
    result = runner.run(Plan((row(ids, sampling=Sampling(seed=1, temperature=0.0, logprobs=2)),)))[0]
    expected = runner.logits(Plan((row(ids),)))[0].log_softmax(-1)
    assert result == Sampled(0, int(expected.argmax()), float(expected.max()), result.top)
    assert [round(value, 5) for _, value in result.top] == [
        round(v, 5) for v in expected.topk(2).values.tolist()
    ]


def test_a_prompt_may_fill_the_context(directory: Path):
    runner = load(directory, kv_blocks=3)
    assert runner.context_max == 96
    assert len(generate(runner, [index % 320 for index in range(90)], 6, GREEDY, blocks=range(3))) == 6


def test_one_block_is_enough(directory: Path):
    assert load(directory, kv_blocks=1, block_tokens=16).exact


def test_damaged_weights_are_an_error_that_names_the_sequence(tmp_path: Path):
    tensors = tensors_of(LLAMA)
    tensors["model.embed_tokens.weight"][7] = torch.nan
    runner = load(write(tmp_path, LLAMA | {"tie_word_embeddings": False}, tensors | {
        "lm_head.weight": tensors_of(LLAMA)["model.embed_tokens.weight"]
    }))  # fmt: skip
    with pytest.raises(NotFinite, match="sequence 4"):
        runner.run(Plan((row([1], sequence=2, blocks=[0]), row([7], sequence=4, blocks=[1]))))
    assert runner.run(Plan((row([1], sequence=2, blocks=[1]),)))[0].sequence == 2


def test_memory_is_refused_with_the_figures(directory: Path):
    with pytest.raises(ModelError, match=r"the model needs [\d,]+ bytes .* are free"):
        load(directory, kv_blocks=10**9)
    with pytest.raises(ModelError, match=r"smaller than one block of [\d,]+"):
        Runner(directory, kv_bytes=BLOCK - 1, block_tokens=32)
    assert Runner(directory, kv_bytes=3 * BLOCK, block_tokens=32, threads=1).blocks == 3


@pytest.mark.parametrize(("options", "named"), [({"device": "tpu"}, "`tpu`"), ({"dtype": "int3"}, "`int3`")])
def test_an_unknown_device_or_dtype_is_refused(directory: Path, options: dict[str, str], named: str):
    with pytest.raises(ModelError, match=named):
        Runner(directory, **options)


def test_the_dtype_follows_the_weights_unless_given(tmp_path: Path):
    assert load(write(tmp_path / "a", LLAMA), dtype="auto").dtype == LOW
    assert load(write(tmp_path / "b", LLAMA | {"torch_dtype": "float32"}), dtype="auto").dtype == "fp32"


def inexact(dtype: torch.dtype, width: int) -> bool:
    return dtype is not torch.bfloat16


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the compiled kernels."""
    monkeypatch.setattr(native, "COMPILER", "no-such-compiler")


@pytest.mark.usefixtures("uncompiled")
def test_where_bf16_is_not_exact_fp32_is_taken(directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels.probe, "linear_is_exact", inexact)
    runner = load(directory)
    assert (runner.dtype, runner.exact) == ("fp32", True)


@pytest.mark.usefixtures("uncompiled")
def test_where_nothing_is_exact_the_engine_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels.probe, "attention_is_exact", lambda *_: False)
    runner = load(directory)
    assert (runner.dtype, runner.exact) == (LOW, False)
    assert len(generate(runner, [1, 2, 3], 4)) == 4


def test_a_model_that_sees_its_batch_is_caught_by_the_canary(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    honest = kernels.select

    def leaky(*arguments: object) -> kernels.Kernels:
        chosen = honest(*arguments)
        return attrs.evolve(chosen, swiglu=lambda x: chosen.swiglu(x) * (1 + len(x) / 512))

    monkeypatch.setattr(kernels, "select", leaky)
    assert not load(directory).exact


@pytest.mark.parametrize("compiler", ["cc", "no-such-compiler"])
def test_int8_runs_exactly_and_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch, compiler: str):
    monkeypatch.setattr(native, "COMPILER", compiler)
    runner, wide = load(directory, dtype="int8"), load(directory)
    assert (runner.dtype, runner.exact) == ("int8", True)
    assert runner.digest == wide.digest
    assert runner.policy != wide.policy


def test_where_bf16_is_not_exact_the_compiled_kernels_are_not_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kernels.probe, "attends_exactly", lambda *_: False)
    assert not load(directory).exact


def test_a_sliced_model_runs(tmp_path: Path):
    assert load(write(tmp_path, LONG)).exact


def test_available_memory_is_the_lesser_of_machine_and_group(tmp_path: Path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert available_bytes(meminfo, tmp_path) == 5_120_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000\n")
    assert available_bytes(meminfo, tmp_path) == 5_120_000
    (tmp_path / "memory.max").write_text("1000000\n")
    assert available_bytes(meminfo, tmp_path) == 300_000

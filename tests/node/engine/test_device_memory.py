"""A device's memory is reckoned before it is taken."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.device import objection
from node.engine.config_hf import ModelError, shape_of
from node.engine.device_memory import SHARE, Need, blocks_that_fit, step_bytes, weight_bytes, work_bytes
from node.engine.device_runner import DeviceOptions, _codes, open_device_runner
from node.engine.open_runner import Choice, choose_device, open_runner
from node.engine.runner import block_bytes
from tests.node.engine.tiny import LLAMA, tensors_of, write

SHAPE = shape_of(LLAMA)


@given(
    st.builds(Need, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)),
    st.integers(1, 10**7),
    st.integers(0, 10**10),
)
def test_what_is_taken_fits_and_one_block_more_would_not(need: Need, block: int, free: int):
    usable = int(free * SHARE)
    try:
        blocks = blocks_that_fit(need, block, free)
    except ModelError as error:
        assert need.total + 2 * block > usable
        assert f"{usable:,} of {free:,}" in error.message
    else:
        assert need.total + (blocks + 1) * block <= usable < need.total + (blocks + 2) * block


def test_a_cache_that_was_asked_for_is_given_or_refused_with_the_figures():
    need = Need(100, 50, 50)
    assert blocks_that_fit(need, 10, 1000, kv_blocks=3) == 3
    assert blocks_that_fit(need, 10, 1000, kv_bytes=39) == 3
    with pytest.raises(ModelError, match=r"needs 910 bytes on the device \(weights 100, .* 70 blocks"):
        blocks_that_fit(need, 10, 950, kv_blocks=70)
    with pytest.raises(ModelError, match="cache of 9 bytes is smaller than one block of 10"):
        blocks_that_fit(need, 10, 1000, kv_bytes=9)


def test_weights_are_counted_as_they_are():
    tensors = tensors_of(LLAMA)
    assert weight_bytes(SHAPE, torch.bfloat16, "dense") == sum(one.numel() * 2 for one in tensors.values())
    assert weight_bytes(SHAPE, torch.float32, "dense") == sum(one.numel() * 4 for one in tensors.values())
    narrow = [weight_bytes(SHAPE, torch.bfloat16, form) for form in ("int4", "int8")]
    assert narrow == sorted(narrow)


def test_work_grows_with_rows_and_batch():
    assert work_bytes(SHAPE, torch.bfloat16, 2048, 8) > work_bytes(SHAPE, torch.bfloat16, 1024 + 1, 8)
    assert work_bytes(SHAPE, torch.bfloat16, 64, 256) > work_bytes(SHAPE, torch.bfloat16, 64, 8)


def test_auto_takes_the_gpu_if_nothing_speaks_against_it_and_says_what_does():
    assert choose_device("auto", lambda _: "") == Choice("cuda:0")
    assert choose_device("auto", lambda _: "no GPU") == Choice("cpu", "no GPU")
    assert choose_device("cpu", lambda _: "") == Choice("cpu")
    assert choose_device("cuda", lambda _: "") == Choice("cuda:0")
    assert choose_device("cuda:3", lambda _: "") == Choice("cuda:3")


@pytest.mark.parametrize("wanted", ["tpu", "cuda:", "cuda:x", "cudax", ""])
def test_an_unknown_device_is_refused(wanted: str):
    with pytest.raises(ModelError, match=f"device `{wanted}` is not supported"):
        choose_device(wanted, lambda _: "")


def test_a_gpu_that_was_asked_for_and_cannot_be_used_is_refused_with_the_reason():
    with pytest.raises(ModelError, match="`cuda:1` cannot be used: too old"):
        choose_device("cuda:1", lambda _: "too old")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_cpu_serves_and_it_is_known_why(tmp_path: Path):
    assert objection() != ""
    runner, choice = open_runner(write(tmp_path, LLAMA), threads=1, block_tokens=32, kv_bytes=1 << 22)
    assert choice == Choice("cpu", objection())
    assert runner.block_tokens == 32


@pytest.mark.parametrize("kv_dtype", ["bf16", "int8", "fp8"])
def test_the_cpu_refuses_another_format_of_keys_and_values_with_the_reason(tmp_path: Path, kv_dtype: str):
    with pytest.raises(ModelError, match=f"kv_dtype `{kv_dtype}` is for GPUs.*\nhint: leave it at `auto`"):
        open_runner(write(tmp_path, LLAMA), "cpu", kv_dtype=kv_dtype)


@pytest.mark.parametrize(("dtype", "kv_dtype"), [("fp32", "bf16"), ("bf16", "int4")])
def test_a_format_of_keys_and_values_that_cannot_be_had_is_refused(tmp_path: Path, dtype: str, kv_dtype: str):
    with pytest.raises(ModelError, match=f"kv_dtype `{kv_dtype}` is not supported with dtype `{dtype}`"):
        open_device_runner(write(tmp_path, LLAMA), "cpu", DeviceOptions(dtype, kv_dtype))


def test_fp8_needs_a_chip_that_converts_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "hip", None)
    for capability, fits in (((8, 0), False), ((8, 9), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, c=capability: c)
        if fits:
            assert _codes("fp8", "bf16", torch.device("cuda")) is torch.float8_e4m3fn
        else:
            with pytest.raises(ModelError, match="converts e4m3"):
                _codes("fp8", "bf16", torch.device("cuda"))


def test_codes_take_a_byte_each_and_a_step_per_head():
    shape = shape_of(LLAMA)
    narrow = block_bytes(shape, torch.int8, 16) + step_bytes(shape, 16)
    runs = 2 * shape.layers * shape.kv_heads * 16
    assert narrow == runs * (shape.head_width + 4)
    assert block_bytes(shape, torch.bfloat16, 16) == runs * shape.head_width * 2


@pytest.mark.parametrize(
    ("dtype", "named"), [("int3", "`int3` is not supported"), ("int4", "multiples of 128")]
)
def test_a_form_that_cannot_be_had_is_refused_before_memory_is_taken(tmp_path: Path, dtype: str, named: str):
    with pytest.raises(ModelError, match=named):
        open_device_runner(write(tmp_path, LLAMA), "cpu", DeviceOptions(dtype))
    with pytest.raises(ModelError, match=r"needs [\d,]+ bytes on the device"):
        open_device_runner(write(tmp_path, LLAMA), "cpu", DeviceOptions("bf16", kv_blocks=10**9))

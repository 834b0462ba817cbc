"""A model directory is run faithfully or refused by name, before memory is taken."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from node.engine.config_hf import ModelError, read_config, shape_of
from node.engine.rotation import rope_frequencies
from node.engine.weights import Weights, model_digest, open_weights
from tests.node.engine.tiny import LLAMA, QWEN2, QWEN3, tensors_of, write

MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
SMOLLM3 = {"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3"}
SLIDING = {"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": True, "sliding_window": 64}


def opened(directory: Path) -> Weights:
    return open_weights(directory, shape_of(read_config(directory)))


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as error:
        opened(directory)
    text = str(error.value)
    assert text.count("\n") == 1
    assert text.splitlines()[1].startswith("hint: ")
    return text


@pytest.mark.parametrize("config", [LLAMA, QWEN2, QWEN3], ids=["llama", "qwen2", "qwen3"])
def test_tensors_are_read_as_they_were_written(tmp_path: Path, config: dict[str, object]):
    tensors = tensors_of(config)
    weights = opened(write(tmp_path, config, tensors))
    assert set(weights.entries) == set(tensors)
    assert weights.bytes == sum(tensor.nbytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        assert torch.equal(weights.read(name, torch.float32), tensor.float())


def shards(directory: Path, tensors: dict[str, torch.Tensor]) -> Path:
    write(directory, LLAMA, {}).joinpath("model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, directory / file)
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def test_shards_are_read_as_one(tmp_path: Path):
    tensors = tensors_of(LLAMA)
    weights = opened(shards(tmp_path, tensors))
    assert len(weights.files) == 2
    assert all(torch.equal(weights.read(name, torch.bfloat16), tensor) for name, tensor in tensors.items())


def test_a_missing_shard_is_named(tmp_path: Path):
    shards(tmp_path, tensors_of(LLAMA))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "lacks the shard `model-00002-of-00002.safetensors`" in refusal(tmp_path)


def test_a_shard_outside_the_directory_is_refused(tmp_path: Path):
    write(tmp_path, LLAMA)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../a.safetensors"}})
    )
    assert "`../a.safetensors`" in refusal(tmp_path)


def test_a_directory_that_is_no_model(tmp_path: Path):
    assert "no config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert "no model.safetensors" in refusal(tmp_path)


def test_pickles_are_refused_with_the_reason(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "can run any program" in refusal(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int):
    file = write(tmp_path, LLAMA) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "truncated" in refusal(tmp_path)


@pytest.mark.parametrize(
    "garbage", [b"\x04" + 7 * b"\0" + b"[1]x", b"\x02" + 7 * b"\0" + b"{]", b"\xff" * 40]
)
def test_a_file_of_garbage_is_refused(tmp_path: Path, garbage: bytes):
    write(tmp_path, LLAMA).joinpath("model.safetensors").write_bytes(garbage)
    assert "`hint" not in refusal(tmp_path)


def test_a_file_with_something_behind_its_tensors_is_refused(tmp_path: Path):
    file = write(tmp_path, LLAMA) / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"x")
    assert "damaged" in refusal(tmp_path)


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path):
    tensors = tensors_of(LLAMA)
    norm = tensors.pop("model.norm.weight")
    assert "lacks the tensor `model.norm.weight`" in refusal(write(tmp_path, LLAMA, tensors))
    tensors |= {"model.norm.weight": norm, "model.layers.0.self_attn.q_proj.bias": norm.clone()}
    assert "unknown tensor `model.layers.0.self_attn.q_proj.bias`" in refusal(write(tmp_path, LLAMA, tensors))
    del tensors["model.layers.0.self_attn.q_proj.bias"]
    tensors["model.norm.weight"] = torch.zeros(95)
    assert "`model.norm.weight` is [95], not [96]" in refusal(write(tmp_path, LLAMA, tensors))
    tensors["model.norm.weight"] = torch.zeros(96, dtype=torch.int32)
    assert "dtype `I32`" in refusal(write(tmp_path, LLAMA, tensors))


def test_a_tied_head_that_was_saved_too_is_ignored(tmp_path: Path):
    tensors = tensors_of(LLAMA)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    assert "lm_head.weight" not in opened(write(tmp_path, LLAMA, tensors)).entries


def test_the_digest_covers_config_and_every_byte(tmp_path: Path):
    weights = opened(write(tmp_path, LLAMA))
    before = model_digest(weights)
    assert len(before) == hashlib.sha256().digest_size * 2
    assert model_digest(weights) == before
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert model_digest(weights) != before
    content[-1] ^= 1
    file.write_bytes(content)
    assert model_digest(weights) == before
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"rms_norm_eps": 2e-5}))
    assert model_digest(weights) != before


def test_the_digest_tells_how_far_it_is(tmp_path: Path):
    weights = opened(write(tmp_path, LLAMA))
    steps: list[tuple[int, int]] = []
    model_digest(weights, lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "`MixtralForCausalLM`"),
        ({"architectures": None}, "`none named`"),
        ({"hidden_size": None}, "lacks `hidden_size`"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` to `0`"),
        ({"vocab_size": "many"}, "`vocab_size` to `many`"),
        ({"rms_norm_eps": -1.0}, "`rms_norm_eps`"),
        ({"max_position_embeddings": None}, "lacks `max_position_embeddings`"),
        ({"hidden_act": "gelu"}, "`hidden_act`"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "lacks `original_max_position_embeddings`"),
        ({"rope_scaling": {"rope_type": "linear"}}, "lacks `factor`"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "`short_factor` to `[1.0]`"),
        ({"rope_scaling": [1]}, "`rope_scaling` to `[1]`"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "`rope_type`"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 4.0}}, "lacks `low_freq_factor`"),
        ({"partial_rotary_factor": 1.5}, "`partial_rotary_factor`"),
        ({"partial_rotary_factor": 0.1}, "`partial_rotary_factor`"),
        (MISTRAL | {"sliding_window": -4}, "`sliding_window` to `-4`"),
        (SMOLLM3 | {"no_rope_layers": [1]}, "`no_rope_layers` to `[1]`"),
        (SMOLLM3 | {"no_rope_layer_interval": 0}, "`no_rope_layer_interval` to `0`"),
        (SLIDING | {"layer_types": ["linear_attention"] * 2}, "`layer_types`"),
        (SLIDING | {"max_window_layers": "all"}, "`max_window_layers` to `all`"),
        ({"vocab_size": 2**31}, "`vocab_size` to `2147483648`"),
        ({"hidden_size": 2**30, "vocab_size": 2**30}, "17,592,186,044,416 parameters"),
        ({"quantization_config": {"bits": 4}}, "`quantization_config`"),
        ({"num_key_value_heads": 3}, "`num_key_value_heads` 3"),
        ({"head_dim": 33}, "`head_dim` 33"),
    ],
)
def test_a_setting_that_cannot_be_run_is_refused_by_name(changes: dict[str, object], named: str):
    with pytest.raises(ModelError, match="hint: ") as error:
        shape_of(LLAMA | changes)
    assert named in str(error.value)


def test_a_config_that_is_no_json(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "no" in refusal(tmp_path)


def test_both_spellings_of_rope_mean_the_same():
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    older = shape_of(LLAMA | {"rope_theta": 5e5, "rope_scaling": scaling})
    newer = shape_of(LLAMA | {"rope_parameters": scaling | {"rope_theta": 5e5}})
    assert older == newer
    frequencies = rope_frequencies(newer.rope).tolist()
    plain = rope_frequencies(shape_of(LLAMA | {"rope_theta": 5e5}).rope).tolist()
    assert frequencies[0] == plain[0] == 1.0
    assert frequencies[-1] == pytest.approx(plain[-1] / 8)


@pytest.mark.parametrize(
    ("name", "value"), [("num_hidden_layers", 10**9), ("eos_token_id", ["a"]), ("eos_token_id", "2")]
)
def test_an_absurd_configuration_is_refused_by_the_name_of_its_setting(name: str, value: object):
    with pytest.raises(ModelError, match=rf"sets `{name}`.*\nhint: "):
        shape_of(LLAMA | {name: value})


def safetensors(header: object, data: int = 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(begin: int = 0, end: int = 64, shape: object = (4, 4), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": tensor(0, 32, [4, 2]), "b": tensor(16, 64, [4, 3])}, "`b` begins at 16"),
        ({"a": tensor(0, 16, [4]), "b": tensor(32, 64, [4, 2])}, "`b` begins at 32"),
        ({"a": tensor(shape=[5, 4])}, "do not take 64 bytes"),
        ({"a": tensor(shape=[-4, -4])}, "whole numbers"),
        ({"a": tensor(shape=[1] * 9)}, "at most 8 sizes"),
        ({"a": tensor(dtype="F7")}, "`F7` is not known"),
        ({"a": tensor(dtype=["F32"])}, "damaged header"),
        ({"a": tensor(0, 2**70, [2**68])}, "whole numbers"),
        (b'{"a":1,"a":2}', "stands twice"),
        (b"[" * 200_000, "damaged header"),
        (b" " * (3 << 20), "a header of 3,145,728 bytes"),
    ],
)
def test_a_header_is_checked_whole_before_anything_is_read(tmp_path: Path, header: object, said: str):
    write(tmp_path, LLAMA).joinpath("model.safetensors").write_bytes(safetensors(header))
    assert said in refusal(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path):
    shards(tmp_path, tensors_of(LLAMA))
    save_file({"model.norm.weight": torch.zeros(96)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"model.norm.weight": torch.zeros(96)}, tmp_path / "model-00001-of-00002.safetensors")
    assert "two shards" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", [7, "a.bin", "a\0.safetensors", "x" * 300 + ".safetensors", "sub/a.safetensors"]
)
def test_a_shard_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: object):
    write(tmp_path, LLAMA)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "names the shard" in refusal(tmp_path)

"""What the engine bench hands to its peers is what they can read."""

import json
import struct
from pathlib import Path

from tests.bench.engine import material

SMALL = material.CONFIG | {
    "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 300,
}  # fmt: skip
TENSORS = {
    "model.embed_tokens.weight": (300, 64),
    "model.norm.weight": (64,),
    "model.layers.0.self_attn.k_proj.weight": (32, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 96),
}


def test_a_gguf_holds_each_tensor_where_its_table_says(tmp_path: Path):
    file = tmp_path / "model.gguf"
    material.write_gguf(file, SMALL, TENSORS)
    content = file.read_bytes()
    assert content[:4] == b"GGUF"
    assert struct.unpack_from("<IQ", content, 4) == (3, len(TENSORS))
    sizes = [300 * 64 // 32 * 34, 64 * 4, 32 * 64 // 32 * 34, 64 * 96 // 32 * 34]
    offsets = [sum(-(-size // 32) * 32 for size in sizes[:index]) for index in range(len(sizes))]
    for (name, size), offset in zip(material._gguf_names(TENSORS).items(), offsets, strict=True):
        at = content.index(name.encode()) + len(name)
        dimensions = struct.unpack_from(f"<I{len(size)}Q", content, at)
        assert dimensions == (len(size), *reversed(size))
        assert struct.unpack_from("<IQ", content, at + 4 + 8 * len(size))[1] == offset
    assert len(content) >= sum(sizes)
    data = len(content) - offsets[-1] - -(-sizes[-1] // 32) * 32
    assert data % 32 == 0
    assert content[data + offsets[1] :][:8] == struct.pack("<2f", 1, 1)


def test_a_decoded_token_reads_the_linears_and_the_tied_head():
    read = sum(size[0] * size[1] for size in material.shapes().values() if len(size) == 2)
    assert read == material.READ_PER_TOKEN
    assert json.dumps(material.CONFIG)

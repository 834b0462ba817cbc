"""Weights from safetensors files: checked whole before the first byte of memory is allocated for them.

A directory holds `model.safetensors`, or shards named by `model.safetensors.index.json`. Files are mapped,
not read; a tensor's pages are touched once, when the model packs it. PyTorch pickles are refused: loading one
runs whatever program it contains.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import torch
from safetensors import safe_open
from torch import Tensor

from node.engine.config_hf import ModelError, Shape

HEADER_BYTES_MAX = 2 << 20
"""Longest JSON header of one file: some 15,000 tensors. Parsed, the worst of them takes 25 times as much, so that
no header makes a node take more than 64 MiB; safetensors itself allows 100 MB."""
INDEX_BYTES_MAX = 16 << 20
"""Longest index of shards; that of the largest model published has 9 MB."""
SHARDS_MAX = 4096
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per element of the dtypes that weights may have."""
OTHERS = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "I32": 4,
    "U32": 4,
    "I64": 8,
}
OTHERS |= {"U64": 8, "F8_E8M0": 1}
"""... and of those that a file may hold and no weight may have."""
IGNORED = ("rotary_emb.inv_freq",)
"""Endings of tensors that old checkpoints carry and nobody needs."""


@attrs.frozen
class Entry:
    """Where one tensor lies."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size on disk."""
        count = BYTES[self.dtype]
        for size in self.shape:
            count *= size
        return count


@attrs.frozen(eq=False)
class Weights:
    """A validated checkpoint. Reading a tensor maps its file and copies what is converted."""

    directory: Path
    files: tuple[Path, ...]
    entries: Mapping[str, Entry]

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor in `dtype`. The name must be among `entries`."""
        with safe_open(self.entries[name].file, framework="pt") as file:
            return file.get_tensor(name).to(dtype)

    @property
    def bytes(self) -> int:
        """Total size of the tensors on disk."""
        return sum(entry.bytes for entry in self.entries.values())


def open_weights(directory: Path, shape: Shape) -> Weights:
    """Find and check the files against the shape: sizes, names, shapes, dtypes. `ModelError` names the fault."""
    files = _files(directory)
    entries: dict[str, Entry] = {}
    for file in files:
        found = _read_header(file)
        if twice := entries.keys() & found.keys():
            raise ModelError(
                f"two shards of `{directory}` hold the tensor `{min(twice)[:SHOWN]}`",
                "download them again, from one revision",
            )
        entries.update(found)
    kept = {name: entry for name, entry in entries.items() if not name.endswith(IGNORED)}
    if shape.tied:
        kept.pop("lm_head.weight", None)
    _check_names(kept, expected_tensors(shape), directory)
    return Weights(directory, files, MappingProxyType(kept))


def model_digest(weights: Weights, progress: Callable[[int, int], None] | None = None) -> str:
    """sha256 over config.json and the content of the weight files, hex; reads all of them once.

    `progress(done, total)` is called every 16 MiB, in bytes.
    """
    files = (weights.directory / "config.json", *weights.files)
    total = sum(file.stat().st_size for file in files)
    digest, done = hashlib.sha256(), 0
    for file in files:
        digest.update(struct.pack("<Q", file.stat().st_size))
        with file.open("rb") as stream:
            while piece := stream.read(1 << 24):
                digest.update(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
    return digest.hexdigest()


def expected_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a checkpoint of this shape holds, no more and no fewer."""
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.width),
        "model.norm.weight": (shape.width,),
    }
    if not shape.tied:
        tensors["lm_head.weight"] = (shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        for name, size in _layer_tensors(shape).items():
            tensors[f"model.layers.{layer}.{name}"] = size
    return tensors


def _layer_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (shape.width,),
        "post_attention_layernorm.weight": (shape.width,),
    }
    if shape.qk_norm:
        tensors |= {
            "self_attn.q_norm.weight": (shape.head_width,),
            "self_attn.k_norm.weight": (shape.head_width,),
        }
    inward = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    upward = {"gate_proj": shape.feed_forward, "up_proj": shape.feed_forward}
    if shape.fused:
        inward, upward = {"qkv_proj": queries + 2 * keys}, {"gate_up_proj": 2 * shape.feed_forward}
    for name, outputs in inward.items():
        tensors |= _linear(f"self_attn.{name}", outputs, shape.width, shape.qkv_bias)
    tensors |= _linear("self_attn.o_proj", shape.width, queries, shape.o_bias)
    for name, outputs in upward.items():
        tensors |= _linear(f"mlp.{name}", outputs, shape.width, shape.mlp_bias)
    return tensors | _linear("mlp.down_proj", shape.width, shape.feed_forward, shape.mlp_bias)


def _linear(name: str, outputs: int, inputs: int, biased: bool) -> dict[str, tuple[int, ...]]:
    weight: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
    return weight | ({f"{name}.bias": (outputs,)} if biased else {})


def _files(directory: Path) -> tuple[Path, ...]:
    """The safetensors files of a directory, in the order of their names."""
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.is_file():
        return _shards(index)
    if single.is_file():
        return (single,)
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern))
    if pickles:
        raise ModelError(
            f"`{directory}` holds only PyTorch pickles (`{pickles[0]}`), which can run any program when loaded",
            "convert them to safetensors where you trust the source, or download a safetensors version",
        )
    raise ModelError(
        f"`{directory}` is no model: it has no model.safetensors",
        "download the weights into the same directory",
    )


def _shards(index: Path) -> tuple[Path, ...]:
    if index.stat().st_size > INDEX_BYTES_MAX:
        raise ModelError(f"`{index}` has more than {INDEX_BYTES_MAX:,} bytes", "download it again")
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"`{index}` cannot be read: {repr(error)[:SHOWN]}", "download it again") from None
    if not 0 < len(names) <= SHARDS_MAX:
        raise ModelError(f"`{index}` names {len(names)} shards", f"1 to {SHARDS_MAX} are read")
    for name in names:
        if not _is_plain(name):
            raise ModelError(
                f"`{index}` names the shard `{str(name)[:SHOWN]}`",
                "shards are safetensors files beside the index",
            )
        if not (index.parent / name).is_file():
            raise ModelError(f"`{index.parent}` lacks the shard `{name}`", "download the missing file")
    return tuple(index.parent / name for name in sorted(names))


def _is_plain(name: object) -> bool:
    """Whether this is the name of a safetensors file, and of nothing outside its directory."""
    if (
        not isinstance(name, str)
        or not name.endswith(".safetensors")
        or len(name.encode(errors="replace")) > 255
    ):
        return False
    return os.path.basename(name) == name and name.isprintable()


SHOWN = 200
"""Characters of a foreign value that an error repeats."""


def _read_header(file: Path) -> dict[str, Entry]:
    """Names, shapes and dtypes of one file, after checking that its tensors fill its data without gap or overlap."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > size - 8:
            raise ModelError(
                f"`{file}` is truncated or no safetensors file: {size:,} bytes do not hold its header",
                "download it again",
            )
        if length > HEADER_BYTES_MAX:
            raise ModelError(
                f"`{file}` has a header of {length:,} bytes", f"at most {HEADER_BYTES_MAX:,} are read"
            )
        entries, needed = _entries(file, stream.read(length))
    if 8 + length + needed != size:
        raise ModelError(
            f"`{file}` is truncated or damaged: it has {size:,} bytes, its header announces "
            f"{8 + length + needed:,}",
            "download it again",
        )
    return entries


def _entries(file: Path, text: bytes) -> tuple[dict[str, Entry], int]:
    """A header's tensors, and the bytes that they fill together."""
    try:
        header = json.loads(text, object_pairs_hook=_once)
        header.pop("__metadata__", None)
        rows = sorted(((*_checked(row), name) for name, row in header.items()), key=lambda row: row[:2])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"`{file}` has a damaged header: {repr(error)[:SHOWN]}", "download it again"
        ) from None
    entries, end = {}, 0
    for begin, ends, shape, dtype, name in rows:
        if begin != end:
            raise ModelError(
                f"`{file}` is damaged: tensor `{name[:SHOWN]}` begins at {begin:,}, the last one ends at {end:,}",
                "download it again",
            )
        entries[name], end = Entry(file, shape, dtype), ends
    return entries, end


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose keys differ; ValueError otherwise: readers disagree on which of two counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _checked(row: dict[str, Any]) -> tuple[int, int, tuple[int, ...], str]:
    """A header's row as (begin, end, shape, dtype). ValueError, TypeError or KeyError for what is none."""
    (begin, end), shape, dtype = row["data_offsets"], row["shape"], row["dtype"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > 8:
        raise ValueError("a tensor has a dtype and a shape of at most 8 sizes")
    if not all(type(one) is int and 0 <= one < 1 << 63 for one in (begin, end, *shape)):
        raise ValueError("sizes and offsets are whole numbers")
    each = (BYTES | OTHERS).get(dtype)
    if each is None:
        raise ValueError(f"dtype `{dtype[:SHOWN]}` is not known")
    if math.prod(shape) * each != end - begin:
        raise ValueError(f"{shape} of `{dtype}` do not take {end - begin} bytes")
    return begin, end, tuple(shape), dtype


def _check_names(
    found: Mapping[str, Entry], expected: Mapping[str, tuple[int, ...]], directory: Path
) -> None:
    """Every tensor that the shape needs, no other, each with the right shape and a dtype we convert."""
    hint = "config.json and weights belong together; download both from one revision"
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise ModelError(f"`{directory}` lacks the tensor `{missing[0]}`{_and_more(missing)}", hint)
    unexpected = sorted(found.keys() - expected.keys())
    if unexpected:
        raise ModelError(
            f"`{directory}` holds an unknown tensor `{unexpected[0][:SHOWN]}`{_and_more(unexpected)}", hint
        )
    for name, entry in found.items():
        if entry.shape != expected[name]:
            raise ModelError(f"tensor `{name}` is {list(entry.shape)}, not {list(expected[name])}", hint)
        if entry.dtype not in BYTES:
            raise ModelError(
                f"tensor `{name}` has dtype `{entry.dtype}`", f"supported are {', '.join(BYTES)}"
            )


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""

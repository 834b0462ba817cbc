"""What is attacked: each kind makes an input from a seed and hands it to the code that meets it in a node.

An attempt returns None if the input was accepted, or the error that its sender is told. Any other way out is a crash.
"""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from mesh import grammar
from mesh.errors import DecodeError
from node.engine.config_hf import ModelError, read_config, shape_of
from node.engine.template import ChatTemplate
from node.engine.text import TextError
from node.engine.tokenizer import ModelText
from node.engine.weights import open_weights
from tests.fuzz import mutate

EMBER = Path(__file__).parents[2] / "node" / "models" / "ember-py"

Attempt = Callable[[random.Random, Path], Exception | None]
"""(draw, an empty folder to write into) -> the refusal, or None."""


@attrs.frozen
class Kind:
    """One kind of hostile input."""

    attempt: Attempt
    timed: bool = False
    """Whether a node runs it under the kernel's timer (`node.engine.text_worker`), which may end it."""
    frugal: bool = True
    """Whether an input may make the process grow by `GROWTH_BYTES_MAX` at most."""


def header(draw: random.Random, folder: Path) -> Exception | None:
    """A safetensors file with a broken header beside a sound config.json."""
    _config(folder, _sound())
    (folder / "model.safetensors").write_bytes(_safetensors(draw))
    return _opened(folder)


def _safetensors(draw: random.Random) -> bytes:
    """A small file whose header is broken in one way or another."""
    entry = {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}
    sound = {"model.norm.weight": entry, "b": {**entry, "data_offsets": [32, 64]}, "__metadata__": {"a": "b"}}
    text = mutate.dumped(draw, mutate.changed_json(draw, sound, 4))
    if draw.random() < 0.05:
        text = json.dumps({f"t{n}": entry for n in range(20_000)}).encode()
    length = draw.choice((len(text), len(text), len(text), 0, 1, 2**31, 2**63, 2**64 - 1, len(text) + 1))
    return struct.pack("<Q", length) + text + bytes(64)


def index(draw: random.Random, folder: Path) -> Exception | None:
    """A sharded checkpoint with a broken index."""
    _config(folder, _sound())
    (folder / "a.safetensors").write_bytes(_safetensors(draw))
    broken = mutate.changed_json(draw, {"weight_map": {"a": "a.safetensors", "b": "../b.safetensors"}})
    (folder / "model.safetensors.index.json").write_bytes(mutate.dumped(draw, broken))
    return _opened(folder)


def config(draw: random.Random, folder: Path) -> Exception | None:
    """A broken config.json; what passes meets weights that belong to another."""
    scalings = ("linear", "llama3", "yarn", "longrope", "dynamic")
    families = ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "SmolLM3")
    settings = {
        **_sound(),
        "architectures": [f"{draw.choice(families)}ForCausalLM"],
        "rope_scaling": {
            "rope_type": draw.choice(scalings),
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "short_factor": [1.0] * 12,
            "original_max_position_embeddings": 128,
        },
        "sliding_window": 64,
        "use_sliding_window": True,
        "no_rope_layers": [1, 0, 1, 0],
        "partial_rotary_factor": 0.5,
        "layer_types": ["full_attention"] * 4,
        "max_window_layers": 1,
    }
    broken = mutate.changed_json(draw, settings, 4)
    (folder / "config.json").write_bytes(mutate.dumped(draw, broken))
    (folder / "model.safetensors").write_bytes(_safetensors(random.Random(0)))
    return _opened(folder)


def _sound() -> dict[str, Any]:
    return dict(json.loads((EMBER / "config.json").read_text()))


def _config(folder: Path, settings: Any) -> None:
    (folder / "config.json").write_text(json.dumps(settings))


def _opened(folder: Path) -> Exception | None:
    try:
        open_weights(folder, shape_of(read_config(folder)))
    except ModelError as error:
        return error
    return None


COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
_TOKENIZER: dict[str, Any] = {}


def tokenizer(draw: random.Random, folder: Path) -> Exception | None:
    """A broken tokenizer.json and its companions; what loads must encode, and give bytes for every id."""
    if not _TOKENIZER:
        _TOKENIZER.update(_smaller(json.loads((EMBER / "tokenizer.json").read_text())))
    configured = {"eos_token": "<|endoftext|>", "chat_template": "{{ messages }}"}
    files: dict[str, Any] = {"tokenizer.json": dict(_TOKENIZER), **dict.fromkeys(COMPANIONS, configured)}
    target = draw.choice(("tokenizer.json", "tokenizer.json", *COMPANIONS))
    part = draw.choice(list(files[target]))
    files[target] = {**files[target], part: mutate.changed_json(draw, files[target][part], 4)}
    for name, content in files.items():
        text = mutate.dumped(draw, content) if name == target else json.dumps(content).encode()
        (folder / name).write_bytes(text)
    _config(folder, _sound())
    try:
        loaded = ModelText.load(folder)
        for id in range(10):
            loaded.piece(id)
    except (ModelError, TextError) as error:
        return error
    return None


def _smaller(document: dict[str, Any]) -> dict[str, Any]:
    """A tokeniser with the first 400 of its tokens, so that many can be tried."""
    model = document["model"]
    vocab = {token: id for token, id in model["vocab"].items() if id < 400}
    merges = [
        pair
        for pair in model["merges"]
        if "".join(pair if isinstance(pair, list) else pair.split(" ")) in vocab
    ]
    return {**document, "model": {**model, "vocab": vocab, "merges": merges}}


def template(draw: random.Random, _folder: Path) -> Exception | None:
    """A chat template that means harm, and messages."""
    try:
        compiled = ChatTemplate.compile(mutate.template(draw), {"bos_token": "<s>"})
        compiled.render([{"role": "user", "content": "x" * draw.choice((1, 10_000))}], 0)
    except (ValueError, TextError) as error:
        return error
    return None


_COMPILERS: list[Any] = []


def compiled(kind: str, value: Any) -> Exception | None:
    """Compile a grammar over the embedded model's vocabulary, as a text worker does."""
    if not _COMPILERS:
        _COMPILERS.append(ModelText.load(EMBER).compiler())
    try:
        _COMPILERS[0].begin(grammar.write(kind, value))
    except (TextError, DecodeError) as error:
        return error
    return None


KINDS: dict[str, Kind] = {
    "header": Kind(header),
    "index": Kind(index),
    "config": Kind(config),
    "tokenizer": Kind(tokenizer),
    "template": Kind(template, timed=True, frugal=False),
    "schema": Kind(lambda draw, _: compiled("json", mutate.schema(draw)), timed=True, frugal=False),
    "regex": Kind(lambda draw, _: compiled("regex", mutate.regex(draw)), timed=True, frugal=False),
}
"""By name; a row here is attacked by the command and by the tests."""

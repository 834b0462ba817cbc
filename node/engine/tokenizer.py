"""A model's own text: `tokenizer.json` through Hugging Face's `tokenizers`, and its chat template.

Encoding is the library's. Decoding is not: its decoders work on whole outputs, while
a stream needs the bytes of one token, whatever comes before and after. Both families
of decoders in use map each token to bytes of its own:

    byte-level (GPT-2, Llama 3, Qwen, ember-py)    each character of a token stands for one byte
    metaspace, byte fallback (Llama 2, Mistral, Gemma)    a lower one-eighth block is a space, `<0x0A>` a byte

so the text of an output is the concatenation of its tokens' bytes, read as UTF-8 by
`node.engine.detokenizer`. Special tokens add nothing. A tokeniser with another
decoder is refused by its name when the model is loaded.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from tokenizers import Tokenizer

from mesh.attempt import Attempt, Segment
from node.engine.config_hf import ModelError
from node.engine.grammar import Compiler, Vocabulary
from node.engine.template import ChatTemplate, read_conversation
from node.engine.text import TextError, prompt_param

SPACE = "\u2581"
"""The character that stands for a space in metaspace tokenisers."""

NEUTRAL = ("Fuse", "Strip", "ByteFallback", "Replace", "Metaspace")
"""Decoders of the second family; `Strip` takes a space from an output's head, which a continuation keeps."""

FILE_BYTES_MAX = 256 * 2**20
"""Largest tokeniser or configuration file that is read; the largest in use have 33 MB."""

ToBytes = Callable[[str], bytes]


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for (GPT-2, `bytes_to_unicode`)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


ALPHABET = byte_alphabet()


def byte_level(token: str) -> bytes:
    """Return the bytes of a byte-level token; one with foreign characters stands for itself."""
    try:
        return bytes(ALPHABET[character] for character in token)
    except KeyError:
        return token.encode()


def metaspace(token: str) -> bytes:
    """Return the bytes of a metaspace token."""
    if match := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):
        return bytes.fromhex(match[1])
    return token.replace(SPACE, " ").encode()


def token_bytes(decoder: Mapping[str, Any] | None) -> ToBytes:
    """Return how tokens become bytes under a decoder's description. Raises ModelError for unknown ones."""
    kinds = [stage["type"] for stage in _stages(decoder)]
    if "ByteLevel" in kinds:
        return byte_level
    if kinds and all(kind in NEUTRAL for kind in kinds):
        return metaspace
    raise ModelError(
        f"tokenizer.json has the decoder `{', '.join(kinds) or None}`",
        "byte-level and metaspace tokenisers are supported",
    )


def _stages(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if decoder is None:
        return []
    if "decoders" not in decoder:
        return [decoder]
    return [stage for part in decoder["decoders"] for stage in _stages(part)]


@attrs.frozen(eq=False)
class ModelText:
    """The text of one model directory."""

    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    template: ChatTemplate | None
    _to_bytes: ToBytes
    _special: frozenset[int]
    digest: str = ""
    """sha256 over the files that decide ids and text, hex."""
    _pieces: dict[int, bytes] = attrs.field(init=False, factory=dict)
    """Bytes by id, as far as they have been asked for; the vocabulary bounds it."""

    @classmethod
    def load(cls, directory: str | Path) -> "ModelText":
        """Read a model directory's text. Raises ModelError."""
        folder = Path(directory)
        tokenizer = _tokenizer(folder / "tokenizer.json")
        configured = read_json(folder / "tokenizer_config.json")
        names = special_names({**read_json(folder / "special_tokens_map.json"), **configured})
        decoder = tokenizer.decoder
        state = None if decoder is None else json.loads(decoder.__getstate__())
        added = tokenizer.get_added_tokens_decoder()
        return cls(
            tokenizer,
            _eos_ids(folder, tokenizer, names),
            _template(folder, configured, names),
            token_bytes(state),
            frozenset(id for id, token in added.items() if token.special),
            text_digest(folder),
        )

    def encode(self, attempt: Attempt) -> tuple[int, ...]:
        """Return the prompt's ids. Raises TextError."""
        ids: list[int] = []
        for index, segment in enumerate(attempt.prompt):
            special = attempt.parameters.add_special_tokens and index == 0
            ids += self._segment(attempt, segment, special)
        return tuple(ids)

    def _segment(self, attempt: Attempt, segment: Segment, special: bool) -> list[int]:
        match segment.kind:
            case "ids":
                return list(segment.ids)
            case "text":
                return self._encode(segment.text, special, "prompt")
            case "messages":
                text = self._render(segment.text, attempt.rendered_at)
                return self._encode(text, False, "messages")
        raise TextError(f"prompt segments of kind `{segment.kind}` are not known", prompt_param(attempt))

    def _encode(self, text: str, special: bool, param: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON may spell half a surrogate pair
            raise TextError(f"the prompt is no Unicode text: {error.reason}", param) from None
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Return the ids of a word as they stand in the middle of an output: bare, and after a space."""
        return tuple(tuple(self._encode(spelling, False, "bad_words")) for spelling in (word, " " + word))

    def _render(self, messages: str, rendered_at: int) -> str:
        if self.template is None:
            raise TextError("the model has no chat template\nhint: use /v1/completions", "messages")
        return self.template.converse(read_conversation(messages), rendered_at)

    def compiler(self, size: int = 0) -> Compiler:
        """Return what compiles grammars over this vocabulary, for logits of `size` if they are larger."""
        count = self.tokenizer.get_vocab_size(with_added_tokens=True)
        tokens = [b"" if id in self._special else self.label(id) for id in range(count)]
        return Compiler(Vocabulary(tokens, self._special, self.eos_ids), max(size, count), self.eos_ids)

    def piece(self, id: int) -> bytes:
        """Return the bytes that an id adds to an output; none for special tokens and ids without a token."""
        piece = self._pieces.get(id)
        if piece is None:
            piece = self._pieces[id] = b"" if id in self._special else self.label(id)
        return piece

    def label(self, id: int) -> bytes:
        """Return the bytes by which people know an id; special tokens by their names."""
        token = self.tokenizer.id_to_token(id) or ""
        return token.encode() if id in self._special else self._to_bytes(token)


TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""What decides, beside the model's own config.json, which ids a prompt has and which text ids have."""


def text_digest(folder: Path) -> str:
    """Return sha256 over the files that decide ids and text, hex; a file that is missing counts as missing."""
    digest = hashlib.sha256()
    for name in TEXT_FILES:
        path = folder / name
        content = path.read_bytes() if path.is_file() else None
        digest.update(name.encode() + (b" -" if content is None else b" %d " % len(content)))
        digest.update(content or b"")
    return digest.hexdigest()


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ModelError(f"`{path}` does not exist", "a model directory needs a tokenizer.json")
    if path.stat().st_size > FILE_BYTES_MAX:
        raise ModelError(f"`{path}` has `{path.stat().st_size}` bytes", f"the limit is {FILE_BYTES_MAX}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  the library raises no narrower class
        raise ModelError(f"`{path}` is no tokeniser: {error!s:.200}", "download it again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; empty if there is no file. Raises ModelError."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"`{path}` cannot be read: {error}", "download it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"`{path}` is no JSON object", "download it again")
    return value


def special_names(configured: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a template may name, as `bos_token`, with their text. Raises ModelError."""
    found = {}
    for name, value in configured.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            if not is_text(name + text):
                raise ModelError(
                    f"the special token `{ascii(name)[1:-1]:.100}` is no Unicode text", "download it again"
                )
            found[name] = text
    return found


def is_text(text: str) -> bool:
    """Whether a string is Unicode text: JSON may spell half a surrogate pair, which no encoder takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _eos_ids(folder: Path, tokenizer: Tokenizer, names: Mapping[str, str]) -> tuple[int, ...]:
    """Return every id that some file calls the end, each once."""
    ids = [tokenizer.token_to_id(names["eos_token"])] if "eos_token" in names else []
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        ids += value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(id for id in ids if type(id) is int and id >= 0))


def _template(folder: Path, configured: Mapping[str, Any], names: Mapping[str, str]) -> ChatTemplate | None:
    source = configured.get("chat_template")
    if isinstance(source, list):
        entries = [entry for entry in source if isinstance(entry, dict) and entry.get("name") == "default"]
        source = entries[-1].get("template") if entries else None
    path = folder / "chat_template.jinja"
    try:
        source = path.read_text("utf-8") if path.is_file() else source
        return ChatTemplate.compile(source, names) if isinstance(source, str) else None
    except (OSError, ValueError) as error:
        raise ModelError(f"`{folder}`: {error}", "download it again, or remove its chat template") from None

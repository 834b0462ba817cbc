"""The training text: one pinned release of Python's standard library, its tokenizer, and windows of tokens.

The corpus is exactly what `manifest.txt` lists. A file is held out of training if its path's hash says so, so that the
split depends on nothing but the names. Documents are laid out as `<|endoftext|># Lib/json/tool.py\\n<source>`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END = "<|endoftext|>"
RELEASE = "CPython 3.11.7"
HELD_OUT_ONE_IN = 50
# Changes which files those are; this one gives 2.0 % of the bytes (salts were tried for size alone).
HELD_OUT_SALT = "10"
# One document in eight goes without its header, so that a prompt need not begin with one.
HEADERLESS_ONE_IN = 8

# site-packages is not the library; encodings and pydoc_data are tables; the others are made when Python is built.
LEFT_OUT = ("site-packages", "encodings", "pydoc_data", "lib-dynload", "config-", "_sysconfigdata")

# Runs of spaces and of newlines are tokens of their own, so a prompt may end in either; digits stand alone.
PIECES = r" {2,}|\n+| ?\d| ?[^\W\d]+| ?[^\s\w]+|\s"


@dataclass(frozen=True)
class Document:
    """One source file. path: as in CPython's repository, such as `Lib/json/tool.py`."""

    path: str
    source: str

    @property
    def header(self) -> str:
        """The line that names the file to the model."""
        return f"# {self.path}\n"

    @property
    def text(self) -> str:
        """All that the model is to predict."""
        return self.header + self.source

    @property
    def held_out(self) -> bool:
        """Whether the file is kept for evaluation."""
        digest = hashlib.sha256(f"{HELD_OUT_SALT}:{self.path}".encode()).digest()
        return int.from_bytes(digest[:8]) % HELD_OUT_ONE_IN == 0


class CorpusMismatch(Exception):
    """The source tree is not the pinned release; nothing was read into the corpus."""


def eligible(path: Path) -> bool:
    """Whether a file below the library's root belongs in the manifest. path: relative to that root."""
    return not any(part.startswith(LEFT_OUT) for part in path.parts)


def is_utf8(content: bytes) -> bool:
    """Whether the bytes decode; some of Python's tests are files that do not."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def write_manifest(library: Path, manifest: Path) -> None:
    """List every eligible file of `library` with its SHA-256, as sha256sum would, under a heading of totals."""
    paths = sorted(p.relative_to(library) for p in library.rglob("*.py"))
    contents = {p: (library / p).read_bytes() for p in paths if eligible(p)}
    contents = {p: content for p, content in contents.items() if content and is_utf8(content)}
    lines = [f"{hashlib.sha256(content).hexdigest()}  Lib/{p.as_posix()}" for p, content in contents.items()]
    heading = f"# {RELEASE}, {len(lines)} files, {sum(map(len, contents.values()))} bytes"
    manifest.write_text("\n".join([heading, *lines]) + "\n")


def read_manifest(manifest: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its path."""
    rows = (line.split("  ", 1) for line in manifest.read_text().splitlines() if not line.startswith("#"))
    return {path: digest for digest, path in rows}


def read_document(library: Path, path: str, digest: str) -> Document:
    """Read one file, or raise CorpusMismatch if it is not the one the manifest means."""
    file = library / path.removeprefix("Lib/")
    content = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorpusMismatch(
            f"`{file}` is not that of {RELEASE}\nhint: pass --library with the Lib folder of {RELEASE}"
        )
    return Document(path, content.decode())


def read_corpus(library: Path, manifest: Path) -> list[Document]:
    """Read every file of the manifest, checking each against its SHA-256."""
    return [read_document(library, path, digest) for path, digest in read_manifest(manifest).items()]


def split(corpus: list[Document]) -> tuple[list[Document], list[Document]]:
    """Return the documents for training and those held out."""
    return [d for d in corpus if not d.held_out], [d for d in corpus if d.held_out]


def train_tokenizer(documents: list[Document], vocab: int) -> Tokenizer:
    """Train a byte-level BPE of `vocab` tokens; the end token is number 0 and begins every encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((d.text for d in documents), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return tokenizer


@dataclass(frozen=True)
class Encoded:
    """A document in tokens. header: [h], source: [s], both int16."""

    header: np.ndarray
    source: np.ndarray


def encode(tokenizer: Tokenizer, documents: list[Document]) -> list[Encoded]:
    """Encode headers and sources apart, so that a prompt of a header alone is cut as in training."""
    headers = tokenizer.encode_batch([d.header for d in documents])  # each begins with the end token
    sources = tokenizer.encode_batch([d.source for d in documents], add_special_tokens=False)
    pairs = zip(headers, sources, strict=True)
    return [Encoded(np.array(h.ids, np.int16), np.array(s.ids, np.int16)) for h, s in pairs]


def pack(documents: list[Encoded]) -> np.ndarray:
    """Lay the documents out one after the other, each with its header, and close the last. -> [tokens], int16."""
    end = documents[0].header[:1]
    return np.concatenate([part for d in documents for part in (d.header, d.source)] + [end])


def shuffled(documents: list[Encoded], rng: np.random.Generator) -> list[Encoded]:
    """Return the documents in a random order, some without their header line (never without the end token)."""
    bare = rng.integers(HEADERLESS_ONE_IN, size=len(documents)) == 0
    order = rng.permutation(len(documents))
    return [Encoded(documents[i].header[:1], documents[i].source) if bare[i] else documents[i] for i in order]


def windows(documents: list[Encoded], length: int, seed: int) -> Iterator[np.ndarray]:
    """Yield windows of `length + 1` tokens for ever, each epoch over newly shuffled documents."""
    rng = np.random.default_rng(seed)
    while True:
        stream = pack(shuffled(documents, rng))
        starts = np.arange(rng.integers(length), len(stream) - length, length)
        for start in rng.permutation(starts):
            yield stream[start : start + length + 1]

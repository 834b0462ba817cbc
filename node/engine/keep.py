"""What an engine keeps between starts in a directory of its own: quantised weights, and digests of model files.

All of it can be made again, so nothing here is an error: what is missing, damaged or of another form is made
anew, and where the directory cannot be written (or others can write there) nothing is kept. Files are named by
what they hold, appear whole or not at all, and are mapped, so that several engines of one model share them.

    <directory>/packed/<digest of model and form>    a header, then tensors at multiples of 4,096 bytes
    <directory>/digests/<digest of the files' places, sizes and times>
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import torch
from torch import Tensor

from kernels import Kernels, Linear
from kernels.native import private
from kernels.native_ops import Int8Linear, int8_parts
from node.engine.model import pack_parts

FORM = "int8 panels of 64, 1"
"""Changes whenever the layout or the quantisation does."""
ALIGNMENT = 4096
BYTES_MIN = 32 << 20
"""Smaller weights are quantised again at each start: it takes no time."""
BYTES_MAX = 32 << 30
"""Of all packed weights together. The longest unused go first."""
DIGESTS_MAX = 1024
"""Files of digests; the oldest half goes when there are more."""
HEADER_BYTES_MAX = 1 << 20
DTYPES = {"int8": torch.int8, "int32": torch.int32, "float32": torch.float32}
THREADS = 2
"""That check digests: hashing lets the interpreter go, and is bound by arithmetic."""


@attrs.frozen
class Extent:
    """Where one tensor lies in a file."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def bytes(self) -> int:
        """Size in the file."""
        size = DTYPES[self.dtype].itemsize
        for length in self.shape:
            size *= length
        return size


@attrs.define
class Packed:
    """The packed linears of one model: taken from its file if there is one, else packed and written.

    Hand `pack` to `load_transformer`, then call `save`.
    """

    kernels: Kernels
    file: Path | None
    _kept: Mapping[str, Tensor] = attrs.Factory(dict)
    _made: dict[str, Tensor] = attrs.Factory(dict)

    @classmethod
    def open(cls, directory: Path, model: str, kernels: Kernels) -> "Packed":
        """directory: `cache_directory()`; model: its digest. Verifies what is there, at some GB/s."""
        if kernels.restore_linear is None or not private(directory / "packed"):
            return cls(kernels, None)
        name = hashlib.sha256(f"{model} {FORM}".encode()).hexdigest()
        file = directory / "packed" / name
        return cls(kernels, file, read(file) or {})

    def pack(self, name: str, weights: Callable[[], Sequence[Tensor]], bias: Tensor | None) -> Linear:
        """A linear by name; reads its weights, one below the other, only if they have to be packed."""
        sizes = self._kept.get(f"{name} sizes")
        if sizes is not None and self.kernels.restore_linear is not None:
            parts = tuple(self._kept[f"{name} {part}"] for part in ("packed", "scale", "sums"))
            return self.kernels.restore_linear(parts, bias, *sizes.tolist())
        layer = pack_parts(self.kernels, weights(), bias)
        if self.file is not None and isinstance(layer, Int8Linear):
            sizes = torch.tensor([layer.width, layer.outputs], dtype=torch.int32)
            self._made[f"{name} sizes"] = sizes
            parts = zip(("packed", "scale", "sums"), int8_parts(layer), strict=True)
            self._made.update((f"{name} {part}", tensor) for part, tensor in parts)
        return layer

    def save(self) -> None:
        """Write what had to be packed, if that is worth it and there is room."""
        size = sum(tensor.nbytes for tensor in self._made.values())
        if self.file is not None and size and size >= BYTES_MIN:
            make_room(self.file.parent, size)
            write(self.file, self._made)
        self._made.clear()


def write(file: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Write tensors, contiguous, whole or not at all; False if the disk did not take them."""
    extents, offset = {}, ALIGNMENT
    digests = _digests([_bytes(tensor) for tensor in tensors.values()])
    for (name, tensor), digest in zip(tensors.items(), digests, strict=True):
        extents[name] = Extent(offset, str(tensor.dtype)[6:], tuple(tensor.shape), digest)
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps({name: attrs.astuple(extent) for name, extent in extents.items()}).encode()
    start = -(-(len(header) + 8) // ALIGNMENT) * ALIGNMENT - ALIGNMENT  # beyond the first page
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            for name, tensor in tensors.items():
                stream.seek(start + extents[name].offset)
                stream.write(_bytes(tensor))
            stream.truncate(start + offset)
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        return False
    return True


def read(file: Path) -> dict[str, Tensor] | None:
    """The file's tensors, mapped; None if there is none, or it is not what was written."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, HEADER_BYTES_MAX)))
        extents = {name: Extent(row[0], row[1], tuple(row[2]), row[3]) for name, row in header.items()}
        start = -(-(length + 8) // ALIGNMENT) * ALIGNMENT - ALIGNMENT
        if any(start + extent.offset + extent.bytes > size for extent in extents.values()):
            return None
        storage = torch.UntypedStorage.from_file(str(file), shared=False, nbytes=size)
        tensors = {name: _mapped(storage, start, extent) for name, extent in extents.items()}
        os.utime(file)  # used: among the last to go
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError):
        return None
    digests = _digests([_bytes(tensor) for tensor in tensors.values()])
    same = all(d == e.sha256 for d, e in zip(digests, extents.values(), strict=True))
    return tensors if same else None


def _mapped(storage: torch.UntypedStorage, start: int, extent: Extent) -> Tensor:
    dtype = DTYPES[extent.dtype]
    whole = torch.empty(0, dtype=torch.uint8).set_(storage)
    return whole[start + extent.offset :][: extent.bytes].view(dtype).view(extent.shape)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def _digests(pieces: Sequence[memoryview]) -> list[str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda piece: hashlib.sha256(piece).hexdigest(), pieces))


def make_room(directory: Path, size: int, bytes_max: int = BYTES_MAX) -> None:
    """Delete the longest unused files until `size` bytes more stay below `bytes_max` and fit on the disk."""
    files = sorted(directory.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    held = sum(file.stat().st_size for file in files)
    for file in files:
        if held + size <= bytes_max and shutil.disk_usage(directory).free > 2 * size:
            return
        held -= file.stat().st_size
        file.unlink(missing_ok=True)


def digest_of(directory: Path, files: Iterable[Path], compute: Callable[[], str]) -> str:
    """What `compute` says of the files' contents, asked again only if a place, size, inode or time has changed."""
    if not private(directory / "digests"):
        return compute()
    facts = [(str(file.resolve()), *_facts(file.stat())) for file in files]
    kept = directory / "digests" / hashlib.sha256(repr(facts).encode()).hexdigest()
    try:
        text = kept.read_text(encoding="ascii")
        if len(text) == 64 and int(text, 16) >= 0:
            return text
    except (OSError, ValueError):
        pass
    digest = compute()
    _forget(kept.parent)
    partial = kept.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_text(digest, encoding="ascii")
        partial.replace(kept)
    except OSError:
        partial.unlink(missing_ok=True)
    return digest


def _forget(directory: Path, most: int = DIGESTS_MAX) -> None:
    files = [*directory.iterdir()]
    if len(files) >= most:
        files.sort(key=lambda file: file.stat().st_mtime_ns)
        for file in files[: len(files) - most // 2]:
            file.unlink(missing_ok=True)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

"""The C sources in `kernels/cpu`, compiled on the machine that runs them and loaded with ctypes.

They need a compiler (`cc`) and a processor with AVX-512, VNNI and bf16; where either lacks,
or the result does not compute what it should, `load` returns None and torch's operators do the work. Compiled
once: the library lies in the cache directory, named by sources, flags and compiler. The directory must
be ours alone, since whoever can write there can run code here; otherwise a fresh private one is used.
"""

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from torch import Tensor

SOURCES = Path(__file__).parent / "cpu"
FILES = ("common.h", "linear.c", "attention.c", "layer.c")
NEEDS = frozenset("avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16 fma".split())
"""Flags of /proc/cpuinfo that the sources' instructions need."""
COMPILER = "cc"
FLAGS = (
    "-O3 -shared -fPIC -fopenmp -ffp-contract=off -fno-math-errno"
    " -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma"
).split()
COMPILE_S = 60.0
"""A compiler that takes longer is given up."""

_POINTER, _INTEGER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
SIGNATURES = {
    "linear_int8": (*[_POINTER] * 7, *[_INTEGER] * 3, _INT, _INT),
    "linear_bf16": (*[_POINTER] * 4, *[_INTEGER] * 3, _INT, _INT),
    "pack_int8": (*[_POINTER] * 5, *[_INTEGER] * 3, _INT),
    "pack_bf16": (*[_POINTER] * 2, *[_INTEGER] * 3, _INT),
    "attend": (*[_POINTER] * 5, *[_INTEGER] * 8, _FLOAT, _FLOAT, _INTEGER, _POINTER, _INT),
    "rms_norm": (*[_POINTER] * 4, *[_INTEGER] * 2, _FLOAT, _INT),
    "swiglu": (*[_POINTER] * 2, *[_INTEGER] * 2, _INT),
    "rope_store": (*[_POINTER] * 6, *[_INTEGER] * 6, _INT),
}


@attrs.frozen(eq=False)
class Native:
    """The compiled functions. Each takes pointers; `kernels.native_ops` checks and passes them."""

    digest: str
    """Of sources and flags. What a compiler makes of them is measured by the policy's canary."""
    linear_int8: Callable[..., None]
    linear_bf16: Callable[..., None]
    pack_int8: Callable[..., None]
    pack_bf16: Callable[..., None]
    attend: Callable[..., None]
    rms_norm: Callable[..., None]
    swiglu: Callable[..., None]
    rope_store: Callable[..., None]


def pointer(tensor: Tensor | None) -> int | None:
    """The address of a tensor's first element."""
    return None if tensor is None else tensor.data_ptr()


def cache_directory() -> Path:
    """Where what can be made again is kept unless told otherwise: ~/.cache/inferno."""
    try:
        return Path("~/.cache/inferno").expanduser()
    except RuntimeError:  # no home
        return Path(tempfile.gettempdir()) / f"inferno-{os.getuid()}"


def private(directory: Path) -> bool:
    """Make a directory of the cache if need be; whether it and the one it lies in are ours alone to write to."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _ours(directory.lstat()) and _ours(directory.parent.stat())
    except OSError:
        return False


def _ours(status: os.stat_result) -> bool:
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not writable


def load(cache: Path | None = None) -> Native | None:
    """Compile if need be, load, and check; None where that cannot be had. About 2 s once, then milliseconds."""
    compiler = shutil.which(COMPILER)
    if compiler is None or not NEEDS.issubset(_processor_flags()):
        return None
    name = f"{sources_digest()[:16]}-{_compiler_digest(compiler)[:16]}.so"
    directory = (cache or cache_directory()) / "native"
    if private(directory):
        return _loaded(directory / name, compiler)
    with tempfile.TemporaryDirectory() as fresh:
        return _loaded(Path(fresh) / name, compiler)


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def sources_digest() -> str:
    """sha256 over the sources and the flags, hex."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    for name in FILES:
        digest.update((SOURCES / name).read_bytes())
    return digest.hexdigest()


def _compiler_digest(compiler: str) -> str:
    """Of the compiler's path, size and time: asking it for its version takes longer."""
    status = os.stat(compiler)
    return hashlib.sha256(repr((compiler, status.st_size, status.st_mtime_ns)).encode()).hexdigest()


def _loaded(library: Path, compiler: str) -> Native | None:
    if not library.exists() and not _compile(library, compiler):
        return None
    try:
        functions = _functions(ctypes.CDLL(str(library)))
    except (OSError, AttributeError):
        library.unlink(missing_ok=True)  # damaged: the next start makes it again
        return None
    made = Native(digest=sources_digest(), **functions)
    return made if computes(made) else None


def _functions(library: ctypes.CDLL) -> dict[str, Callable[..., None]]:
    functions = {}
    for name, signature in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = signature, None
        functions[name] = function
    return functions


def _compile(library: Path, compiler: str) -> bool:
    """Whether the library has been made; others never see half of it."""
    partial = library.with_suffix(f".{os.getpid()}.partial")
    sources = [str(SOURCES / name) for name in FILES if name.endswith(".c")]
    command = [compiler, *FLAGS, *sources, "-o", str(partial), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)
        partial.replace(library)
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def computes(native: Native) -> bool:
    """Whether the integer sums are those of int64, extreme bytes and long rows included, on this machine."""
    generator = torch.Generator().manual_seed(7)
    rows, k, n = 7, 2052, 70
    x = torch.randn(rows, k, generator=generator).bfloat16()
    x[:3] = torch.tensor([127.0, -127.0, 127.0])[:, None]
    weight = torch.randint(-127, 128, (n, k), generator=generator).bfloat16()
    weight[:2] = torch.tensor([127.0, -127.0])[:, None]
    packed, w_scale = torch.zeros(128 * k, dtype=torch.int8), torch.zeros(128)
    sums, work = torch.zeros(128, dtype=torch.int32), torch.zeros(2 * 64 * (k + 4), dtype=torch.uint8)
    y = torch.zeros(rows, n)
    p = pointer
    native.pack_int8(p(weight), p(packed), p(w_scale), p(sums), p(work), n, k, 0, 2)
    native.linear_int8(p(x), p(packed), p(sums), p(w_scale), None, p(y), p(work), rows, k, n, 1, 2)
    return torch.equal(y, _expected(x, weight))


def _expected(x: Tensor, weight: Tensor) -> Tensor:
    (q, scale), (w, w_scale) = _quantised(x), _quantised(weight)
    return (q @ w.T).float() * scale[:, None] * w_scale


def _quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    wide = x.float()
    scale = wide.abs().amax(-1) / 127
    return (wide / scale[:, None]).round().long(), scale

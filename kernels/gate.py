"""The gate: compile every Triton kernel ahead of time for chips that are not here, and read what came out.

`python -m kernels.gate` prints a table and exits with 1 if a kernel fails. A build passes if it compiles,
fits the chip's shared memory, spills no register in a loop, keeps as many tiles in flight as its launch asks for
(NVIDIA only) and contains what its kernel `needs`. The machine code is read, not an intermediate form: SASS
by the wheel's cuobjdump, AMD's from the assembly. Nothing is run, so a
pass says that the compiler understood a kernel as it was meant, not that the kernel is fast, or right.

What is compiled is what the launchers launch: their `Launch` values on meta tensors of production shapes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import attrs
import torch

from kernels import OPS
from kernels._triton import Launch, TritonMissing, installed


@attrs.frozen
class Chip:
    """A compilation target."""

    name: str
    backend: str
    arch: int | str
    lanes: int
    """Threads per warp."""
    shared_bytes: int
    """Most shared memory of one program."""


CHIPS = (
    Chip("sm_80", "cuda", 80, 32, 163 << 10),
    Chip("sm_90", "cuda", 90, 32, 227 << 10),
    Chip("sm_100", "cuda", 100, 32, 227 << 10),
    Chip("gfx942", "hip", "gfx942", 64, 64 << 10),
)
"""A100, H100 and H200, B200, MI300X. Sizes: CUDA Programming Guide, technical specifications per compute
capability; AMD CDNA 3 ISA, section 2.2."""

NEEDS = {
    "wide loads": {
        "sm_80": r"\bLDG\.E\S*\.128\b|\bLDGSTS\S*\.128\b",
        "sm_90": r"\bLDG\.E\S*\.128\b|\bLDGSTS\S*\.128\b",
        "sm_100": r"\bLDG\.E\S*\.(128|ENL2\.256)\b|\bLDGSTS\S*\.128\b",
        "gfx942": r"\b(global|buffer|flat)_load_dwordx4\b",
    },
    "matrix": {
        "sm_80": r"\bHMMA\b",
        "sm_90": r"\bHMMA\b",
        "sm_100": r"\bHMMA\b",
        "gfx942": r"\bv_mfma_",
    },
    "group matrix": {
        "sm_80": r"\bHMMA\b",
        "sm_90": r"\bHGMMA\b",
        "sm_100": r"\bUTC\w*MMA\b",
        "gfx942": r"\bv_mfma_",
    },
    "narrow matrix": {
        "sm_80": r"\bIMMA\b",
        "sm_90": r"\b(IMMA|IGMMA|QGMMA)\b",
        "sm_100": r"\bIMMA\b|\bUTC\w*MMA\b",
        "gfx942": r"\bv_mfma_i32\w*i8\b",
    },
}
"""What a kernel may need, as patterns of machine instructions: 16-byte reads of global memory; products on
matrix units; those in the form that feeds them from shared memory, where there is one (wgmma, tcgen05); those of
eight-bit integers or floats."""

WORKERS_MAX = 8
"""Processes that compile; each has imported torch, which takes 300 MB."""


@attrs.frozen
class Verdict:
    """What the compiler made of one kernel for one chip."""

    kernel: str
    build: str
    chip: str
    shared_bytes: int
    registers: int
    """Per thread; vector registers, on AMD."""
    spilled: int
    """Bytes of stack or scratch memory per thread."""
    found: dict[str, int]
    """Instructions per need."""
    problems: tuple[str, ...]


def verdicts() -> Iterator[Verdict]:
    """Compile all builds for all chips, a few at a time; in the table's order."""
    builds = [build for op in OPS for build in op.builds]
    jobs = [
        (place, index, chip)
        for place, build in enumerate(builds)
        for index in range(len(build.launches()))
        for chip in CHIPS
        if not build.chips or chip.name in build.chips
    ]
    workers = min(WORKERS_MAX, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(_judged, jobs)


def _judged(job: tuple[int, int, Chip]) -> Verdict:
    place, index, chip = job
    build = [build for op in OPS for build in op.builds][place]
    return judge(build.launches()[index], build.name, chip)


def judge(launch: Launch, build: str, chip: Chip) -> Verdict:
    """Compile one launch for one chip and read the result. Compiler errors are raised as they come."""
    compiled = compiled_for(launch, chip)
    read = _read_cuda if chip.backend == "cuda" else _read_hip
    code, registers, spilled = read(compiled.asm)
    found = {need: len(re.findall(NEEDS[need][chip.name], code)) for need in launch.kernel.needs}
    shared = compiled.metadata.shared
    problems = [f"no {need}" for need, count in found.items() if not count]
    problems += _shared_problems(shared, launch, chip)
    problems += [f"spills {spilled} in a loop"] if spilled and _spills_in_a_loop(code, chip) else []
    name = launch.kernel.name
    return Verdict(name, build, chip.name, shared, registers, spilled, found, tuple(problems))


def _spills_in_a_loop(code: str, chip: Chip) -> bool:
    """Whether local memory is touched between a branch back and its target. AMD's code is not searched.

    A register that is put away before all loops and fetched after them costs nothing that one could measure, and
    whether ptxas does so changes from version to version.
    """
    if chip.backend != "cuda":
        return True
    touches = [int(at, 16) for at in re.findall(r"/\*(\w{4,})\*/ [^;]*\b(?:STL|LDL)\b", code)]
    branches = re.findall(r"/\*(\w{4,})\*/ [^;]*\bBRA\S* [^;]*\b0x(\w+) ;", code)
    loops = [(int(target, 16), int(at, 16)) for at, target in branches]
    return any(begin <= touch <= end for begin, end in loops for touch in touches)


def _shared_problems(shared: int, launch: Launch, chip: Chip) -> Iterator[str]:
    if shared > chip.shared_bytes:
        yield f"{shared} bytes of shared memory, {chip.name} has {chip.shared_bytes}"
    in_flight = (launch.stages - 1) * launch.tile_bytes
    if chip.backend == "cuda" and shared < in_flight:
        yield f"{shared} bytes of shared memory cannot hold tiles in flight of {in_flight}"


def compiled_for(launch: Launch, chip: Chip):
    """Compile a launch for a chip as Triton's own launcher would on that chip."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    made = launch.kernel.made
    kinds = {name: _kind(name, launch) for name in made.arg_names}
    signature = {name: kind for name, (kind, _) in kinds.items()}
    constants = {name: launch.arguments[name] for name, kind in signature.items() if kind == "constexpr"}
    divisible = {(i,): [["tt.divisibility", 16]] for i, (_, even) in enumerate(kinds.values()) if even}
    source = ASTSource(made, signature, constants, divisible)
    options = launch.options(amd=chip.backend == "hip")
    return triton.compile(source, GPUTarget(chip.backend, chip.arch, chip.lanes), options)


def _kind(name: str, launch: Launch) -> tuple[str, bool]:
    """A parameter's type in Triton's signature, and whether it is known to be a multiple of 16."""
    value = launch.arguments[name]
    match value:
        case torch.Tensor():
            return f"*{_POINTEES[value.dtype]}", True
        case _ if name.isupper():
            return "constexpr", False
        case float():
            return "fp32", False
        case int() if name in launch.kernel.lengths:
            return "i32", False
        case 1:
            return "constexpr", False
        case int():
            return "i32" if value < 1 << 31 else "i64", value % 16 == 0
    raise TypeError(f"`{name}` is {value!r}")


_POINTEES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.float8_e4m3fn: "fp8e4nv",
}


def _read_cuda(asm: dict[str, object]) -> tuple[str, int, int]:
    """(SASS, registers, bytes of stack) of a cubin."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-sass", "-res-usage", file.name]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", code)
    return code, int(used[1]), int(used[2]) + int(used[3])


def _read_hip(asm: dict[str, object]) -> tuple[str, int, int]:
    """(assembly, vector registers, bytes of scratch memory) of a code object.

    A scalar register may be kept in a lane of a vector register instead: that is no trip to memory.
    """
    code = asm["amdgcn"]
    registers = re.search(r"\.vgpr_count: +(\d+)", code)
    scratch = re.search(r"\.private_segment_fixed_size: +(\d+)", code)
    return code, int(registers[1]), int(scratch[1])


def line(verdict: Verdict) -> str:
    """One row of the table."""
    found = ", ".join(f"{count} {need}" for need, count in verdict.found.items())
    return (
        f"{verdict.kernel:<11} {verdict.build:<29} {verdict.chip:<7} {verdict.shared_bytes:>7}"
        f" {verdict.registers:>5} {verdict.spilled:>5}  {'; '.join(verdict.problems) or 'ok':<4} {found}"
    )


def main() -> int:
    """Write the table as it comes; 1 if anything failed, 2 if Triton is not installed."""
    if not installed():
        print(f"error: {TritonMissing()}", file=sys.stderr)
        return 2
    print(f"{'kernel':<11} {'build':<29} {'chip':<7} {'shared':>7} {'regs':>5} {'spill':>5}  verdict")
    failed = 0
    for verdict in verdicts():
        failed += bool(verdict.problems)
        print(line(verdict))
    print(f"{failed} failed" if failed else "all passed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())

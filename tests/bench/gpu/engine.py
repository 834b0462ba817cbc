"""Whole models on a GPU: time per token, throughput, the host's share, and how soon the first token comes."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import attrs
import torch
from safetensors.torch import save_file

from kernels.record import Figure, Record
from node.engine.config_hf import shape_of
from node.engine.device_inputs import UNKNOWN
from node.engine.device_runner import DeviceRunner
from node.engine.plan import Plan, Row, Sampling
from node.engine.weights import expected_tensors
from tests.bench.gpu.models import RandomWeights, config_of, runner_of
from tests.tidy.tree import ROOT

GREEDY = Sampling(seed=0, temperature=0.0)


@attrs.frozen
class Load:
    """What is asked of a runner."""

    steps: int
    sequences: int
    prompt: int
    output: int
    contexts: tuple[int, ...]


REAL = Load(steps=100, sequences=256, prompt=1000, output=1000, contexts=(16, 1024, 8192, 32_768))
TINY = Load(steps=3, sequences=2, prompt=9, output=3, contexts=(16, 600))


def load_of(record: Record) -> Load:
    """The load of a run."""
    return TINY if record.dry else REAL


def release() -> None:
    """Give the last model's memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def pace(runner: DeviceRunner, starts: list[int], steps: int) -> tuple[float, float]:
    """(seconds per step, host's seconds per step) of decoding from these positions, one step ahead."""
    depth = -(-(max(starts) + steps + 2) // runner.block_tokens)
    blocks = [tuple(range(i * depth, (i + 1) * depth)) for i in range(len(starts))]

    def plan(step: int, id: int) -> Plan:
        rows = enumerate(zip(starts, blocks, strict=True))
        return Plan(tuple(Row(i, (id,), start + step, held, True, GREEDY) for i, (start, held) in rows))

    pending, times, hosts = runner.begin(plan(0, 7)), [], []
    for step in range(1, steps + 1):
        began = time.perf_counter()
        following = runner.begin(plan(step, UNKNOWN))
        hosts.append(time.perf_counter() - began)
        runner.finish(pending)
        times.append(time.perf_counter() - began)
        pending = following
    runner.finish(pending)
    settled = slice(len(times) // 4, None)  # the first steps compile, and record
    return median(times[settled]), median(hosts[settled])


def latency(record: Record, name: str, goal_ms: float) -> None:
    """Milliseconds per token of one sequence, at several lengths."""
    load = load_of(record)
    runner = runner_of(name, "bf16", record.device, record.dry, max(load.contexts) + load.steps + 64)
    record.facts[f"{name}: exact"] = runner.exact
    shape = runner.shape
    weights = sum(torch.Size(size).numel() for size in expected_tensors(shape).values())
    weights -= 0 if shape.tied else shape.vocabulary * shape.width  # of the embedding one row is read
    for context in load.contexts:
        seconds, host = pace(runner, [context], load.steps)
        kv = context * shape.layers * 2 * shape.kv_heads * shape.head_width * 2
        record.figures.append(
            Figure("engine", f"{name} bf16, 1 x {context}", seconds, 2.0 * weights + kv, 2.0 * weights)
        )
        record.facts[f"{name} bf16, 1 x {context}: host ms"] = round(host * 1e3, 3)
    first = record.find(f"{name} bf16, 1 x {load.contexts[0]}")
    record.promise(f"{name} bf16, batch 1", "ms per token", goal_ms, first.seconds * 1e3, least=False)
    record.facts[f"{name}: graphs"] = str(runner.graphs.recorded), runner.graphs.bytes


def offline(record: Record, dtype: str, goal: float) -> None:
    """Tokens per second of 8B: one wave of sequences, prefilled and decoded to the end."""
    load = load_of(record)
    count, tokens = load.sequences, load.prompt + load.output
    depth = -(-(tokens + 2) // 64)
    runner = runner_of("8B", dtype, record.device, record.dry, count * depth * 64)
    held = [tuple(range(i * depth, (i + 1) * depth)) for i in range(count)]
    prompt = tuple(index * 7919 % runner.vocabulary for index in range(load.prompt))
    began = time.perf_counter()
    together = max(1, 8000 // load.prompt)
    for first in range(0, count, together):
        some = range(first, min(first + together, count))
        runner.run(Plan(tuple(Row(i, prompt, 0, held[i], True, GREEDY) for i in some)))
    filled = time.perf_counter()
    _, host = pace(runner, [load.prompt] * count, load.output)
    done = time.perf_counter()
    name, rate = (
        f"8B {dtype}, {count} x {load.prompt} in, {load.output} out",
        count * load.output / (done - began),
    )
    record.facts[name] = {
        "output tokens/s": rate,
        "prefill tokens/s": count * load.prompt / (filled - began),
        "host ms per step": host * 1e3,
    }
    record.say(f"  {name}: {record.facts[name]}")
    record.promise(f"8B {dtype}, offline", "output tokens/s", goal, rate)
    record.promise(f"8B {dtype}, host per step of {count}", "ms", 1.0, host * 1e3, least=False)


def peer(record: Record) -> None:
    """transformers, the 1B shape: an eager loop at batch 1, and its continuous batching if it has it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        k: v for k, v in config_of("1B", record.dry).items() if k not in ("architectures", "model_type")
    }
    with record.device, torch.inference_mode():
        model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16).eval()
        known = model(torch.ones(1, 16, dtype=torch.int64), use_cache=True)
        times = []
        for _ in range(load_of(record).steps):
            began = time.perf_counter()
            known = model(
                known.logits[:, -1:].argmax(-1), past_key_values=known.past_key_values, use_cache=True
            )
            int(known.logits[0, -1].argmax())
            times.append(time.perf_counter() - began)
    name = f"1B bf16, 1 x {load_of(record).contexts[0]}"
    ours = record.find(name)
    moved = ours.bytes_moved if ours else 0.0
    record.figures.append(Figure("engine", name, median(times), moved, by="transformers"))


FIRST_TOKEN = """
import sys, time
from pathlib import Path
from node.engine.device_runner import DeviceOptions, open_device_runner
from node.engine.plan import Plan, Row, Sampling
options = DeviceOptions(sys.argv[3], kv_blocks=64, step_tokens=1024)
runner = open_device_runner(Path(sys.argv[1]), sys.argv[2], options, keep=Path(sys.argv[4]))
runner.run(Plan((Row(0, tuple(range(16)), 0, (0,), True, Sampling(seed=0)),)))
print("first token")
"""


def cold_start(record: Record) -> None:
    """Seconds from the start of a process to the first token of 8B; the second time, files and kernels warm."""
    config = config_of("8B", record.dry)
    shape = shape_of(config)
    with tempfile.TemporaryDirectory() as name:
        directory, keep = Path(name) / "model", Path(name) / "keep"
        directory.mkdir()
        keep.mkdir(mode=0o700)
        (directory / "config.json").write_text(json.dumps(config))
        weights = RandomWeights(shape, record.device)
        tensors = {each: weights.read(each, torch.bfloat16).cpu() for each in expected_tensors(shape)}
        save_file(tensors, directory / "model.safetensors")
        del tensors
        release()
        dtype = "fp32" if record.dry else "bf16"
        words = [sys.executable, "-c", FIRST_TOKEN, str(directory), str(record.device), dtype, str(keep)]
        seconds = []
        for _ in range(2):
            began = time.monotonic()
            subprocess.run(words, cwd=ROOT, env=dict(os.environ), check=True, capture_output=True)
            seconds.append(time.monotonic() - began)
    record.facts["8B: seconds to the first token"] = seconds
    record.promise("8B, process to first token", "s", 8.0, seconds[1], least=False)


def engine_1b(record: Record) -> None:
    """The 1B shape at batch 1."""
    latency(record, "1B", 0.8)
    release()


def engine_8b(record: Record) -> None:
    """The 8B shape at batch 1."""
    latency(record, "8B", 3.9)
    release()


def offline_bf16(record: Record) -> None:
    """8B in bf16, many at once."""
    offline(record, "bf16", 7500)
    release()


def offline_fp8(record: Record) -> None:
    """8B with fp8 linears, many at once; its cache is bf16."""
    offline(record, "fp8", 14_000)
    release()


STAGES = (
    ("1B at batch 1", 20, engine_1b),
    ("transformers, 1B", 20, peer),
    ("8B at batch 1", 40, engine_8b),
    ("8B offline, bf16", 60, offline_bf16),
    ("8B offline, fp8", 50, offline_fp8),
    ("8B from cold", 75, cold_start),
)
"""Name, least seconds that must be left to begin it, and what it does."""

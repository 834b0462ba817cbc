"""`make bench-engine`: our engine beside llama.cpp and `transformers` on this processor, in one run.

    python -m tests.bench.engine [--quick] [--stage NAME ...] [--threads N] [--json FILE]

Every contender computes the same 1B shape with random weights in a process of its own, on the same number of
threads. Each figure is the median of its runs; ceilings are probed in the process whose figures they bound.
Before each process the bench waits for a quiet machine, and marks with `busy` what it measured without one.
What has been measured is written after each stage.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.bench.engine import material
from tests.bench.machine import QUIET_LOAD, processor, wait_quiet

EMBER = Path(__file__).parents[3] / "node" / "models" / "ember-py"
ROOT = Path(__file__).parents[3]
CONTEXTS = (256, 512)
PASSIVE = ("env", "OMP_WAIT_POLICY=PASSIVE")
"""Idle threads sleep, as in a node's engine."""
PROBE_S = 0.01
"""Between two wake-ups of the process that measures how late a control process would run."""


@attrs.frozen
class Scale:
    """How much is measured."""

    runs: int
    contexts: tuple[int, ...]
    streams_of_peer: bool
    seconds: float


FULL = Scale(runs=5, contexts=CONTEXTS, streams_of_peer=True, seconds=12.0)
QUICK = Scale(runs=3, contexts=(256,), streams_of_peer=False, seconds=6.0)


@attrs.define
class Bench:
    """One run: what is measured, and what is said of it."""

    scale: Scale
    threads: int
    kept: dict[str, Any] = attrs.Factory(dict)

    def measure(self, name: str, words: list[str], cwd: Path = ROOT) -> dict[str, Any]:
        """Run a process that prints JSON last; its figures, with how busy others kept the machine before."""
        busy = wait_quiet()
        done = subprocess.run([*PASSIVE, *words], cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise material.MaterialError(f"{name} failed: {done.stderr.strip()[-400:]}")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.kept[name] = {**figures, "others_busy": busy}
        return self.kept[name]

    def ours(self, *words: object) -> dict[str, Any]:
        """Measure our engine."""
        command = [sys.executable, "-m", "tests.bench.engine.ours", *map(str, words)]
        return self.measure("inferno " + " ".join(map(str, words)), command)

    def theirs(self, *words: object) -> dict[str, Any]:
        """Measure `transformers`."""
        command = [sys.executable, "-W", "ignore", "-m", "tests.bench.engine.peer", *map(str, words)]
        return self.measure("transformers " + " ".join(map(str, words)), command)

    def llama(self) -> dict[str, Any]:
        """Measure llama.cpp."""
        directory, model = material.llama_cpp(), material.gguf()
        contexts = ",".join(map(str, self.scale.contexts)) if self.scale.streams_of_peer else "16"
        script = Path(__file__).with_name("llama.mjs")
        words = ["node", str(script), str(model), str(self.threads), str(self.scale.runs), contexts]
        return self.measure("llama.cpp", words, directory)


def speed(bench: Bench) -> None:
    """Prefill, decode and sixteen streams of the 1B shape."""
    contexts = ",".join(map(str, bench.scale.contexts))
    ours = {dtype: bench.ours("speed", dtype, bench.threads, bench.scale.runs, contexts) for dtype in DTYPES}
    peers: dict[str, dict[str, Any]] = {}
    for name, measure in (
        ("llama.cpp", bench.llama),
        ("transformers", lambda: bench.theirs("speed", bench.threads, bench.scale.runs)),
    ):
        try:
            peers[name] = measure()
        except material.MaterialError as error:
            print(f"  left out: {name}: {error}", flush=True)
    for dtype, figures in ours.items():
        _speed_rows(dtype, figures, peers, bench.scale)
    if "llama.cpp" in peers:
        found = [
            w for w in ("AMX_INT8 = 1", "AVX512_VNNI = 1", "AVX512 = 1") if w in peers["llama.cpp"]["system"]
        ]
        print(f"  llama.cpp says of itself {', '.join(found) or peers['llama.cpp']['system']}")


DTYPES = ("bf16", "int8")
BYTES = {"bf16": 2, "int8": 1}


def _speed_rows(dtype: str, figures: dict[str, Any], peers: dict[str, Any], scale: Scale) -> None:
    read, flops = (
        median(figures["read GB/s"]),
        median(figures["bf16 TFLOP/s" if dtype == "bf16" else "int8 TOPS"]),
    )
    print(f"  {dtype}: ceilings {read:.1f} GB/s, {flops:.2f} T/s; exact {bool(figures['exact'][0])}")
    llama, hugging = peers.get("llama.cpp", {}), peers.get("transformers", {})
    prefill, decode = median(figures["prefill"]), median(figures["decode"])
    share = prefill * 2 * 0.973e9 / flops / 1e12
    _row("prefill of 512", figures, "prefill", {"llama.cpp Q8_0": llama.get("prefill"),
         "transformers bf16": hugging.get("prefill")}, f"{share:.0%} of arithmetic")  # fmt: skip
    share = decode * material.READ_PER_TOKEN * BYTES[dtype] / read / 1e9
    _row("decode, one stream", figures, "decode", {"llama.cpp Q8_0": llama.get("decode"),
         "transformers bf16": hugging.get("decode")}, f"{share:.0%} of reading")  # fmt: skip
    for context in scale.contexts:
        streams = llama.get("streams", {}).get(str(context))
        name = f"16 streams at {context}"
        _row(name, figures, name, {"llama.cpp Q8_0": streams}, "")


def _row(
    name: str, figures: dict[str, Any], key: str, peers: dict[str, list[float] | None], note: str
) -> None:
    mine = median(figures[key])
    beside = "".join(
        f"   {peer} {median(theirs):7.1f} ({mine / median(theirs):.2f}x)"
        for peer, theirs in peers.items()
        if theirs
    )
    busy = "   busy" if figures["others_busy"] > QUIET_LOAD else ""
    spread = f"{min(figures[key]):.1f} to {max(figures[key]):.1f}"
    print(f"    {name:20} {mine:8.1f} tokens/s ({spread})  {note:18}{beside}{busy}", flush=True)


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def attention(bench: Bench) -> None:
    """Paged attention alone: GB/s of keys and values in decode, TFLOP/s in prefill."""
    figures = bench.ours("attention", bench.threads, bench.scale.runs)
    for name in ("decode GB/s", "prefill TFLOP/s"):
        mine, theirs = median(figures[name]), median(figures[f"{name} torch"])
        busy = "   busy" if figures["others_busy"] > QUIET_LOAD else ""
        print(
            f"    {name:20} {mine:8.2f}   through torch's operator {theirs:6.2f} ({mine / theirs:.1f}x){busy}"
        )


def four(bench: Bench) -> None:
    """Four engine processes on all cores beside one, four streams each; how late a control process runs."""
    rates, lags = {}, {}
    for count in (1, 4):
        busy = wait_quiet()
        rates[count], lags[count] = _together(count, bench.scale.seconds)
        bench.kept[f"engines {count}"] = {"tokens/s": rates[count], "lag s": lags[count], "others_busy": busy}
        each = ", ".join(f"{rate:.1f}" for rate in rates[count])
        late = sorted(lags[count])[int(len(lags[count]) * 0.99)]
        mark = "   busy" if busy > QUIET_LOAD else ""
        print(
            f"    {count} engine{'s' * (count > 1)}   {sum(rates[count]):8.1f} tokens/s ({each})"
            f"   control process late {1000 * late:.1f} ms p99, {1000 * max(lags[count]):.1f} ms most{mark}",
            flush=True,
        )
    print(f"    four beside one: {sum(rates[4]) / rates[1][0]:.0%}")


def _together(count: int, seconds: float) -> tuple[list[float], list[float]]:
    words = [sys.executable, "-m", "tests.bench.engine.ours", "batch", "int8", str(seconds)]
    pipe = subprocess.PIPE
    engines = [
        subprocess.Popen([*PASSIVE, *words], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        for _ in range(count)
    ]
    try:
        for engine in engines:
            assert engine.stdout is not None
            engine.stdout.readline()
        for engine in engines:
            assert engine.stdin is not None
            engine.stdin.write("go\n")
            engine.stdin.flush()
        lags = trio.run(_lags, seconds)
        told = [engine.communicate()[0] for engine in engines]
    finally:
        for engine in engines:
            engine.kill()
    return [json.loads(text.splitlines()[-1])["tokens/s"][0] for text in told], lags


async def _lags(seconds: float) -> list[float]:
    """How much later than asked a loop wakes, in the process that a node's control process would be."""
    lags, ends = [], trio.current_time() + seconds
    while (now := trio.current_time()) < ends:
        await trio.sleep(PROBE_S)
        lags.append(trio.current_time() - now - PROBE_S)
    return lags


def start(bench: Bench) -> None:
    """From the start of the interpreter to the first token, files in the page cache."""
    rows = {
        "1B in bf16": (("first", material.model(), "bf16"), material.model()),
        "1B in int8, kept": (("first", material.model(), "int8"), None),
        "ember-py": (("first", EMBER, "auto"), EMBER),
    }
    for name, (words, peer) in rows.items():
        ours, busy = _seconds(lambda words=words: bench.ours(*words), bench.scale.runs)
        beside = ""
        if peer is not None:
            theirs, _ = _seconds(lambda peer=peer: bench.theirs("first", peer), max(1, bench.scale.runs - 2))
            beside = f"   transformers {theirs:6.2f} s ({theirs / ours:.1f}x)"
        bench.kept[f"start {name}"] = {"seconds": ours, "others_busy": busy}
        print(f"    {name:20} {ours:6.2f} s{beside}{'   busy' if busy > QUIET_LOAD else ''}", flush=True)


def _seconds(run: Any, runs: int) -> tuple[float, float]:
    """Median wall seconds of a process, the wait for a quiet machine left out; the first run is not counted."""
    times, busy = [], 0.0
    for number in range(runs + 1):
        busy = max(busy, wait_quiet()) if number else wait_quiet()
        began = time.monotonic()
        run()
        times.append(time.monotonic() - began)
    return statistics.median(times[1:]), busy


STAGES = {"speed": speed, "attention": attention, "four": four, "start": start}


def main(words: list[str]) -> int:
    """Run what was asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs, some minutes")
    parser.add_argument("--stage", action="append", choices=[*STAGES], help="only this one; may be repeated")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of each contender")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here after each stage")
    asked = parser.parse_args(words)
    bench = Bench(QUICK if asked.quick else FULL, asked.threads)
    bench.kept["machine"] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }
    print(f"{os.cpu_count()} cores, {processor()}, {time.strftime('%Y-%m-%d')}; {asked.threads} threads each")
    material.model()
    for name in asked.stage or STAGES:
        print(f"\n{name}: {STAGES[name].__doc__}", flush=True)
        STAGES[name](bench)
        if asked.json:
            partial = asked.json.with_suffix(".partial")
            partial.write_text(json.dumps(bench.kept, indent=1))
            partial.replace(asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Tokens per second of the embedded model through HTTP, alone and sixteen at once.

Peer, in the same run: `transformers` generating from the same directory, batch one
and batch sixteen, in bf16, without HTTP and without a mesh.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from node.cli.fleet import ANY_PORTS, Fleet
from node.cli.streams import Crowd, Watched
from tests.bench.startup import EMBER

TOKENS = 256
BATCHES = (1, 16)

TRANSFORMERS = f"""
import json, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(EMBER)!r}, dtype=torch.bfloat16)
ids = AutoTokenizer.from_pretrained({str(EMBER)!r})("import ", return_tensors="pt").input_ids
rates = []
for batch in {BATCHES}:
    for timed in (False, True):
        began = time.monotonic()
        model.generate(ids.repeat(batch, 1), do_sample=True, max_new_tokens={TOKENS}, min_new_tokens={TOKENS})
        rate = batch * {TOKENS} / (time.monotonic() - began)
    rates.append(rate)
print(json.dumps(rates))
"""


def run() -> None:
    """Print tokens per second and ratios."""
    with tempfile.TemporaryDirectory() as directory, Fleet(Path(directory)) as fleet:
        member = fleet.start("bench", *ANY_PORTS)
        member.wait_ready_file()
        fleet.wait_converged()
        ours = [max(_rate(member.http, batch) for _ in range(3)) for batch in BATCHES]
    words = [sys.executable, "-W", "ignore", "-c", TRANSFORMERS]
    peer = json.loads(
        subprocess.run(words, check=True, capture_output=True, cwd=tempfile.gettempdir()).stdout
    )
    for batch, mine, theirs in zip(BATCHES, ours, peer, strict=True):
        peer_name = f"transformers, batch {batch:2}"
        print(
            f"  {batch:2} streams  {mine:7.0f} tokens/s    {peer_name}  {theirs:7.0f}   {mine / theirs:5.2f}x"
        )


def _rate(entry: str, streams: int) -> float:
    body = {
        "model": "ember-py",
        "prompt": "import ",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    began = time.monotonic()
    crowd = Crowd([Watched(n, entry, {**body, "seed": n}) for n in range(streams)])
    crowd.join()
    seconds = time.monotonic() - began
    errors = [stream.error for stream in crowd.streams if stream.error]
    if errors:
        raise RuntimeError(errors[0])
    return streams * TOKENS / seconds

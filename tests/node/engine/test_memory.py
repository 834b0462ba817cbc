"""The preflight's figure is what a load takes: never less, and not a quarter more."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.linear import supports
from tests.node.engine.tiny import LLAMA, tensors_of, write

SIZES = {
    "hidden_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 4096,
    "vocab_size": 32000,
}
SLACK_BYTES = 24 << 20
"""Threads' stacks, probes and the canary: what any load takes, however small the model."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what is private")
@pytest.mark.skipif(not supports(torch.bfloat16), reason="this CPU has no bf16 products")
@pytest.mark.parametrize("tied", [True, False])
def test_a_load_peaks_at_what_was_reckoned(tmp_path: Path, tied: bool):
    config = LLAMA | SIZES | {"tie_word_embeddings": tied}
    write(tmp_path / "model", config, tensors_of(config))
    for dtype in ("bf16", "int8", "fp32"):
        words = ("-m", "tests.node.engine.load_memory", tmp_path / "model", dtype, tmp_path / dtype)
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peak, reckoned = map(int, done.stdout.split())
        assert peak <= reckoned + SLACK_BYTES, dtype
        assert peak >= 0.75 * reckoned, dtype

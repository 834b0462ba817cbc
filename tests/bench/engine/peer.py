"""`transformers` on the same weights: `python -m tests.bench.engine.peer WHAT ...` prints JSON.

speed THREADS RUNS    bf16 prefill and decode, without `generate`: a loop over the model with its own cache
first DIRECTORY       load and produce one token
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from tests.bench.engine import material
from tests.bench.engine.ours import Figures, seconds_of


def speed(threads: int, runs: int) -> Figures:
    """Tokens per second of the 1B shape."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(material.model(), dtype=torch.bfloat16).eval()
    prompt = (torch.arange(512) * 7919 % 100_000).unsqueeze(0)
    prefill = seconds_of(lambda: model(prompt, use_cache=True, logits_to_keep=1), runs)

    def decode() -> None:
        cache = DynamicCache(config=model.config)
        model(prompt[:, :8], past_key_values=cache, use_cache=True)
        for _ in range(8):
            model(prompt[:, :1], past_key_values=cache, use_cache=True)

    return {"prefill": [512 / s for s in prefill], "decode": [8 / s for s in seconds_of(decode, runs)]}


def first(directory: str) -> Figures:
    """The first token of a short prompt."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    model(torch.arange(3, 11).unsqueeze(0), logits_to_keep=1).logits.argmax(-1)
    return {}


def main(words: list[str]) -> None:
    """Measure what is asked."""
    transformers.logging.set_verbosity_error()
    with torch.inference_mode():
        match words:
            case ["speed", threads, runs]:
                figures = speed(int(threads), int(runs))
            case ["first", directory]:
                figures = first(directory)
            case _:
                raise SystemExit(__doc__)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Check an export against Hugging Face transformers: `python verify.py [FOLDER]`. Needs `pip install transformers`."""

import sys
from pathlib import Path

import torch
from corpus import END
from model import Ember, Shape
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

DEFAULT = Path(__file__).parents[2] / "node" / "models" / "ember-py"
# Both compute in float32 but round in another order. Hidden states reach 8,000 before the last norm, where one
# rounding is 2**-24 * 8000 = 5e-4, and there are 16 additions on the way; against float64 transformers itself
# was off by 0.010 and ours by 0.002 at the worst of 8 million logits (median over tokens 2e-5). A wrong layout
# of heads or of RoPE costs more than 1.
TOLERANCE = 0.05
PROMPT = "# Lib/json/tool.py\n"


def ours(folder: Path) -> Ember:
    """Load the export into our own model, in float32."""
    model = Ember(Shape())
    model.load_state_dict(
        {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    )
    return model


@torch.no_grad()
def difference(folder: Path, theirs: torch.nn.Module, ids: torch.Tensor) -> float:
    """Return the largest difference of any logit. ids: [1, tokens]."""
    return (ours(folder)(ids) - theirs(ids).logits).abs().max().item()


def main() -> None:
    """Compare logits over the whole context, the tokenizer's round trip and the chat template; then show a sample."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading

    text = PROMPT + Path(__file__).read_text()
    assert tokenizer.decode(tokenizer(text).input_ids) == END + text
    chat = [{"role": "system", "content": "a = 1"}, {"role": "user", "content": "b = 2"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == f"{END}a = 1\nb = 2"

    whole_context = torch.randint(
        Shape().vocab, (1, Shape().positions), generator=torch.Generator().manual_seed(0)
    )
    worst = max(
        difference(folder, theirs, ids)
        for ids in (tokenizer(text, return_tensors="pt").input_ids, whole_context)
    )
    assert worst < TOLERANCE, f"logits differ by {worst}"
    torch.manual_seed(0)
    sample = theirs.generate(**tokenizer(PROMPT, return_tensors="pt"), max_new_tokens=160)
    print(f"logits agree to {worst:.1e}\n{tokenizer.decode(sample[0])}")


if __name__ == "__main__":
    main()

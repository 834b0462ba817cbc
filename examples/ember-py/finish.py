"""Judge a trained ember-py and put it in its place: `python finish.py --out DIR`, DIR being that of train.py.

It measures the exported weights (bf16, computed in float32) on the held-out files beside the baselines, writes
`results.json`, `loss.csv`, `loss.svg` and the table in README.md, and replaces node/models/ember-py with the export.
"""

import argparse
import csv
import json
import shutil
import sys
import sysconfig
import time
from pathlib import Path

import baseline
import corpus
import matplotlib as mpl
import torch
from export import export, weights
from model import Ember, Shape
from tokenizers import Tokenizer
from train import bits_per_byte, kept_apart

HERE = Path(__file__).parent
MODEL_FOLDER = HERE.parents[1] / "node" / "models" / "ember-py"
MARKS = ("<!-- results: written by finish.py -->", "<!-- end of results -->")
PROMPTS = (
    "# Lib/json/tool.py\n",
    "def fibonacci(n):\n",
    "import unittest\n\nclass TestStack(unittest.TestCase):\n",
)
SAMPLE_TOKENS = 160
INK, EMBER = "#3b3b3b", "#c2410c"


def say(line: str) -> None:
    """Tell people what is going on."""
    print(f"finish: {line}", file=sys.stderr, flush=True)


def rounded(checkpoint: Path) -> tuple[Ember, dict]:
    """Return the checkpoint's model with its weights as exported, in float32, and how far the run had come."""
    state = torch.load(checkpoint, weights_only=True)
    model = Ember(Shape())
    model.load_state_dict(state["model"])
    model.load_state_dict({name: tensor.float() for name, tensor in weights(model).items()})
    return model.eval(), state["run"]


@torch.no_grad()
def sample(model: Ember, tokenizer: Tokenizer, prompt: str, temperature: float = 0.5, seed: int = 0) -> str:
    """Return the prompt and what the model adds to it."""
    rng = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    for _ in range(SAMPLE_TOKENS):
        odds = (model(torch.tensor([ids]))[0, -1] / temperature).softmax(-1)
        ids.append(torch.multinomial(odds, 1, generator=rng).item())
        if ids[-1] == 0:
            break
    return tokenizer.decode(ids)


def judge(model: Ember, tokenizer: Tokenizer, library: Path) -> dict[str, float]:
    """Return bits per byte of the held-out text under the model and the baselines."""
    training, held_out = corpus.split(corpus.read_corpus(library, HERE / "manifest.txt"))
    seen, unseen = ("".join(d.text for d in part).encode() for part in (training, held_out))
    kept = kept_apart(tokenizer, held_out)
    say("measuring the model on the held-out files")
    scores = {"ember-py": bits_per_byte(model, kept.stream, kept.size_bytes, length=2048, stride=1024)}
    say(f"ember-py needs {scores['ember-py']:.3f} bits per byte; measuring the baselines")
    scores["byte 5-gram"] = baseline.ngram_bits_per_byte(seen, unseen)
    scores["xz -9e"] = baseline.xz_bits_per_byte(unseen)
    scores["xz -9e after the training text"] = baseline.xz_bits_per_byte(unseen, after=seen)
    return scores


def results(scores: dict[str, float], run: dict, samples: list[str]) -> dict:
    """Return `results.json`."""
    return {
        "release": corpus.RELEASE,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "steps": run["step"],
        "tokens": run["tokens"],
        "minutes": round(run["elapsed_s"] / 60, 1),
        "held_out_bits_per_byte": {name: round(score, 4) for name, score in scores.items()},
        "samples": samples,
    }


def table(result: dict) -> str:
    """Return the results as Markdown, for the README."""
    lines = [f"| {name} | {score:.3f} |" for name, score in result["held_out_bits_per_byte"].items()]
    rows = "\n".join(["| | bits per byte, held out |", "| --- | ---: |", *lines])
    size = f"{result['tokens'] / 1e6:.1f} million tokens in {result['steps']:,} steps"
    run = f"Trained on {size} and {result['minutes']:.0f} minutes."
    shown = f"A sample (temperature 0.5), the first line being the prompt:\n\n```python\n{result['samples'][0]}\n```"
    return f"{rows}\n\n{run}\n\n{shown}"


def between_marks(text: str, inside: str) -> str:
    """Return the text with what stands between the marks replaced."""
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return f"{before}{MARKS[0]}\n{inside.strip()}\n{MARKS[1]}{after}"


def column(rows: list[dict[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Return the minutes and values of the rows in which the column is filled."""
    filled = [row for row in rows if row[name]]
    return [float(row["minutes"]) for row in filled], [float(row[name]) for row in filled]


def plot(log: Path, picture: Path, baselines: dict[str, float]) -> None:
    """Draw training loss and held-out bits per byte over the minutes of the run."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "ember-py", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # after the backend is chosen

    rows = list(csv.DictReader(log.open()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(*column(rows, "train_nats"), color=EMBER, linewidth=1)
    left.set(xlabel="minutes", ylabel="nats per token", title="training loss")
    right.plot(*column(rows, "held_out_bpb"), color=EMBER, marker="o", markersize=3)
    for name, score in baselines.items():
        right.axhline(score, color=INK, linewidth=0.7, linestyle=":")
        right.annotate(
            name, (0.99, score), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    right.set(xlabel="minutes", ylabel="bits per byte", title="held-out files")
    figure.savefig(picture, metadata={"Date": None})


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Judge a trained ember-py and put it in its place.")
    parser.add_argument("--out", type=Path, required=True, help="the folder given to train.py")
    parser.add_argument(
        "--library", type=Path, default=sysconfig.get_path("stdlib"), help="the Lib folder to read"
    )
    parser.add_argument("--model-folder", type=Path, default=MODEL_FOLDER, help="where the export goes")
    parser.add_argument(
        "--report-folder", type=Path, default=HERE, help="where the results go; has a README.md"
    )
    return parser.parse_args()


def main() -> None:
    """Judge, report and install."""
    args = arguments()
    tokenizer = Tokenizer.from_file(str(args.out / "export" / "tokenizer.json"))
    model, run = rounded(args.out / "checkpoint.pt")
    samples = [sample(model, tokenizer, prompt) for prompt in PROMPTS]
    scores = judge(model, tokenizer, Path(args.library))
    result = results(scores, run, samples)
    (args.report_folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    shutil.copyfile(args.out / "loss.csv", args.report_folder / "loss.csv")
    plot(
        args.out / "loss.csv",
        args.report_folder / "loss.svg",
        {k: v for k, v in scores.items() if k != "ember-py"},
    )
    readme = args.report_folder / "README.md"
    readme.write_text(between_marks(readme.read_text(), table(result)))
    export(args.model_folder, model, tokenizer)
    say(f"the model is in {args.model_folder}")
    print(json.dumps(result["held_out_bits_per_byte"], indent=2))


if __name__ == "__main__":
    main()

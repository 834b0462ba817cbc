"""Train ember-py: `python train.py --out DIR (--until-minutes M | --tokens N) [--resume DIR/checkpoint.pt]`.

Theory of operation: everything that changes during the run is a function of its progress, which goes from 0
to 1 with the clock or with the tokens seen, whichever limit was given. `Plan.at(progress)` says what the next
step is to be; the loop carries it out. The clock runs on while the process is stopped, so the run ends when it
was told to.
Every file it leaves is replaced in one rename, so that a reader never sees half of one.
"""

import argparse
import csv
import math
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import corpus
import numpy as np
import torch
from export import export
from model import Ember, Shape, token_losses
from muon import Muon
from tokenizers import Tokenizer
from torch import Tensor

HERE = Path(__file__).parent
SEED = 1991  # the year of Python 0.9.0
MICROBATCH_TOKENS = 2048  # larger ones were no faster on two cores, and need more memory
PRINT_EVERY_S = 10.0
LOG_EVERY_S = 30.0
SAVE_EVERY_S = 600.0
FIRST_SAVE_S = 180.0
GRADIENT_NORM_MAX = 1.0
COLUMNS = (
    "step",
    "minutes",
    "tokens",
    "progress",
    "window",
    "batch_tokens",
    "lr_scale",
    "train_nats",
    "held_out_bpb",
)


@dataclass(frozen=True)
class Step:
    """What one step is to be. length: tokens of a window; batch_tokens: of all its windows; lr_scale: 0 to 1."""

    length: int
    batch_tokens: int
    lr_scale: float


@dataclass(frozen=True)
class Plan:
    """The schedule: small batches first, long windows last, rates falling in a line to nothing."""

    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    warm_up: float = 0.01
    decay: float = 0.40
    long_from: float = 0.85

    def at(self, progress: float) -> Step:
        """Return the step to take at `progress`, 0 to 1."""
        length = 2048 if progress >= self.long_from else 512
        batch_tokens = 2048 if progress < 0.10 else 4096 if progress < 0.30 else 8192
        lr_scale = min(1.0, (progress + 1e-4) / self.warm_up, (1 - progress) / self.decay)
        return Step(length, batch_tokens, max(0.0, lr_scale))


@dataclass(frozen=True)
class Limit:
    """Where the run ends: after `minutes` of clock or `tokens`, of which one is None. Both count resumed runs in."""

    minutes: float | None
    tokens: int | None

    def progress(self, elapsed_s: float, tokens: int) -> float:
        """Return how much of the run is behind us, 0 to 1."""
        done = tokens / self.tokens if self.tokens else elapsed_s / 60 / self.minutes
        return min(1.0, done)


@dataclass
class Run:
    """What a checkpoint holds besides weights and momenta. started_at: on the clock, moved back by resumed time."""

    started_at: float
    step: int = 0
    tokens: int = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds of clock since the start, resumed runs counted in."""
        return time.time() - self.started_at


@dataclass(frozen=True)
class Learner:
    """The model, the two optimisers that share its weights, and their schedule."""

    model: Ember
    muon: Muon
    adam: torch.optim.AdamW
    plan: Plan

    def step(self, batches: Iterator[Tensor], count: int, lr_scale: float) -> float:
        """Learn from `count` microbatches, each [windows, length + 1], and return their mean loss in nats."""
        total = 0.0
        for _ in range(count):
            loss = mean_loss(self.model, next(batches)) / count
            loss.backward()
            total += loss.item()
        # Muon's step does not depend on the gradient's size, so only the others are clipped.
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], GRADIENT_NORM_MAX)
        self.apply(lr_scale)
        return total

    def apply(self, lr_scale: float) -> None:
        """Move the weights along their gradients and forget those."""
        for optimiser, lr in ((self.muon, self.plan.matrix_lr), (self.adam, self.plan.other_lr)):
            optimiser.param_groups[0]["lr"] = lr * lr_scale
            optimiser.step()
            optimiser.zero_grad()


@torch.compile(dynamic=False)
def mean_loss(model: Ember, ids: Tensor) -> Tensor:
    """Return the mean surprise in nats, computed in bfloat16 where that is safe. ids: [windows, length + 1]."""
    with torch.autocast("cpu", torch.bfloat16):
        return token_losses(model, ids).mean()


def learner(plan: Plan) -> Learner:
    """Build a model with its optimisers: Muon for the layers' matrices, AdamW for embeddings and norms."""
    model = Ember(Shape())
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(matrices)
    others = [p for p in model.parameters() if p not in chosen]
    adam = torch.optim.AdamW(others, lr=plan.other_lr, betas=(0.9, 0.95), weight_decay=0.0)
    return Learner(model, Muon(matrices, lr=plan.matrix_lr), adam, plan)


def microbatches(documents: list[corpus.Encoded], length: int, seed: int) -> Iterator[Tensor]:
    """Yield microbatches for ever, [windows, length + 1], int64."""
    source = corpus.windows(documents, length, seed)
    rows = MICROBATCH_TOKENS // length
    while True:
        yield torch.from_numpy(np.stack([next(source) for _ in range(rows)])).long()


@torch.no_grad()
def bits_per_byte(model: Ember, stream: np.ndarray, size_bytes: int, length: int, stride: int) -> float:
    """Return the model's bits per byte on a packed stream, each window scoring its last `stride` tokens.

    stream: [tokens]; size_bytes: of the text it encodes. The end tokens' bits are counted, their bytes are none.
    """
    model.eval()
    nats, scored = 0.0, 0
    while scored < len(stream) - 1:
        begin = max(0, scored + stride - length)
        window = torch.from_numpy(stream[begin : scored + stride + 1]).long()
        nats += token_losses(model, window[None])[0, scored - begin :].sum(dtype=torch.float64).item()
        scored = min(scored + stride, len(stream) - 1)
    model.train()
    return nats / math.log(2) / size_bytes


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path beside `path`, then rename that over it."""
    fresh = path.with_name(path.name + ".new")
    write(fresh)
    os.replace(fresh, path)


def save(path: Path, learner: Learner, run: Run) -> None:
    """Leave a checkpoint at `path`."""
    state = {
        "model": learner.model.state_dict(),
        "muon": learner.muon.state_dict(),
        "adam": learner.adam.state_dict(),
        "run": {"elapsed_s": run.elapsed_s, "step": run.step, "tokens": run.tokens},
    }
    replace(path, lambda fresh: torch.save(state, fresh))


def restore(path: Path, learner: Learner) -> Run:
    """Load a checkpoint into the learner and return where it stood."""
    state = torch.load(path, weights_only=True)
    learner.model.load_state_dict(state["model"])
    learner.muon.load_state_dict(state["muon"])
    learner.adam.load_state_dict(state["adam"])
    run = state["run"]
    return Run(time.time() - run["elapsed_s"], run["step"], run["tokens"])


class Every:
    """Says whether `period_s` has passed since it last said so. first_s: the first wait, if it is another."""

    def __init__(self, period_s: float, first_s: float | None = None):
        self.period_s = period_s
        self.due = time.time() + (period_s if first_s is None else first_s)

    def __call__(self) -> bool:
        now = time.time()
        if now < self.due:
            return False
        self.due = now + self.period_s
        return True


class Journal:
    """The run's log: a line for people on stderr, rows for the plot in `loss.csv`."""

    def __init__(self, path: Path, run: Run):
        self.path = path
        self.recent: list[float] = []
        self.told = (time.time(), run.tokens)
        if run.step == 0 or not path.exists():
            path.write_text(",".join(COLUMNS) + "\n")

    def tell(self, run: Run, progress: float, loss: float) -> None:
        """Show what, how far, rate and time left: over the last line on a terminal, on its own line elsewhere."""
        (then, tokens), self.told = self.told, (time.time(), run.tokens)
        rate = (run.tokens - tokens) / (self.told[0] - then)
        left_s = run.elapsed_s * (1 / progress - 1)
        end = "\r" if sys.stderr.isatty() else "\n"
        line = f"training ember-py  {progress:6.1%}  step {run.step}  {run.tokens / 1e6:.2f} Mtok"
        line += f"  {rate:.0f} tok/s  loss {loss:.3f} nats  {left_s / 60:.1f} min left"
        print(line, end=end, file=sys.stderr, flush=True)

    def log(self, run: Run, progress: float, step: Step, held_out_bpb: float | None = None) -> None:
        """Append a row with the mean loss since the last one."""
        nats = f"{sum(self.recent) / len(self.recent):.4f}" if self.recent else ""
        self.recent.clear()
        row = (
            run.step,
            f"{run.elapsed_s / 60:.2f}",
            run.tokens,
            f"{progress:.4f}",
            step.length,
            step.batch_tokens,
        )
        row += (f"{step.lr_scale:.4f}", nats, "" if held_out_bpb is None else f"{held_out_bpb:.4f}")
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


@dataclass(frozen=True)
class HeldOut:
    """Text never trained on. stream: [tokens], packed; size_bytes: of the text it encodes."""

    stream: np.ndarray
    size_bytes: int

    def bits_per_byte(self, model: Ember, length: int = 512, stride: int = 512) -> float:
        """Measure in bfloat16, which is quick and right to about 0.002; finish.py measures in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            return bits_per_byte(model, self.stream, self.size_bytes, length, stride)


@dataclass(frozen=True)
class Material:
    """What a run works on: the tokenizer, the training documents in tokens, and the text kept apart."""

    tokenizer: Tokenizer
    documents: list[corpus.Encoded]
    held_out: HeldOut


def prepare(library: Path, vocab: int) -> Material:
    """Read and split the corpus and train the tokenizer on the training part."""
    training, held_out = corpus.split(corpus.read_corpus(library, HERE / "manifest.txt"))
    tokenizer = corpus.train_tokenizer(training, vocab)
    return Material(tokenizer, corpus.encode(tokenizer, training), kept_apart(tokenizer, held_out))


def kept_apart(tokenizer: Tokenizer, documents: list[corpus.Document]) -> HeldOut:
    """Pack documents for evaluation, headers and all."""
    size_bytes = sum(len(d.text.encode()) for d in documents)
    return HeldOut(corpus.pack(corpus.encode(tokenizer, documents)), size_bytes)


def train(out: Path, limit: Limit, learner: Learner, run: Run, material: Material) -> None:
    """Step until the limit, leaving `loss.csv`, `checkpoint.pt` and `export/` in `out` as it goes and at the end."""
    journal = Journal(out / "loss.csv", run)
    print_due, log_due = Every(PRINT_EVERY_S), Every(LOG_EVERY_S)
    save_due = Every(SAVE_EVERY_S, FIRST_SAVE_S)
    batches = {n: microbatches(material.documents, n, SEED + run.step + n) for n in (512, 2048)}
    while (progress := limit.progress(run.elapsed_s, run.tokens)) < 1:
        step = learner.plan.at(progress)
        loss = learner.step(batches[step.length], step.batch_tokens // MICROBATCH_TOKENS, step.lr_scale)
        run.step, run.tokens = run.step + 1, run.tokens + step.batch_tokens
        journal.recent.append(loss)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"loss is `{loss}` at step {run.step}\nhint: --resume from the last checkpoint"
            )
        if print_due():
            journal.tell(run, limit.progress(run.elapsed_s, run.tokens), loss)
        if save_due():
            leave(out, learner, run, material.tokenizer)
            journal.log(run, progress, step, material.held_out.bits_per_byte(learner.model))
        elif log_due():
            journal.log(run, progress, step)
    leave(out, learner, run, material.tokenizer)
    journal.log(run, 1.0, learner.plan.at(1.0), material.held_out.bits_per_byte(learner.model, 2048, 1024))
    print("\nended: now run finish.py", file=sys.stderr)


def leave(out: Path, learner: Learner, run: Run, tokenizer: Tokenizer) -> None:
    """Save a checkpoint and an export of the weights as they are."""
    save(out / "checkpoint.pt", learner, run)
    export(out / "export", learner.model, tokenizer)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train ember-py on Python's standard library.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint.pt, loss.csv and export/"
    )
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument(
        "--until-minutes", type=float, help="minutes of clock, those of a resumed run counted in"
    )
    limit.add_argument("--tokens", type=int, help="tokens to train on, those of a resumed run counted in")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="go on from this checkpoint")
    parser.add_argument(
        "--library", type=Path, default=sysconfig.get_path("stdlib"), help="the Lib folder to read"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    """Train as the command line says."""
    args = arguments()
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    started_at = time.time()  # reading the corpus is on the clock, too
    try:
        material = prepare(Path(args.library), Shape().vocab)
    except corpus.CorpusMismatch as mismatch:
        raise SystemExit(f"error: {mismatch}") from None
    pupil = learner(Plan())
    run = restore(args.resume, pupil) if args.resume else Run(started_at)
    train(args.out, Limit(args.until_minutes, args.tokens), pupil, run, material)


if __name__ == "__main__":
    main()

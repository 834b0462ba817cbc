"""Conversations over many entries: how much of their prompts the workers find in their caches.

The routers and the learning of prefixes are the mesh's own; the workers are paced engines: one prefill at a time, then
so many tokens a second per sequence, and a cache of prompt blocks of another size than the mesh's, the least
recently used going first. Entries know the workers' load as of `figures_s` ago at most; each turn comes in at
an entry drawn at random. `python -m sim.prefixes` prints the table.
"""

import collections
import heapq
import random
from collections.abc import Callable

import attrs

from mesh.prefix import Prefixes
from mesh.route import Candidate, Policy, RouteOptions, Wanted
from mesh.router import Router, heeds_prefixes

ENGINE_BLOCK_BYTES = 64
BYTES_PER_TOKEN = 4
OPTIONS = RouteOptions()


@attrs.frozen
class Trace:
    """The traffic and the machines. Sizes in bytes, times in seconds."""

    entries: int = 8
    workers: int = 24
    sessions: int = 1500
    turns: int = 5
    sessions_per_s: float = 6.0
    systems: int = 5
    """Different system prompts, each shared by as many sessions as the others."""
    system_bytes: int = 4000
    question_bytes: tuple[int, int] = (80, 400)
    answer_tokens: tuple[int, int] = (80, 240)
    pause_s: float = 4.0
    """Mean time that a person takes for the next question."""
    figures_s: float = 0.25
    cache_bytes: int = 1 << 20
    prefill_tokens_per_s: float = 4000.0
    decode_tokens_per_s: float = 50.0
    """Of each sequence, however many run."""
    replaced: int = 0
    """Workers that give way to fresh ones, evenly over the middle half of the run."""


@attrs.define
class Outcome:
    """What a run came to."""

    prompt_bytes: int = 0
    """Of follow-up turns."""
    cached_bytes: int = 0
    """... and those of them that a cache held."""
    first_token_s: list[float] = attrs.Factory(list)
    asked: collections.Counter[str] = attrs.Factory(collections.Counter)

    @property
    def cached_share(self) -> float:
        """Share of the bytes of follow-up prompts that were in the cache of whoever was asked."""
        return self.cached_bytes / max(1, self.prompt_bytes)

    @property
    def busiest_share(self) -> float:
        """Turns of the worker with most, as a multiple of the mean of those that had any."""
        return max(self.asked.values()) * len(self.asked) / self.asked.total()


@attrs.define
class Worker:
    """A paced engine."""

    name: str
    trace: Trace
    prefill_free_at: float = 0.0
    running: int = 0
    _cache: dict[int, None] = attrs.Factory(dict)

    def take(self, now_s: float, prompt: bytes, answer_tokens: int) -> tuple[int, float, float]:
        """Return the bytes found in the cache, and when the first and the last token come."""
        cached = self._look(prompt)
        prefill_s = (len(prompt) - cached) / BYTES_PER_TOKEN / self.trace.prefill_tokens_per_s
        self.prefill_free_at = max(now_s, self.prefill_free_at) + prefill_s
        self.running += 1
        return cached, self.prefill_free_at, self.prefill_free_at + answer_tokens / self._pace

    @property
    def _pace(self) -> float:
        return self.trace.decode_tokens_per_s

    def _look(self, prompt: bytes) -> int:
        """Find the longest head of a prompt in the cache, and hold all of it from now on."""
        key, found, is_known = 0, 0, True
        for start in range(0, len(prompt) - ENGINE_BLOCK_BYTES + 1, ENGINE_BLOCK_BYTES):
            key = hash((key, prompt[start : start + ENGINE_BLOCK_BYTES]))
            is_known = is_known and key in self._cache
            found += is_known
            self._cache.pop(key, None)
            self._cache[key] = None
        while len(self._cache) * ENGINE_BLOCK_BYTES > self.trace.cache_bytes:
            del self._cache[next(iter(self._cache))]
        return found * ENGINE_BLOCK_BYTES

    def figures(self, now_s: float) -> Candidate:
        """Say how loaded it is."""
        queued = max(0.0, self.prefill_free_at - now_s) * self.trace.prefill_tokens_per_s
        speed = self._pace * max(1, self.running)
        return Candidate(self.name, queued_tokens=round(queued), running=self.running, tokens_per_s=speed)


@attrs.define
class Entry:
    """One node's door: its router, what it learned, and what it has under way."""

    router: Router
    prefixes: Prefixes = attrs.Factory(Prefixes)
    sent: dict[str, list[int]] = attrs.Factory(lambda: collections.defaultdict(list))

    def choose(self, now_s: float, figures: list[Candidate], age_s: float, prompt: bytes, cost: int) -> str:
        """Return the worker to ask."""
        heeds = heeds_prefixes(self.router.options)
        key = self.prefixes.key_of(b"m", prompt) if heeds else b""
        known = tuple(self._with_sent(one, age_s) for one in figures)
        choice = self.router.choose(now_s, known, Wanted(prefix=key, cost_tokens=cost))
        assert choice.chosen is not None
        return choice.chosen.candidate.node

    def _with_sent(self, one: Candidate, age_s: float) -> Candidate:
        sent = self.sent[one.node]
        return attrs.evolve(one, age_s=age_s, sent_tokens=sum(sent), sent_flights=len(sent))


class World:
    """Virtual time over entries and workers; drawn from one seed."""

    def __init__(self, trace: Trace, options: RouteOptions, seed: int) -> None:
        self.trace, self.rng, self.outcome = trace, random.Random(seed), Outcome()
        self.workers = {name: Worker(name, trace) for name in (f"w{n}" for n in range(trace.workers))}
        self.entries = [Entry(Router(options, random.Random(seed + n + 1))) for n in range(trace.entries)]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._figures: list[Candidate] = []
        self._figures_at = -1e9
        self._systems = [self.rng.randbytes(trace.system_bytes) for _ in range(trace.systems)]

    def run(self) -> Outcome:
        """Play the trace to its end."""
        at_s, trace = 0.0, self.trace
        for number in range(trace.sessions):
            at_s += self.rng.expovariate(trace.sessions_per_s)
            system = self._systems[number % trace.systems]
            self._at(at_s, lambda now_s, system=system: self._turn(now_s, system, 1))
        for number in range(trace.replaced):
            self._at(at_s * (0.25 + 0.5 * number / trace.replaced), self._replace)
        while self._events:
            now_s, _, event = heapq.heappop(self._events)
            event(now_s)
        return self.outcome

    def _at(self, at_s: float, event: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, event))

    def _turn(self, now_s: float, history: bytes, turn: int) -> None:
        prompt = history + self.rng.randbytes(self.rng.randint(*self.trace.question_bytes))
        answer_tokens = self.rng.randint(*self.trace.answer_tokens)
        cost = len(prompt) // BYTES_PER_TOKEN + answer_tokens
        entry = self.rng.choice(self.entries)
        name = entry.choose(now_s, self._known(now_s), now_s - self._figures_at, prompt, cost)
        worker = self.workers[name]
        cached, first_at, end_at = worker.take(now_s, prompt, answer_tokens)
        entry.sent[name].append(cost)
        self._count(now_s, turn, name, prompt, cached, first_at)
        answered = prompt + self.rng.randbytes(answer_tokens * BYTES_PER_TOKEN)
        self._at(end_at, lambda at_s: self._ended(at_s, entry, worker, cost, answered, turn))

    def _count(self, now_s: float, turn: int, name: str, prompt: bytes, cached: int, first_at: float) -> None:
        self.outcome.asked[name] += 1
        self.outcome.first_token_s.append(first_at - now_s)
        if turn > 1:
            self.outcome.prompt_bytes += len(prompt)
            self.outcome.cached_bytes += cached

    def _ended(
        self, now_s: float, entry: Entry, worker: Worker, cost: int, history: bytes, turn: int
    ) -> None:
        worker.running -= 1
        worker._look(history)
        entry.sent[worker.name].remove(cost)
        if turn < self.trace.turns:
            pause_s = self.rng.expovariate(1 / self.trace.pause_s)
            self._at(now_s + pause_s, lambda at_s: self._turn(at_s, history, turn + 1))

    def _known(self, now_s: float) -> list[Candidate]:
        """The workers' figures as the entries have them, renewed every `figures_s`."""
        if now_s - self._figures_at >= self.trace.figures_s:
            self._figures_at = now_s
            self._figures = [worker.figures(now_s) for worker in self.workers.values()]
        return self._figures

    def _replace(self, now_s: float) -> None:
        """Let one worker give way to a fresh one, which everybody knows at once; what runs there ends there."""
        del self.workers[self.rng.choice(sorted(self.workers))]
        self._number += 1
        name = f"fresh{self._number}"
        self.workers[name] = Worker(name, self.trace)
        self._figures_at = -1e9


def run(trace: Trace, options: RouteOptions = OPTIONS, seed: int = 1) -> Outcome:
    """Play a trace once."""
    return World(trace, options, seed).run()


ROWS: dict[str, tuple[Trace, RouteOptions]] = {
    "eight entries": (Trace(), RouteOptions()),
    "one entry": (Trace(entries=1), RouteOptions()),
    "a sixth of the workers replaced": (Trace(replaced=4), RouteOptions()),
    "eight entries, no affinity": (Trace(), RouteOptions(prefix_affinity=False)),
    "eight entries, round robin": (Trace(), RouteOptions(policy=Policy.ROUND_ROBIN)),
}


def main() -> None:
    """Print the table."""
    print(f"{'':34} cached share  first token p50 / p99 s  busiest worker / mean")
    for name, (trace, options) in ROWS.items():
        outcome = run(trace, options)
        waits = sorted(outcome.first_token_s)
        p50, p99 = (waits[int(share * len(waits))] for share in (0.5, 0.99))
        print(f"{name:34} {outcome.cached_share:12.3f} {p50:14.3f} / {p99:.3f} {outcome.busiest_share:17.2f}")


if __name__ == "__main__":
    main()

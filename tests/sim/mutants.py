"""`python -m tests.sim.mutants`: how many small bugs in the cores the simulator finds.

Each mutant runs in a process of its own, niced, through measures, stories and swarm seeds, those first that
have found most, until a check fails or the seeds are spent. A seed counts only if the core as it is holds it.
The table says which check found which mutant with which seed. Mutants that no run can tell from the original
are argued one by one in `EQUIVALENT`, and not counted.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from sim.scenario import Scenario, run
from sim.swarm import draw
from tests.sim.measures import MEASURES
from tests.sim.mutate import Mutant, apply, mutants
from tests.sim.stories import STORIES, story

MODULES = tuple(
    f"mesh.{name}"
    for name in (
        "beliefs cases credit detector goodbye gossip health hearing hearsay identity inquest loss member members "
        "myself probe reception reunion rota suspicion swim trust turns voice"
    ).split()
)
"""The cores that decide about membership."""

SHARE = 0.15
SECONDS = 5.0
"""Virtual time under faults of each run."""
CPU_S = 12.0
"""Processor time of one run; a mutant that takes longer hangs, and is found by that."""
MEASURE_CPU_S = 2.0
SEEDS_MAX = 200

INSTANT = "differs at one instant of a continuous clock, which no deadline hits"
SAME_LAW = "both branches draw the same members with the same chances; only the cost differs"
COMMUTES = "the order of two accounts that are merged does not matter: `one_of_two_accounts` holds it"
LENGTHS = "two lists of one length; the flag is an assertion about ourselves"
AT_ITS_BOUND = "one doubling more or fewer beyond the bound of what is doubled"

CHEAPER = "what it leaves out cannot fit in any case; only the cost differs"
SHORTER = "a round of two asks never outlasts four timeouts, which it has in any case"

EQUIVALENT: dict[str, str] = {
    "mesh.hearing:Hearing.is_alone:compare:1": INSTANT,
    "mesh.detector:Detector.ran_late:compare:0": INSTANT,
    "mesh.detector:Detector._verdict_s:number:1": SHORTER,
    "mesh.detector:Detector.acked:compare:6": INSTANT,
    "mesh.goodbye:Goodbye.told_again:swap:0": COMMUTES,
    "mesh.gossip:Broadcasts.take:go_on:0": CHEAPER,
    "mesh.health:pause_s:compare:1": INSTANT,
    "mesh.members:Members.between:flag:0": LENGTHS,
    "mesh.members:Members.sample:condition:0": SAME_LAW,
    "mesh.members:Members.sample:compare:0": SAME_LAW,
    "mesh.myself:Myself._clash:compare:2": INSTANT,
    "mesh.myself:Myself.seen:compare:1": INSTANT,
    "mesh.reunion:Reunion._ask_seeds:number:1": AT_ITS_BOUND,
    "mesh.trust:Trust._close:compare:4": INSTANT,
    "mesh.trust:Trust._sentence_s:compare:2": INSTANT,
    "mesh.trust:Trust._sentence_s:number:1": AT_ITS_BOUND,
}
"""Mutants that behave as the original does, and why."""


@attrs.frozen
class Found:
    """What became of one mutant."""

    mutant: str
    line: str
    check: str = ""
    """What found it; empty if nothing did."""
    run: str = ""
    runs: int = 0


def scenario(name: str) -> Scenario:
    """Return a run by its name; a number is a seed of the swarm, without its clients."""
    if name.isdigit():
        return attrs.evolve(draw(int(name), seconds=SECONDS), requests=())
    return story(name)


def outcome(name: str) -> str:
    """Run one measure or scenario; return the check that failed, or nothing."""
    signal.signal(signal.SIGPROF, _hangs)
    signal.setitimer(signal.ITIMER_PROF, MEASURE_CPU_S if name in MEASURES else CPU_S)
    try:
        if name in MEASURES:
            return name if MEASURES[name]() else ""
        violation = run(scenario(name)).violation
    except TimeoutError:
        return "hang"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return violation.check if violation else ""


def _hangs(_signal: int, _frame: object) -> None:
    raise TimeoutError


def apart(work: object) -> str:
    """Do something in a child process; return the text that it gives."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - whatever a mutant does ends its own process
            said = f"\texception\t{type(error).__name__}"
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def hunt(mutant: Mutant, names: Sequence[str]) -> Found:
    """Run a mutant until something finds it."""

    def work() -> str:
        apply(mutant)
        for count, name in enumerate(names, start=1):
            check = outcome(name)
            if check:
                return f"{name}\t{check}\t{count}"
        return f"\t\t{len(names)}"

    name, check, count = apart(work).split("\t")
    return Found(mutant.name, mutant.line, check, name, int(count) if count.isdigit() else 1)


@attrs.define
class Hunt:
    """All mutants, and what was found of each, kept in a file so that a hunt can go on."""

    file: Path
    names: list[str]
    found: dict[str, Found] = attrs.Factory(dict)
    sound: dict[str, bool] = attrs.Factory(dict)
    """Whether a run holds on the core as it is: asked when it first finds something."""

    def load(self, again: bool = False) -> None:
        """Take up what an earlier hunt has found; those that it did not find too, unless they are hunted again."""
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                known = Found(**json.loads(line))
                self.found.pop(known.mutant, None)
                if known.check or not again:
                    self.found[known.mutant] = known

    def go(self, everybody: list[Mutant], until: float) -> None:
        """Hunt those who are not found yet; give up at a time."""
        for number, mutant in enumerate(everybody, start=1):
            known = self.found.get(mutant.name)
            if mutant.name in EQUIVALENT or (known and known.check) or time.time() > until:
                continue
            found = self._hunt(mutant)
            self.found[mutant.name] = found
            if found.run in self.names:
                self.names.remove(found.run)
                self.names.insert(0, found.run)
            with self.file.open("a") as log:
                log.write(json.dumps(attrs.asdict(found)) + "\n")
            said = f"{found.check} with {found.run} ({found.runs})" if found.check else "NOT FOUND"
            print(f"{number:4}/{len(everybody)} {mutant.name:60} {said}", flush=True)

    def _hunt(self, mutant: Mutant) -> Found:
        """Run a mutant until a run finds it that the core as it is passes; runs that it does not pass are dropped."""
        while True:
            found = hunt(mutant, self.names)
            if not found.run or self._is_sound(found.run):
                return found
            print(f"{found.run} fails without any mutant", flush=True)
            self.names.remove(found.run)

    def _is_sound(self, name: str) -> bool:
        if name not in self.sound:
            self.sound[name] = not apart(lambda: outcome(name))
        return self.sound[name]


def main(argv: Sequence[str] | None = None) -> int:
    """Hunt, and print the share that was found; 1 if it is less than 95 in 100."""
    parse = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__.split("\n")[0])
    parse.add_argument("--seeds", type=int, default=SEEDS_MAX, help="most swarm seeds for each mutant")
    parse.add_argument("--minutes", type=float, default=30.0, help="give up after so long")
    parse.add_argument(
        "--file", type=Path, default=Path("build/mutants.jsonl"), help="where findings are kept"
    )
    parse.add_argument("--draw", default="", help="name of the sample; each name draws another")
    parse.add_argument(
        "--share", type=float, default=SHARE, help="share of all mutants in the sample, 0 to 1"
    )
    parse.add_argument("--measures", action="store_true", help="run measures alone: no stories, no seeds")
    parse.add_argument("--again", action="store_true", help="hunt those anew that were not found")
    parse.add_argument("--list", action="store_true", help="only name the mutants")
    arguments = parse.parse_args(argv)
    everybody = mutants(MODULES, arguments.share, arguments.draw)
    if arguments.list:
        print("\n".join(f"{mutant.name:60} {mutant.line}" for mutant in everybody))
        return 0
    os.nice(10)
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    names = [*MEASURES] if arguments.measures else [*MEASURES, *STORIES, *map(str, range(arguments.seeds))]
    hunting = Hunt(arguments.file, names)
    hunting.load(arguments.again)
    hunting.go(everybody, time.time() + arguments.minutes * 60)
    counted = [m for m in everybody if m.name not in EQUIVALENT and m.name in hunting.found]
    caught = [m for m in counted if hunting.found[m.name].check]
    share = len(caught) / max(1, len(counted))
    print(f"{len(caught)} of {len(counted)} mutants found ({share:.1%}), {len(EQUIVALENT)} argued equivalent")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())

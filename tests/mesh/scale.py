"""How soon large meshes form and heal: `python -m tests.mesh.scale joins|restart|heal [--help]`, in virtual time.

    joins     all start within one second and know one seed
    restart   all crash and start again at once, knowing a few of the others; some rumours of old lives are about
    heal      two halves (or an island of `--island` and the rest), cut apart until each has buried the other, are
              joined again

Each run ends when all who run hold the same view in which all are alive, and prints one row of a table.
"""

import argparse
import gc
import statistics
import time

import attrs

from mesh import codec
from mesh.facts import MemberChanged
from mesh.identity import INCARNATION_MAX
from mesh.member import Liveness
from mesh.messages import Gossip, Update
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions

STEP_S = 0.05
"""How often it is asked whether all agree."""
SETTLE_S = 3.0
BURIED_S = 120.0


@attrs.define
class Watch:
    """What a run costs and does, from taps: bytes per node and second, false deaths, sizes of views shown."""

    crowd: Crowd
    generations: dict[str, int] = attrs.Factory(dict)
    """Of each running life: the death of an older one is no news."""
    deaths: int = 0
    sent: dict[int, int] = attrs.Factory(dict)
    """Bytes sent by each node in the present second."""
    second: int = 0
    peak: int = 0
    """Most bytes that any node sent in any second."""
    total: dict[int, int] = attrs.Factory(dict)

    def __call__(self, peer, outputs):
        if int(self.crowd.time) != self.second:
            self.second = int(self.crowd.time)
            self.peak = max([self.peak, *self.sent.values()])
            self.sent.clear()
        for output in outputs:
            data = getattr(output, "data", None)
            if data is not None:
                self.sent[peer.index] = self.sent.get(peer.index, 0) + len(data) + 28
                self.total[peer.index] = self.total.get(peer.index, 0) + len(data) + 28
            elif isinstance(output, MemberChanged) and output.after.liveness is Liveness.DEAD:
                self.deaths += output.after.identity.generation == self.generations.get(output.after.node)

    def busiest(self):
        """Most bytes that any node sent in any second."""
        return max([self.peak, *self.sent.values()])


def build(seed, preset):
    swim = attrs.evolve(getattr(SwimOptions, preset)(), members_max=16_384)
    crowd = Crowd(seed, CrowdOptions(swim=swim, keep_log=False))
    watch = Watch(crowd)
    crowd.taps.append(watch)
    return crowd, watch


def joins(seed, count, preset, within_s):
    """Start all but the seed within a second."""
    crowd, watch = build(seed, preset)
    crowd.start(1)
    crowd.run_for(1.0)
    for index in range(2, count + 1):
        crowd.at(1.0 + (index - 2) / (count - 1), lambda index=index: crowd.start(index, seeds=[1]))
    crowd.run_for(1.0)
    watch.generations = {peer.core.me.node: 1 for peer in crowd.running}
    took_s = crowd.run_until(crowd.converged, within_s, STEP_S)
    return crowd, watch, took_s, watch.total.get(1, 0)


def restart(seed, count, preset, within_s):
    """Restart all at once, with three seeds each, while some believe that old lives are dead for good."""
    crowd, watch = build(seed, preset)
    crowd.form(count)
    crowd.run_for(SETTLE_S)
    old = [crowd.core(index).me for index in range(1, count + 1)]
    for index in range(1, count + 1):
        crowd.crash(index)
    for index in range(1, count + 1):
        seeds = [(index * step) % count + 1 for step in (7, 61, 977)]
        crowd.start(index, seeds=seeds)
    for index in range(0, count, 100):
        identity = attrs.evolve(old[index].identity, incarnation=INCARNATION_MAX - 1)
        stale = attrs.evolve(old[index], identity=identity, liveness=Liveness.DEAD)
        items = [codec.item(Gossip(old[index - 1].node)), codec.item(Update(stale))]
        crowd.call((index + 50) % count + 1, "receive", codec.packet(items), old[index - 1].address)
    watch.generations = {peer.core.me.node: 2 for peer in crowd.running}
    took_s = crowd.run_until(crowd.converged, within_s, STEP_S)
    return crowd, watch, took_s, watch.total.get(1, 0)


def heal(seed, count, preset, within_s, island=None):
    """Cut a mesh in two, wait until all across are dead, and mend it."""
    crowd, watch = build(seed, preset)
    crowd.form(count)
    crowd.run_for(SETTLE_S)
    apart = island or count // 2
    left, right = range(1, apart + 1), range(apart + 1, count + 1)
    crowd.partition(left, right)
    buried = crowd.run_until(lambda: all_buried(crowd, left, right), BURIED_S, 1.0)
    assert buried is not None, "each half buries the other"
    crowd.run_for(10.0)
    crowd.heal()
    watch.generations = {peer.core.me.node: 1 for peer in crowd.running}
    watch.peak = 0
    watch.total.clear()
    took_s = crowd.run_until(crowd.converged, within_s, STEP_S)
    return crowd, watch, took_s, max(watch.total.values(), default=0)


def all_buried(crowd, left, right):
    """Whether every node of either half holds all of the other for dead."""
    return all(
        crowd.core(index).statistics().members["dead"] == len(others)
        for side, others in ((left, right), (right, left))
        for index in side
    )


def main():
    """Run the seeds and print a row each, and the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["joins", "restart", "heal"])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--preset", default="local", choices=["local", "lan", "wan"])
    parser.add_argument(
        "--within", type=float, default=60.0, help="virtual seconds after which a run has failed"
    )
    parser.add_argument(
        "--island", type=int, help="for `heal`: so many are cut from all others (default: half)"
    )
    chosen = parser.parse_args()
    gc.disable()
    scenario = {"joins": joins, "restart": restart, "heal": heal}[chosen.what]
    times = []
    print(
        "| seed | agreed after, s | false deaths | busiest, B in a second | seed (heal: busiest), B in all | real s |"
    )
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        began = time.monotonic()
        more = {"island": chosen.island} if chosen.what == "heal" else {}
        _, watch, took_s, cost = scenario(seed, chosen.nodes, chosen.preset, chosen.within, **more)
        times.append(took_s if took_s is not None else float("inf"))
        real_s = time.monotonic() - began
        print(
            f"| {seed} | {times[-1]:.2f} | {watch.deaths} | {watch.busiest():,} | {cost:,} | {real_s:.0f} |",
            flush=True,
        )
    print(
        f"{chosen.what} {chosen.nodes} {chosen.preset}: p50 {statistics.median(times):.2f}, max {max(times):.2f} s"
    )


if __name__ == "__main__":
    main()

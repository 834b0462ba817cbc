"""What an idle node sends and what load records cost: `python -m tests.mesh.load_cost`."""

import time

import attrs

from mesh.load import LoadRecord, ModelLoad
from sim.world import World as Simulation
from tests.mesh.small_world import World, account

PUBLISH_S = 2.0
IP_UDP_BYTES = 28
MODEL = ModelLoad("tiny", "0123456789abcdef", "0123456789abcdef", True, 2048, 0, 2, 0.75, 1500.0, 80.5)


def idle(count, seconds):
    """Print what a node of an idle simulation, which publishes the same figures every 2 s, sends."""
    world = Simulation(1)
    world.cluster(count, workers=count - 2, apart_s=0.02)
    world.run_for(0.02 * count + (40 if count >= 100 else 15))
    network, began = attrs.evolve(world.network.statistics), time.process_time()
    world.run_for(seconds)
    real_s = time.process_time() - began
    packets = world.network.statistics.sent - network.sent
    wire_bytes = world.network.statistics.bytes_sent - network.bytes_sent + IP_UDP_BYTES * packets
    per_s = count * seconds
    print(
        f"simulator, {count:3} nodes: {packets / per_s:.2f} packets/s, {wire_bytes / per_s:.0f} B/s,"
        f" {seconds / real_s:.0f} times real time",
        flush=True,
    )


def busy(count, seconds=20.0):
    """Print what a node sends whose figures change every 2 s, and how old they are at the others."""
    world, ages, figure = World(count), [], 0
    world.run(10, until=world.converged)
    world.run(3)
    world.datagrams = world.bytes = 0
    for _ in range(int(seconds / PUBLISH_S)):
        for index in range(1, count + 1):
            figure += 1
            record = LoadRecord("", models=(attrs.evolve(MODEL, queued_tokens=figure),))
            world.call(index, "publish_load", record)
            world.run(PUBLISH_S / count)
        ages += _ages(world, count)
    ages.sort()
    print(
        f"cores, {count:3} nodes, figures changing: {world.datagrams / count / seconds:.2f} packets/s,"
        f" {world.bytes / count / seconds:.0f} B/s, age p50 {ages[len(ages) // 2]} ms, max {ages[-1]} ms",
        flush=True,
    )


def _ages(world, count):
    loads, now = world.core(1).loads, world.instant(account(1).address)
    records = [loads.get(now, f"{index:016x}") for index in range(2, count + 1)]
    return [record.age_ms for record in records if record is not None]


if __name__ == "__main__":
    for size, length_s in ((3, 20.0), (20, 20.0), (100, 5.0)):
        idle(size, length_s)
    for size in (3, 20, 64):
        busy(size)

"""How soon a write is everywhere, and what records cost: `python -m tests.mesh.record_cost`.

Virtual time and the real bytes, without IP and UDP headers: the figures are the same on any machine.
"""

import statistics

from mesh.replication_options import ReplicationOptions
from tests.mesh.record_mesh import Mesh

SIZES = (8, 32, 128)
WRITES = 10
STEP_S = 0.02
"""How finely the spread is measured."""


def formed(count: int, loss: float) -> Mesh:
    """Return a mesh that agrees on a hundred records."""
    mesh = Mesh(count, options=ReplicationOptions(), loss=loss)
    for index in range(100):
        mesh.call(1, "put", "config", f"{index}", bytes(100))
    while not mesh.agreed():
        mesh.run(5)
    mesh.run(10)
    return mesh


def spread_s(count: int, loss: float) -> list[float]:
    """Seconds from each write to the last node that has it."""
    mesh, took = formed(count, loss), []
    for index in range(WRITES):
        mesh.call(index % count + 1, "put", "keys", f"{index}", bytes(100))
        began = mesh.time
        while not all(core.get("keys", f"{index}") for core in mesh.cores.values()):
            mesh.run(STEP_S)
        took.append(mesh.time - began)
        mesh.run(5)
    return sorted(took)


def idle_bytes_per_s(count: int) -> float:
    """Bytes of records that each node of a still mesh sends in a second."""
    mesh = formed(count, 0.0)
    mesh.run(30)
    before = mesh.bytes
    mesh.run(120)
    return (mesh.bytes - before) / count / 120


def main() -> None:
    """Print a line for each size."""
    print(f"nodes  idle B/s  write everywhere: p50   max    at 30 % loss: p50   max   ({WRITES} writes)")
    for count in SIZES:
        clean, lossy = spread_s(count, 0.0), spread_s(count, 0.3)
        figures = (statistics.median(clean), clean[-1], statistics.median(lossy), lossy[-1])
        print(f"{count:5}{idle_bytes_per_s(count):10.1f}" + "{:24.2f}{:6.2f}{:20.2f}{:6.2f}".format(*figures))


if __name__ == "__main__":
    main()

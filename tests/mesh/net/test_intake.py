"""What reaches the core of what arrives, on a clock of processor time that the test turns."""

from mesh.net.intake import Intake
from mesh.share import Worth

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 1)


class Core:
    def __init__(self, cost_s: float):
        self.cost_s, self.spent_s, self.got = cost_s, 0.0, []

    def worth(self, data):
        return Worth(data[0])

    def receive(self, data, source):
        self.spent_s += self.cost_s
        self.got.append(Worth(data[0]))

    def step(self, method, *arguments):
        method(*arguments)


def intake_of(core: Core) -> Intake:
    return Intake(None, core, core.step, clock=lambda: core.spent_s)


def test_a_quiet_network_is_heard_whole():
    core = Core(0.0001)
    intake = intake_of(core)
    for second in range(100):
        intake.take(second, [(bytes([worth]), HERE) for worth in Worth])
    assert len(core.got) == 300
    assert intake.statistics().over_budget == 0 and not intake.statistics().shed


def test_a_source_beyond_its_budget_is_not_heard_and_others_are():
    core = Core(0.0)
    intake = intake_of(core)
    for _ in range(100):
        intake.take(0.0, [(bytes([2]) * 100, HERE)] * 64)
    before = len(core.got)
    intake.take(0.0, [(bytes([2]), THERE)])
    assert before == 2000 and len(core.got) == before + 1
    assert intake.statistics().over_budget == 6400 - before


class Socket:
    dropped = 2**32 - 3

    def overflowed(self):
        return self.dropped


def test_what_the_kernel_and_the_share_have_dropped_is_told_once_and_strangers_are_no_loss():
    core = Core(0.05)
    intake = intake_of(core)
    intake.udp = Socket()
    assert intake.lost() == 2**32 - 3
    assert intake.lost() == 0
    Socket.dropped = 4
    assert intake.lost() == 7, "the kernel's count begins anew at 2^32"
    for worth in Worth:
        for port in range(100):
            intake.take(0.0, [(bytes([worth]), ("10.0.1.1", port))])
    shed = intake.statistics().shed
    assert shed["stranger"] > 0
    assert intake.lost() == shed["bulk"] + shed["vital"] > 0
    assert intake.lost() == 0


def test_gossip_takes_its_share_of_a_processor_and_no_more():
    core = Core(0.001)
    intake = intake_of(core)
    sources = [("10.0.1.1", port) for port in range(100)]
    for tick in range(6000):
        intake.take(tick * 0.01, [(bytes([i % 3]), sources[(tick + i) % 100]) for i in range(6)])
    assert core.spent_s <= 1.2 + 0.1 * 60 + 0.01
    shed = intake.statistics().shed
    assert shed["stranger"] > shed["bulk"] > shed["vital"] > 0
    assert intake.statistics().processor_s == core.spent_s

"""Each oracle is seen failing: a lie is planted in what it looks at."""

import os
from types import SimpleNamespace

import pytest

from sim.workload import Request
from sim.world import Violation
from tests.lab import oracles
from tests.lab.clients import LabClient
from tests.lab.oracles import Baseline

REQUEST = Request("node-0", 0.0, "def f(", 7, 5)


def client(outcome: str = "done", **lies: object) -> LabClient:
    made = LabClient(REQUEST, SimpleNamespace(name="node-0"), lambda: 0.0, outcome=outcome, finish="length")
    made.text, made.tokens = made._expected, REQUEST.tokens
    for name, value in lies.items():
        setattr(made, name, value)
    made._compare()
    return made


def machine(**facts: object) -> SimpleNamespace:
    plain = {"name": "node-0", "expected_up": True, "core": True, "worker": True, "ops": ""}
    plain |= {"process": SimpleNamespace(pid=os.getpid()), "descriptors": lambda: 9, "threads": lambda: 2}
    return SimpleNamespace(**plain | facts)


def stage(*clients: LabClient, **facts: object) -> SimpleNamespace:
    hosts = {"node-0": facts.pop("host", None) or machine()}
    plain = {"clients": clients, "hosts": hosts, "struck": {}, "bitten": {}}
    return SimpleNamespace(**plain | facts)


def test_a_whole_text_is_no_mistake() -> None:
    oracles._texts(stage(client()))


@pytest.mark.parametrize(
    "lie",
    [
        {"text": "other words"},
        {"text": client().text + " more"},
        {"text": client().text[:-1]},
        {"tokens": 4},
        {"finish": "stop"},
    ],
)
def test_a_wrong_text_is_found(lie: dict[str, object]) -> None:
    with pytest.raises(Violation, match="text_exact"):
        oracles._texts(stage(client(**lie)))


def test_a_piece_of_text_that_was_cancelled_must_be_right_as_far_as_it_goes() -> None:
    oracles._texts(stage(client("cancelled", text=client().text[:2], tokens=0)))
    with pytest.raises(Violation, match="text_exact"):
        oracles._texts(stage(client("cancelled", text="!", tokens=0)))


@pytest.mark.parametrize(("descriptors", "threads"), [(10, 2), (9, 3)])
def test_a_leak_is_found_and_a_restarted_process_is_not_compared(descriptors: int, threads: int) -> None:
    now = machine(descriptors=lambda: descriptors, threads=lambda: threads)
    assert "node-0" in oracles.leak(stage(host=now), {"node-0": Baseline(os.getpid(), 9, 2)})
    assert oracles.leak(stage(host=now), {"node-0": Baseline(1, 9, 2)}) == ""


def test_who_ended_by_itself_or_logged_a_traceback_is_found(tmp_path) -> None:
    log = tmp_path / "log"
    log.write_text("all is well")
    oracles._fallen(stage(host=machine(log=log)))
    with pytest.raises(Violation, match="nobody_fell"):
        oracles._fallen(stage(host=machine(log=log, core=None)))
    log.write_text("Traceback (most recent call last)")
    with pytest.raises(Violation, match="nobody_fell"):
        oracles._fallen(stage(host=machine(log=log)))


def test_a_fault_that_hits_nothing_is_found() -> None:
    oracles._bites(stage(struck={"Loss": 1}, bitten={"Loss": 3}))
    with pytest.raises(Violation, match="faults_bite"):
        oracles._bites(stage(struck={"Loss": 1}))


async def test_an_answer_that_nobody_asked_for_is_found(monkeypatch) -> None:
    async def told(_address: str, _path: str) -> str:
        return 'inferno_http_answers_total{route="/v1/completions",status="200"} 1.0\n'

    monkeypatch.setattr(oracles, "ask", told)
    before = {"node-0": Baseline(os.getpid(), 9, 2)}
    host, scenario = machine(), SimpleNamespace(core=("node-0",))

    class Plain(SimpleNamespace):
        def __getitem__(self, name: str) -> SimpleNamespace:
            return self.hosts[name]

    asked = client()
    asked.host = host
    await oracles._conservation(Plain(clients=[asked], hosts={"node-0": host}, scenario=scenario), before)
    with pytest.raises(Violation, match="conservation"):
        await oracles._conservation(Plain(clients=[], hosts={"node-0": host}, scenario=scenario), before)

"""Checks of what the healed mesh must do: each is seen to fail on a bug planted for it."""

import pytest

from mesh.beliefs import Beliefs
from mesh.detector import Detector
from mesh.effects import Effect
from mesh.health import LocalHealth
from mesh.load import LoadMark, LoadTable
from mesh.member import Member
from mesh.now import Now
from mesh.rota import Rota
from mesh.swim import Swim
from node.core import NodeCore
from sim.faults import Loss, Pause
from tests.sim.planted import KILL, PAUSE, caught, core


def test_trust_returns_catches_a_grudge(monkeypatch: pytest.MonkeyPatch):
    grudges: dict[tuple[int, str], bool] = {}
    honest = Detector.is_quarantined

    def unforgiving(self: Detector, node: str) -> bool:
        held = honest(self, node) or (id(self), node) in grudges
        if held:
            grudges[id(self), node] = True
        return held

    monkeypatch.setattr(Detector, "is_quarantined", unforgiving)
    assert caught((3.0, Pause("node-3", 0.9)), requests=()) == "trust_returns"


def test_queues_empty_catches_rumours_that_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mesh.voice.sends_max", lambda *_: 10**4)
    assert caught(KILL, requests=(), excused=("rumour_bound",)) == "queues_empty"


def test_health_returns_catches_a_node_that_blames_itself_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LocalHealth, "round_answered", lambda self: None)
    assert caught(PAUSE, (3.0, Loss(0.5, 3.0)), requests=()) == "health_returns"


def test_loads_fresh_catches_who_learns_only_once(monkeypatch: pytest.MonkeyPatch):
    honest = LoadTable.holds

    def holds(self: LoadTable, mark: LoadMark) -> bool:
        known = self._held.get(mark.node)
        return honest(self, mark) or (known is not None and known.record.sequence >= 4)

    monkeypatch.setattr(LoadTable, "holds", holds)
    assert caught() == "loads_fresh"


def test_quiet_catches_a_node_that_probes_ten_times_too_often(monkeypatch: pytest.MonkeyPatch):
    honest = Rota.turn

    def hasty(self: Rota, now: Now, stretch: int = 1) -> tuple[Member | None, float]:
        target, wait_s = honest(self, now, stretch)
        return target, min(wait_s, 0.05)

    monkeypatch.setattr(Rota, "turn", hasty)
    assert caught(requests=()) == "quiet"


def test_news_spreads_catches_a_node_that_keeps_its_news(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Swim, "update_me", lambda self, now, **facts: [])
    assert caught(requests=()) == "news_spreads"


def test_death_spreads_catches_a_mesh_that_draws_no_conclusions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Beliefs, "_round_failed", lambda self, now, target: None)
    assert caught(requests=()) == "death_spreads"


def test_life_returns_catches_a_node_that_nobody_lets_in_again(monkeypatch: pytest.MonkeyPatch):
    class Shy(NodeCore):
        def start(self, now: Now, seeds: tuple) -> list[Effect]:
            return super().start(now, () if self.me.identity.generation else seeds)

        def receive(self, now: Now, data: bytes, source: tuple) -> list[Effect]:
            return [] if self.me.identity.generation else super().receive(now, data, source)

        def link_data(self, now: Now, link: int, data: bytes) -> list[Effect]:
            return [] if self.me.identity.generation else super().link_data(now, link, data)

        def tick(self, now: Now) -> list[Effect]:
            effects = super().tick(now)
            return [] if self.me.identity.generation else effects

    assert caught(requests=(), options=core(Shy)) == "life_returns"


def test_leave_spreads_catches_a_goodbye_that_nobody_hears(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Swim, "leave", lambda self, now: [])
    assert caught(requests=()) == "leave_spreads"

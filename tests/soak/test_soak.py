"""The soak's share of every run of the tests, and breaks planted on purpose that it must see."""

import pytest

from node.engine.accounts import Accounts
from node.engine.blocks import Blocks
from node.engine.core import EngineCore
from node.engine.scheduler import Scheduler
from tests.soak.__main__ import GROWTH_BYTES, soak_toy, toy_soak, traced_growth

BEFALLEN = ("cancelled", "crashes", "spoiled", "preemptions", "cached tokens", "refused deadline_exceeded")


def test_a_few_thousand_requests_leave_nothing_behind():
    soak = toy_soak(3)
    soak.run(2500)
    soak.count_life()
    assert soak.counts["asked"] == soak.ended == 2500
    assert all(soak.counts[what] for what in BEFALLEN), soak.counts
    assert soak.counts["done"] > 2000


def test_the_same_seed_is_the_same_life():
    first, again = toy_soak(5), toy_soak(5)
    first.run(400)
    again.run(400)
    assert (first.counts, first.now_s) == (again.counts, again.now_s)


@pytest.mark.slow
def test_twenty_thousand_requests_do_not_grow():
    soak = toy_soak(4)
    assert "traced bytes" in soak_toy(soak, 20_000)


def plant(monkeypatch, cls: type, name: str, broken) -> None:
    """Put a break in the place of a method; it is handed the method."""
    method = getattr(cls, name)
    monkeypatch.setattr(cls, name, lambda self, *given: broken(method, self, *given))


def forgets_a_block(release, blocks, held):
    return release(blocks, held[1:])


def shares_without_counting(_share, blocks, found):
    for block in found:
        blocks._cached.pop(block, None)


def publishes_early(publish, blocks, block, key):
    publish(blocks, block, key[::-1] if key[0] % 4 == 0 else key)
    if key[0] % 4 == 0 and key not in blocks._named:
        blocks._named[key] = block


def keeps_what_was_computed(preempt, scheduler, sequence):
    computed = sequence.computed
    preempt(scheduler, sequence)
    sequence.computed = computed


def does_not_cancel(_cancel, _core, _frame):
    return None


def forgets_no_account(_leave, _accounts, *_):
    return None


@pytest.mark.parametrize(
    ("cls", "name", "broken"),
    [
        (Blocks, "release", forgets_a_block),
        (Blocks, "share", shares_without_counting),
        (Blocks, "publish", publishes_early),
        (Scheduler, "_preempt", keeps_what_was_computed),
        (EngineCore, "_cancel", does_not_cancel),
        (Accounts, "leave", forgets_no_account),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_break_is_seen(monkeypatch, cls: type, name: str, broken):
    plant(monkeypatch, cls, name, broken)
    with pytest.raises((AssertionError, KeyError)):
        toy_soak(3).run(2500)


def test_a_leak_of_a_hundred_bytes_per_request_is_seen(monkeypatch):
    kept = []

    def leaks(begin, core, *given):
        kept.append(bytes(90))
        return begin(core, *given)

    plant(monkeypatch, EngineCore, "_begin", leaks)
    assert traced_growth(toy_soak(3), 1500) > GROWTH_BYTES

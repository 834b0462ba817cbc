"""The scheduler: budgets kept, blocks conserved, everybody served, suspects apart."""

import contextlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.attempt import PROBATION_TOKENS
from mesh.errors import LimitError
from node.engine.blocks import Blocks
from node.engine.plan import Plan, Sampling
from node.engine.scheduler import Limits, Scheduler
from node.engine.sequence import Sequence, State
from node.engine.toy import ToyRunner, expected_ids


class Bench:
    """A scheduler and a toy that computes its plans; sequences end when they have what they want."""

    def __init__(self, blocks: int = 64, block_tokens: int = 4, **limits: int) -> None:
        self.limits = Limits(**{"step_tokens": 32, "running_max": 8, **limits})
        self.scheduler = Scheduler(Blocks(blocks, block_tokens), self.limits)
        self.runner = ToyRunner(blocks=blocks, block_tokens=block_tokens)
        self.sequences: list[Sequence] = []
        self.plans: list[tuple[int, ...]] = []

    def add(self, prompt: int = 5, want: int = 10, emitted: int = 0, **more) -> Sequence:
        """Queue a sequence with a prompt of that length."""
        handle = len(self.sequences) + 1
        ids = tuple(handle * 1000 + n for n in range(prompt)) if more.pop("distinct", True) else (7,) * prompt
        produced = list(expected_ids(ids, handle, emitted))
        sequence = Sequence(handle, handle, 1, ids, Sampling(handle), produced, want, **more)
        self.scheduler.add(sequence)
        self.sequences.append(sequence)
        return sequence

    def step(self) -> Plan | None:
        """Plan, compute, commit, and end what is done."""
        plan = self.scheduler.plan()
        if plan is None:
            return None
        self.plans.append(tuple(row.sequence for row in plan.rows))
        for outcome in self.scheduler.commit(self.runner.run(plan)):
            if outcome.sequence.remaining == 0:
                self.scheduler.end(outcome.sequence)
        return plan

    def run(self, steps_max: int = 10_000) -> int:
        """Step until there is nothing left; return the number of steps."""
        steps = 0
        while self.step() is not None:
            steps += 1
            assert steps < steps_max, "it does not end"
        self.scheduler.check_integrity()
        return steps

    def check_texts(self) -> None:
        """Assert that every sequence has produced what a toy alone would have, as far as it came."""
        for sequence in self.sequences:
            expected = expected_ids(sequence.prompt, sequence.sampling.seed, len(sequence.produced))
            assert tuple(sequence.produced) == expected


def test_nothing_to_do_is_no_plan():
    assert Bench().scheduler.plan() is None


def test_a_prompt_is_cut_into_chunks_and_only_its_end_is_sampled():
    bench = Bench(step_tokens=4)
    bench.add(prompt=10, want=2)
    plans = [bench.step() for _ in range(4)]
    rows = [plan.rows[0] for plan in plans]
    assert [len(row.ids) for row in rows] == [4, 4, 2, 1]
    assert [row.start for row in rows] == [0, 4, 8, 10]
    assert [row.sample for row in rows] == [False, False, True, True]
    assert [len(row.blocks) for row in rows] == [1, 2, 3, 3]


def test_decode_comes_first_and_prefill_takes_the_rest_of_the_budget():
    bench = Bench(step_tokens=8)
    bench.add(prompt=3, want=20)
    bench.step()
    bench.add(prompt=30, want=1)
    plan = bench.step()
    assert [len(row.ids) for row in plan.rows] == [1, 7]


def test_decoders_beyond_the_budget_take_turns():
    bench = Bench(step_tokens=4, running_max=8)
    for _ in range(7):
        bench.add(prompt=1, want=30)
    while any(len(s.produced) == 0 for s in bench.sequences):
        bench.step()
    before = [len(s.produced) for s in bench.sequences]
    for _ in range(14):
        bench.step()
    assert [len(s.produced) - n for s, n in zip(bench.sequences, before, strict=True)] == [8] * 7


def test_prefill_is_left_a_share_when_decoders_fill_the_budget():
    bench = Bench(step_tokens=8, running_max=16)
    for _ in range(10):
        bench.add(prompt=1, want=200)
    while any(not s.produced for s in bench.sequences):
        bench.step()
    late = bench.add(prompt=20, want=1)
    for _ in range(10):
        bench.step()
    assert late.state is State.ENDED


def test_new_sequences_are_admitted_in_order_of_place():
    bench = Bench(running_max=1)
    first, second = bench.add(want=2), bench.add(want=2)
    urgent = bench.add(want=2, priority=-1)
    order = []
    while bench.step() is not None:
        order += [
            s.handle for s in (first, second, urgent) if s.state is State.ENDED and s.handle not in order
        ]
    assert order == [urgent.handle, first.handle, second.handle]


def test_equal_prompts_share_blocks_and_compute_only_the_rest():
    bench = Bench()
    bench.add(prompt=13, want=4, distinct=False)
    bench.run()
    again = bench.add(prompt=13, want=4, distinct=False)
    assert bench.scheduler.cached_tokens(again) == 12
    plan = bench.step()
    assert (plan.rows[0].start, len(plan.rows[0].ids)) == (12, 1)
    bench.run()
    bench.check_texts()


def test_a_prompt_that_is_cached_whole_still_computes_its_last_id():
    bench = Bench()
    bench.add(prompt=12, want=4, distinct=False)
    bench.run()
    again = bench.add(prompt=12, want=4, distinct=False)
    assert bench.scheduler.cached_tokens(again) == 8


def test_tenants_do_not_share():
    bench = Bench()
    bench.add(prompt=13, want=4, distinct=False, tenant="a")
    bench.run()
    assert bench.scheduler.cached_tokens(bench.add(prompt=13, distinct=False, tenant="b")) == 0


def test_the_newest_is_pre_empted_and_nothing_changes_in_what_it_says():
    bench = Bench(blocks=8, block_tokens=4)
    old, new = bench.add(prompt=4, want=24), bench.add(prompt=4, want=24)
    ended = []
    while bench.step() is not None:
        ended += [s for s in (old, new) if s.state is State.ENDED and s not in ended]
        assert old.state is not State.WAITING or not old.produced
    assert bench.scheduler.preemptions > 0
    assert ended == [old, new]
    bench.check_texts()


def test_nobody_is_admitted_into_the_room_that_the_running_need_next():
    bench = Bench(blocks=3, block_tokens=4)
    bench.add(prompt=4, want=3)
    bench.step()
    bench.add(prompt=8, want=1)
    bench.run()
    assert bench.scheduler.preemptions == 0


def test_what_can_never_fit_is_refused_at_the_door_with_the_numbers():
    bench = Bench(blocks=4, block_tokens=4)
    bench.add(prompt=10, want=7)
    with pytest.raises(LimitError, match="`17` tokens are wanted, the engine's memory holds 16"):
        bench.add(prompt=10, want=8)
    assert len(bench.scheduler.waiting) == 1


def test_ending_frees_at_once_even_while_the_step_is_computed():
    bench = Bench()
    gone, stays = bench.add(), bench.add()
    plan = bench.scheduler.plan()
    bench.scheduler.end(gone)
    bench.scheduler.end(gone)
    assert bench.scheduler.blocks.available == 64 - len(stays.blocks)
    outcomes = bench.scheduler.commit(bench.runner.run(plan))
    assert [outcome.sequence for outcome in outcomes] == [stays]
    bench.run()
    bench.check_texts()


def test_an_abandoned_step_is_planned_again_without_the_one_that_spoiled_it():
    bench = Bench()
    spoiler, other = bench.add(prompt=9, want=3), bench.add(prompt=9, want=3)
    first = bench.scheduler.plan()
    bench.scheduler.abandon(spoiler)
    again = bench.scheduler.plan()
    assert again.rows == first.rows[1:]
    assert [row.sequence for row in again.rows] == [other.handle]


def test_spoiled_blocks_are_not_found_again():
    bench = Bench(step_tokens=4)
    spoiler = bench.add(prompt=9, want=3, distinct=False)
    bench.step()
    bench.scheduler.plan()
    bench.scheduler.abandon(spoiler)
    assert bench.scheduler.cached_tokens(bench.add(prompt=9, distinct=False)) == 0
    bench.run()
    bench.check_texts()


def test_a_suspect_is_computed_alone_until_it_has_proved_harmless():
    bench = Bench()
    others = [bench.add(want=60) for _ in range(3)]
    suspect = bench.add(want=40, alone=True, emitted=5)
    bench.run()
    bench.check_texts()
    with_suspect = [plan for plan in bench.plans if suspect.handle in plan]
    assert all(plan == (suspect.handle,) for plan in with_suspect[:PROBATION_TOKENS])
    assert len(with_suspect[PROBATION_TOKENS]) == 1 + len(others)


def test_suspects_and_others_alternate():
    bench = Bench(step_tokens=4)
    bench.add(prompt=40, want=20)
    suspect = bench.add(prompt=40, want=40, alone=True)
    for _ in range(16):
        bench.step()
    mine = [plan == (suspect.handle,) for plan in bench.plans]
    assert all(one != other for one, other in itertools.pairwise(mine))


def test_several_suspects_are_never_in_one_step():
    bench = Bench()
    suspects = [bench.add(want=30, alone=True) for _ in range(3)]
    while any(s.on_probation for s in suspects):
        on = {s.handle for s in suspects if s.on_probation}
        plan = bench.step()
        rows = {row.sequence for row in plan.rows}
        assert not rows & on or len(rows) == 1
    bench.run()
    bench.check_texts()


def test_a_suspect_without_room_is_not_overtaken():
    bench = Bench(blocks=8, block_tokens=4)
    bench.add(prompt=4, want=24)
    bench.step()
    suspect = bench.add(prompt=28, want=4, alone=True)
    later = [bench.add(prompt=6, want=6) for _ in range(4)]
    bench.run()
    order = [handle for plan in bench.plans for handle in plan]
    assert all(order.index(suspect.handle) < order.index(other.handle) for other in later)


def test_two_suspects_that_cannot_both_fit_still_both_end():
    bench = Bench(blocks=8, block_tokens=4)
    first = bench.add(prompt=16, want=12, alone=True)
    bench.step()
    bench.step()
    second = bench.add(prompt=16, want=12, alone=True, priority=-100)
    bench.run(500)
    assert (len(first.produced), len(second.produced)) == (12, 12)
    bench.check_texts()


@pytest.mark.parametrize("seed", [*range(40), 247, 395, 465])
def test_a_life_drawn_from_a_seed_ends_well(seed: int):
    """Tiny memories and nested prompts. In 31 and the last three all who were chosen are pre-empted at once."""
    rng = random.Random(seed)
    size, count = rng.randint(1, 4), rng.randint(2, 14)
    bench = Bench(count, size, step_tokens=rng.randint(1, 7), running_max=rng.randint(1, 7), waiting_max=100)
    for _ in range(rng.randint(5, 80)):
        for _ in range(rng.choice([0, 0, 0, 1, 2, 4])):
            arrive(bench, rng)
        if rng.random() < 0.05 and bench.sequences:
            bench.scheduler.end(rng.choice(bench.sequences))
        bench.step()
        bench.scheduler.check_integrity()
    live = [sequence for sequence in bench.sequences if sequence.state is not State.ENDED]
    bench.run(5000)
    assert all(sequence.remaining == 0 for sequence in live)
    bench.check_texts()


def arrive(bench: Bench, rng: random.Random) -> None:
    prompt, want = rng.randint(1, 14), rng.randint(1, 14)
    emitted, alone, priority = rng.randint(0, want - 1), rng.random() < 0.2, rng.choice([-1, 0, 0, 1])
    with contextlib.suppress(LimitError):
        bench.add(prompt, want, emitted, distinct=False, alone=alone, priority=priority)


requests = st.tuples(
    st.integers(1, 30),  # prompt
    st.integers(1, 30),  # wanted
    st.integers(0, 8),  # emitted before
    st.sampled_from([-1, 0, 0, 0, 1]),  # priority
    st.booleans(),  # distinct prompt
    st.sampled_from([False, False, True]),  # alone
)


class Machine(RuleBasedStateMachine):
    """Any order of arrivals, cancellations and steps."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(blocks=16, block_tokens=4, step_tokens=11, running_max=5)

    @rule(request=requests)
    def arrive(self, request: tuple[int, int, int, int, bool, bool]) -> None:
        prompt, want, emitted, priority, distinct, alone = request
        emitted = min(emitted, want - 1)
        self.bench.add(prompt, want, emitted, priority=priority, distinct=distinct, alone=alone)

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 1000))
    def cancel(self, which: int) -> None:
        self.bench.scheduler.end(self.live[which % len(self.live)])

    @rule(count=st.integers(1, 5))
    def steps(self, count: int) -> None:
        for _ in range(count):
            suspects = {s.handle for s in self.live if s.on_probation}
            plan = self.bench.step()
            assert (plan is None) <= (not self.live)
            if plan is not None:
                self.check(plan, suspects)

    def check(self, plan: Plan, suspects: set[int]) -> None:
        assert sum(len(row.ids) for row in plan.rows) <= self.bench.limits.step_tokens
        assert len(plan.rows) <= self.bench.limits.running_max
        handles = [row.sequence for row in plan.rows]
        assert len(set(handles)) == len(handles)
        assert not suspects & set(handles) or len(handles) == 1
        writes = [block for row in plan.rows for block in row.blocks[row.start // 4 :]]
        assert len(set(writes)) == len(writes), "two rows write one block"
        assert all(len(row.blocks) == -(-(row.start + len(row.ids)) // 4) for row in plan.rows)

    @property
    def live(self) -> list[Sequence]:
        return [s for s in self.bench.sequences if s.state is not State.ENDED]

    @invariant()
    def account_is_right(self) -> None:
        self.bench.scheduler.check_integrity()

    def teardown(self) -> None:
        """Everybody who was not cancelled ends, within a bound, with the right ids."""
        live = self.live
        self.bench.run(steps_max=200 * (len(live) + 1))
        assert all(s.remaining == 0 for s in live)
        self.bench.check_texts()
        assert self.bench.scheduler.blocks.available == self.bench.scheduler.blocks.count


TestMachine = Machine.TestCase


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 9))
def test_ids_depend_neither_on_chunk_nor_company_nor_position_of_resumption(
    chunk: int, others: int, emitted: int
):
    bench = Bench(step_tokens=chunk)
    for _ in range(others):
        bench.add(prompt=9, want=7, distinct=False)
    bench.add(prompt=23, want=10, emitted=emitted)
    bench.run()
    assert [len(s.produced) for s in bench.sequences] == [7] * others + [10]
    bench.check_texts()

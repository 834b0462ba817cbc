"""Blocks of the KV cache: conserved, found again by their contents, evicted from the deep end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.errors import LimitError
from node.engine.blocks import Blocks, chain, next_key, root_key

ids = st.lists(st.integers(0, 2**32 - 1), max_size=20)


def computed(blocks: Blocks, keys: tuple[bytes, ...]) -> tuple[int, ...]:
    """Allocate and publish a chain."""
    held = blocks.allocate(len(keys))
    for block, key in zip(held, keys, strict=True):
        blocks.publish(block, key)
    return held


@given(ids, ids)
def test_chains_are_equal_exactly_as_far_as_the_full_blocks_are(first: list[int], second: list[int]):
    ours, theirs = chain("t", first, 4), chain("t", second, 4)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        assert (one == other) == (first[: 4 * index + 4] == second[: 4 * index + 4])


@given(ids)
def test_a_chain_has_one_key_per_full_block_and_grows_by_next_key(prompt: list[int]):
    keys = chain("t", prompt, 3)
    assert len(keys) == len(prompt) // 3
    parents = (root_key("t"), *keys)
    assert all(next_key(parents[i], prompt[3 * i : 3 * i + 3]) == key for i, key in enumerate(keys))


def test_tenants_never_share_a_key():
    prompt = list(range(8))
    assert not set(chain("a", prompt, 4)) & set(chain("b", prompt, 4))


def test_the_same_ids_at_another_depth_have_another_key():
    first, second = chain("t", [1, 2, 1, 2], 2)
    assert first != second


def test_more_than_is_available_changes_nothing():
    blocks = Blocks(4, 2)
    held = blocks.allocate(3)
    with pytest.raises(LimitError, match="`2` blocks are wanted, 1 of 4 are available"):
        blocks.allocate(2)
    assert blocks.available == 1
    blocks.check_integrity([held])


def test_a_released_chain_is_found_and_shared():
    blocks = Blocks(4, 2)
    keys = chain("t", [1, 2, 3, 4], 2)
    held = computed(blocks, keys)
    blocks.release(held)
    assert blocks.available == 4
    assert blocks.match(keys) == held
    assert blocks.cost(held) == 2
    blocks.share(held)
    assert blocks.available == 2
    blocks.share(blocks.match(keys))
    blocks.check_integrity([held, held])


def test_a_match_ends_at_the_first_gap():
    blocks = Blocks(4, 2)
    keys = chain("t", [1, 2, 3, 4, 5, 6], 2)
    (block,) = blocks.allocate(1)
    blocks.publish(block, keys[0])
    (other,) = blocks.allocate(1)
    blocks.publish(other, keys[2])
    assert blocks.match(keys) == (block,)


def test_the_deep_end_of_the_oldest_chain_is_evicted_first():
    blocks = Blocks(4, 2)
    old, new = chain("t", [1, 2, 3, 4], 2), chain("t", [5, 6, 7, 8], 2)
    for keys in (old, new):
        blocks.release(computed(blocks, keys))
    blocks.allocate(1)
    assert len(blocks.match(old)) == 1
    assert len(blocks.match(new)) == 2
    blocks.allocate(1)
    assert len(blocks.match(old)) == 0


def test_blocks_without_a_name_are_taken_before_cached_ones():
    blocks = Blocks(3, 2)
    keys = chain("t", [1, 2], 2)
    plain = blocks.allocate(1)
    blocks.release(computed(blocks, keys))
    blocks.release(plain)
    blocks.allocate(2)
    assert len(blocks.match(keys)) == 1


def test_the_second_of_two_equal_blocks_keeps_no_name():
    blocks = Blocks(2, 2)
    (key,) = chain("t", [1, 2], 2)
    first, second = computed(blocks, (key,)), computed(blocks, (key,))
    assert blocks.match((key,)) == first
    blocks.release(second)
    blocks.check_integrity([first])


@pytest.mark.parametrize("held", [[], [(0, 0)], [(1,)]])
def test_the_integrity_check_objects_to_a_wrong_account(held: list[tuple[int, ...]]):
    blocks = Blocks(2, 2)
    blocks.allocate(1)
    blocks.check_integrity([(0,)])
    with pytest.raises(AssertionError):
        blocks.check_integrity(held)


def test_a_double_release_is_our_bug():
    blocks = Blocks(2, 2)
    held = blocks.allocate(1)
    blocks.release(held)
    with pytest.raises(AssertionError, match="released twice"):
        blocks.release(held)


class Account(RuleBasedStateMachine):
    """Any order of calls keeps the account."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(6, 1)
        self.held: list[tuple[int, ...]] = []

    @rule(prompt=st.lists(st.integers(0, 2), min_size=1, max_size=4))
    def compute(self, prompt: list[int]) -> None:
        keys = chain("t", prompt, 1)
        shared = self.blocks.match(keys)
        if len(keys) - len(shared) > self.blocks.available - self.blocks.cost(shared):
            return
        self.blocks.share(shared)
        held = shared + self.blocks.allocate(len(keys) - len(shared))
        for block, key in zip(held, keys, strict=True):
            self.blocks.publish(block, key)
        self.held.append(held)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100))
    def release(self, which: int) -> None:
        self.blocks.release(self.held.pop(which % len(self.held)))

    @invariant()
    def account_is_right(self) -> None:
        self.blocks.check_integrity(self.held)
        distinct = {block for held in self.held for block in held}
        assert self.blocks.available == self.blocks.count - len(distinct)


TestAccount = Account.TestCase

"""Laws of the prefix that decides where a prompt goes."""

import random

from hypothesis import given
from hypothesis import strategies as st

import mesh.prefix
from mesh.attempt import Attempt, Parameters, Segment
from mesh.prefix import BLOCK_BYTES, BRANCHES, DEPTH_MAX, Prefixes, chain, head_of, salt_of

SALT = b"m"
texts = st.binary(max_size=6 * BLOCK_BYTES)


def random_bytes(seed: int, blocks: float) -> bytes:
    return random.Random(seed).randbytes(int(blocks * BLOCK_BYTES))


def learned(system: bytes, conversations: int = BRANCHES) -> Prefixes:
    """An entry that has seen conversations under one system prompt."""
    prefixes = Prefixes()
    for seed in range(conversations):
        prefixes.key_of(SALT, system + random_bytes(1000 + seed, 3))
    return prefixes


@given(texts, texts)
def test_the_chain_of_a_longer_prompt_begins_with_that_of_its_beginning(head, more) -> None:
    shorter, longer = list(chain(SALT, head)), list(chain(SALT, head + more))
    assert longer[: len(shorter)] == shorter
    assert len(longer) == len(head + more) // BLOCK_BYTES


def test_a_chain_has_a_bounded_length_and_differs_by_salt() -> None:
    head = bytes(BLOCK_BYTES * (DEPTH_MAX + 5))
    assert len(set(chain(SALT, head))) == DEPTH_MAX
    assert not set(chain(SALT, head)) & set(chain(b"other", head))


@given(st.integers(1, 20), st.integers(0, 99))
def test_all_turns_of_a_conversation_have_one_key(turns, seed) -> None:
    prefixes, history, keys = Prefixes(), random_bytes(seed, 1.5), set()
    for turn in range(turns):
        keys.add(prefixes.key_of(SALT, history))
        history += random_bytes(seed + turn + 1, 1.7)
    assert len(keys) == 1 and b"" not in keys


def test_under_a_shared_system_prompt_every_conversation_has_its_own_key_for_all_its_turns() -> None:
    system = random_bytes(1, 15.6)
    prefixes = learned(system)
    keys = []
    for seed in range(50):
        first = system + random_bytes(2000 + seed, 1)
        keys.append(prefixes.key_of(SALT, first))
        assert prefixes.key_of(SALT, first + random_bytes(3000 + seed, 9)) == keys[-1]
    assert len(set(keys)) == 50


def test_two_entries_that_saw_other_conversations_agree() -> None:
    system, prompt = random_bytes(1, 40.2), random_bytes(7, 3)
    one, other = learned(system), Prefixes()
    for seed in range(BRANCHES + 3):
        other.key_of(SALT, system + random_bytes(5000 + seed, 30))
    assert one.key_of(SALT, system + prompt) == other.key_of(SALT, system + prompt) != b""


def test_what_is_shared_to_its_end_or_shorter_than_a_block_has_no_home() -> None:
    system = random_bytes(1, 4)
    assert learned(system).key_of(SALT, system) == b""
    assert Prefixes().key_of(SALT, bytes(BLOCK_BYTES - 1)) == b""


def test_fewer_continuations_are_one_conversation_that_was_edited() -> None:
    system = random_bytes(1, 4)
    (first, *_) = chain(SALT, system)
    assert learned(system, BRANCHES - 1).key_of(SALT, system + random_bytes(9, 2)) != first
    assert learned(system, BRANCHES - 2).key_of(SALT, system + random_bytes(9, 2)) == first


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 8)), max_size=60))
def test_what_is_remembered_is_bounded(prompts) -> None:
    prefixes, before = Prefixes(), mesh.prefix.PREFIXES_MAX
    mesh.prefix.PREFIXES_MAX = 16
    try:
        for system, user, blocks in prompts:
            prefixes.key_of(SALT, random_bytes(system, 3) + random_bytes(100 + user, blocks))
            assert len(prefixes) <= 16
            assert all(len(after) <= BRANCHES for after in prefixes._after.values())
    finally:
        mesh.prefix.PREFIXES_MAX = before


segments = st.lists(
    st.one_of(
        st.builds(lambda text: Segment("text", text), st.text(max_size=99)),
        st.builds(lambda ids: Segment("ids", ids=tuple(ids)), st.lists(st.integers(0, 2**32), max_size=99)),
    ),
    min_size=1,
    max_size=4,
)


@given(segments, st.integers(0, 40))
def test_the_head_of_a_prompt_is_total_and_grows_at_its_end_only(prompt, more) -> None:
    def head(*pieces: Segment) -> bytes:
        return head_of(Attempt("m", pieces, Parameters(), 1))

    assert head(*prompt, Segment("text", "x" * more)).startswith(head(*prompt))


def test_the_head_of_a_huge_prompt_is_bounded_and_tenants_are_apart() -> None:
    huge = Attempt("m", (Segment("text", "é" * 10**6), Segment("text", "x")), Parameters(), 1)
    assert len(head_of(huge)) == BLOCK_BYTES * DEPTH_MAX
    assert salt_of(huge) != salt_of(Attempt("m", huge.prompt, Parameters(), 1, tenant="t"))

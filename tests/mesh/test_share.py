from hypothesis import given
from hypothesis import strategies as st

from mesh.share import BURST_S, FLOOR_S, SHARE, Share, Worth


@given(st.lists(st.tuples(st.floats(0, 0.05), st.floats(0.0001, 0.01), st.sampled_from(Worth)), max_size=400))
def test_the_share_is_never_passed_by_more_than_a_burst_and_one_datagram(steps):
    share, mono, spent = Share(), 0.0, 0.0
    for wait_s, cost_s, worth in steps:
        mono += wait_s
        if share.admits(mono, worth):
            share.spend(cost_s)
            spent += cost_s
    assert spent <= BURST_S - min(FLOOR_S.values()) + SHARE * mono + 0.01


def test_the_least_valuable_is_shed_first():
    share = Share()
    heard = dict.fromkeys(Worth, 0)
    for tick in range(60_000):
        worth = Worth(tick % 3)
        if share.admits(tick * 0.001, worth):
            share.spend(0.002)
            heard[worth] += 1
    assert heard[Worth.STRANGER] < heard[Worth.BULK] < heard[Worth.VITAL]
    assert heard[Worth.VITAL] > 10 * heard[Worth.STRANGER]


def test_an_idle_node_is_back_in_full_after_ten_bursts():
    share = Share()
    share.admits(0, Worth.VITAL)
    share.spend(2 * BURST_S)
    assert not share.admits(0, Worth.VITAL)
    assert share.admits(20, Worth.STRANGER)

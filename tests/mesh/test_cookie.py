from hypothesis import given
from hypothesis import strategies as st

from mesh.cookie import LIFE_MAX_S, SLOT_S, Cookies

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.1", 2)


@given(st.floats(0, 1e9), st.floats(0, SLOT_S))
def test_a_cookie_is_good_for_a_slot_at_least_and_two_at_most(mono, later):
    cookies = Cookies(bytes(32))
    cookie = cookies.bake(mono, HERE, b"session!", 77)
    assert cookies.floor(cookie, mono + later, HERE, b"session!") == 77
    assert cookies.floor(cookie, mono + LIFE_MAX_S + SLOT_S * 0.01, HERE, b"session!") is None


def test_a_cookie_is_good_for_one_address_one_session_and_one_giver():
    cookie = Cookies(bytes(32)).bake(5.0, HERE, b"session!", 77)
    assert Cookies(bytes(32)).floor(cookie, 5.0, THERE, b"session!") is None
    assert Cookies(bytes(32)).floor(cookie, 5.0, HERE, b"session?") is None
    assert Cookies(bytes(31) + b"x").floor(cookie, 5.0, HERE, b"session!") is None


def test_the_secret_is_not_shown():
    assert "secret" not in repr(Cookies(b"secret"))


def test_nobody_can_lower_the_counter_in_a_cookie():
    cookie = Cookies(bytes(32)).bake(5.0, HERE, b"session!", 77)
    for counter in range(77):
        lower = counter.to_bytes(5, "big") + cookie[5:]
        assert Cookies(bytes(32)).floor(lower, 5.0, HERE, b"session!") is None

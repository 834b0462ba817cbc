import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.keyring import KEYS_MAX, KeyringError, MeshKey, label_bytes, line, parse
from tests.mesh.sealed_pair import ring, secret

GOOD = base64.b64encode(secret(1)).decode()


@given(st.lists(st.integers(1, 255), min_size=1, max_size=KEYS_MAX, unique=True))
def test_what_is_written_is_read_in_its_order(ids):
    keys = ring(*ids)
    assert parse("\n".join(map(line, keys.keys))) == keys


@pytest.mark.parametrize(
    "text",
    [
        f"7 {secret(1).hex()}",
        f"7 {secret(1).hex().upper()}",
        f"7\t{GOOD}",
        f"  7 {GOOD.rstrip('=')}  # since Monday\n\n# nothing more\n",
        f"7 {base64.urlsafe_b64encode(secret(1)).decode()}",
    ],
)
def test_a_key_may_be_written_in_base64_or_hex_with_comments(text):
    assert parse(text).keys == (MeshKey(7, secret(1)),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no key"),
        ("# only words", "no key"),
        (GOOD, "line 1 is not `ID KEY`"),
        (f"0 {GOOD}", "line 1 is not `ID KEY`"),
        (f"256 {GOOD}", "line 1 is not `ID KEY`"),
        (f"1 {GOOD} more", "line 1 is not `ID KEY`"),
        (f"1 {GOOD}\n1 {GOOD}", "line 2: key id `1` is there twice"),
        (f"1 {GOOD[:20]}", "has `15` bytes, not 32"),
        ("1 " + secret(1).hex()[:-2], "not 32"),
        ("1 pass-word!", "neither base64 nor hex"),
        ("1 " + "00" * 32, "not drawn at random"),
        ("\n".join(f"{n} {GOOD}" for n in range(1, KEYS_MAX + 2)), f"more than {KEYS_MAX}"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_hint(text, says):
    with pytest.raises(KeyringError, match=r".") as caught:
        parse(text)
    assert says in caught.value.message
    assert "\nhint: " in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_ring_or_an_error(text):
    try:
        assert parse(text).keys
    except KeyringError as error:
        assert error.hint


def test_a_key_never_shows_its_secret():
    shown = repr(ring(1, 2))
    assert secret(1).hex() not in shown and repr(secret(1))[2:-1] not in shown


def test_keys_of_different_names_sessions_and_secrets_have_nothing_in_common():
    one, two = MeshKey(1, secret(1)), MeshKey(1, secret(2))
    derived = [one.derive(b"a"), one.derive(b"b"), two.derive(b"a"), one.session_key(b"a"), one.knock_key]
    assert len(set(derived)) == len(derived)
    assert one.derive(b"a") == MeshKey(9, secret(1)).derive(b"a")


def test_labels_differ_in_all_that_is_bound():
    assert len({label_bytes(name) for name in ("", "a", "b", "inferno")}) == 4

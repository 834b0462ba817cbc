"""The mesh key file and the command that makes it."""

import os
import stat
from pathlib import Path

import pytest

from mesh.keyring import parse
from node import keys
from node.cli import main
from node.configure import SettingsError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.key"


def test_a_made_file_is_closed_to_others_and_read_again(path):
    key, is_new = keys.add(path)
    assert is_new and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.read(path).keys == (key,)


def test_the_next_key_goes_below_and_does_not_seal(path):
    first, _ = keys.add(path)
    path.write_text("# ours\n" + path.read_text())
    second, is_new = keys.add(path)
    assert not is_new
    assert keys.read(path).keys == (first, second) and second.id == first.id + 1
    assert path.read_text().startswith("# ours\n")


def test_after_id_255_the_least_free_one_is_taken():
    ring = parse("255 " + os.urandom(32).hex() + "\n1 " + os.urandom(32).hex())
    assert keys.fresh(ring).id == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_is_open_to_others_is_refused(path, mode):
    keys.add(path)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=r"open to others \(mode 0.*\nhint: chmod 600"):
        keys.read(path)


def test_a_missing_a_malformed_and_a_giant_file_are_refused(path):
    with pytest.raises(SettingsError, match=r"cannot be read: No such file.*\nhint"):
        keys.read(path)
    path.write_text("1 short\n")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"mesh.key`: line 1"):
        keys.read(path)
    path.write_bytes(b"#" * 5000)
    with pytest.raises(SettingsError, match="longer than 4096"):
        keys.read(path)


def test_a_full_ring_takes_no_more_and_stays_as_it_was(path):
    for _ in range(8):
        keys.add(path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="more than 8"):
        keys.add(path)
    assert path.read_bytes() == before


def test_the_command_prints_a_key_or_fills_a_file(path, capsys):
    assert main.main(["keys"]) == 0
    assert len(parse(capsys.readouterr().out).keys) == 1
    assert main.main(["keys", "--mesh-key-file", str(path)]) == 0
    assert "key 1 is in" in capsys.readouterr().out
    assert main.main(["keys", "--mesh-key-file", str(path)]) == 0
    assert "SIGHUP" in capsys.readouterr().out
    assert len(keys.read(path).keys) == 2


def test_a_node_does_not_start_with_a_bad_key_file(path, capsys):
    path.write_text("1 short\n")
    path.chmod(0o644)
    assert main.main(["--mesh-key-file", str(path)]) == 2
    assert "open to others" in capsys.readouterr().err

"""Who a node is across restarts."""

from pathlib import Path

import pytest

from mesh.identity import Identity
from node.configure import SettingsError
from node.identity import FILE, claimed, keep_generation, next_life


def test_without_a_data_directory_each_start_is_a_new_node() -> None:
    assert next_life(None).node != next_life(None).node


def test_with_one_the_id_stays_and_the_generation_rises(tmp_path: Path) -> None:
    lives = [next_life(tmp_path / "data") for _ in range(3)]
    assert len({life.node for life in lives}) == 1
    assert [life.generation for life in lives] == [1, 2, 3]
    assert all(life.incarnation == 0 for life in lives)


def test_the_next_life_begins_above_a_generation_to_which_the_last_one_rose(tmp_path: Path) -> None:
    life = next_life(tmp_path)
    keep_generation(tmp_path, Identity(life.node, 7, 3))
    assert next_life(tmp_path) == Identity(life.node, 8, 0)


def test_a_raised_generation_that_cannot_be_kept_is_an_error_and_without_a_directory_is_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used"):
        keep_generation(tmp_path / "file", Identity("a" * 16, 7, 0))
    keep_generation(None, Identity("a" * 16, 7, 0))


GENERATIONS = ("-3", "true", "281474976710655", "9" * 30)
DAMAGED = ("", "{", "[]", '{"node": "xyz", "generation": 1}', '{"node": 5}', "null")


@pytest.mark.parametrize(
    "text", [*DAMAGED, *(f'{{"node": "{"a" * 16}", "generation": {number}}}' for number in GENERATIONS)]
)
def test_a_damaged_file_is_refused_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SettingsError, match="damaged"):
        next_life(tmp_path)
    assert (tmp_path / FILE).read_text() == text


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used"):
        next_life(tmp_path / "file" / "data")


def test_two_processes_that_live_at_once_cannot_share_one(tmp_path: Path) -> None:
    with claimed(tmp_path / "data"):
        with pytest.raises(SettingsError, match="used by another node"), claimed(tmp_path / "data"):
            pass
        with claimed(tmp_path / "other"), claimed(None):
            pass
    with claimed(tmp_path / "data"):
        pass


def test_a_directory_that_cannot_be_claimed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used"), claimed(tmp_path / "file" / "data"):
        pass

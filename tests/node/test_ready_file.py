"""Where a node tells its starter how it can be reached."""

from pathlib import Path

import pytest

from node import ready_file
from node.configure import SettingsError


def test_it_appears_whole_and_replaces_what_an_earlier_start_left(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text("of the dead")
    ready_file.prepare(path)
    assert not path.exists()
    ready_file.write(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("ready.json", "new")]


@pytest.mark.parametrize("name", ["missing/ready.json", "file/ready.json", "directory", "device"])
def test_a_place_that_cannot_hold_it_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "directory").mkdir()
    (tmp_path / "device").symlink_to("/dev/null")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match="hint: --ready-file names a file"):
        ready_file.prepare(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_none_is_wanted() -> None:
    ready_file.prepare(None)

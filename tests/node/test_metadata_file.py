"""The file that a node publishes: read whole, or refused with what is wrong."""

import pytest

from node import metadata_file
from node.configure import SettingsError


def test_the_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "labels"
    for value in (b"", b"zone = 'b'\n", bytes(65_536)):
        path.write_bytes(value)
        assert metadata_file.read(path) == value


def test_one_byte_too_many_is_refused_with_the_limit(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(bytes(65_537))
    with pytest.raises(SettingsError, match="over the limit of 65536 bytes"):
        metadata_file.read(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(SettingsError, match="nothing` cannot be read: No such file"):
        metadata_file.read(tmp_path / "nothing")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        metadata_file.read(tmp_path)

"""What engines keep between starts: found again whole, or made anew without a word."""

import os
from pathlib import Path

import pytest
import torch

from kernels import native
from node.engine import keep
from tests.node.engine.tiny import LLAMA, generate, load, write

PROMPT = list(range(5, 60))
TENSORS = {
    "a": torch.arange(-50, 50, dtype=torch.int8).view(4, 25),
    "b": torch.rand(3, 1, 7),
    "c": torch.tensor([2**31 - 1, -5], dtype=torch.int32),
}
compiled = pytest.mark.skipif(native.load() is None, reason="only the compiled kernels keep what they pack")


def test_what_is_written_is_read(tmp_path: Path):
    assert keep.write(tmp_path / "x", TENSORS)
    read = keep.read(tmp_path / "x")
    assert read is not None
    assert [*read] == [*TENSORS]
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    assert all(tensor.data_ptr() % 64 == 0 for tensor in read.values())
    assert [*tmp_path.iterdir()] == [tmp_path / "x"]


def test_no_damage_is_taken_for_weights(tmp_path: Path):
    file = tmp_path / "x"
    keep.write(file, TENSORS)
    good = file.read_bytes()
    spoilt = [good[:-4096], good[:100], b"", good[:20] + b"?" + good[21:], b"\xff" * len(good)]
    first_bytes = (4096, 8192, 12288)  # of the tensors
    spoilt += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in first_bytes]
    for content in spoilt:
        file.unlink()
        file.write_bytes(content)
        assert keep.read(file) is None
    assert keep.read(tmp_path / "none") is None


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path):
    assert not keep.write(tmp_path / "no directory" / "x", TENSORS)
    assert [*tmp_path.iterdir()] == []


def test_the_longest_unused_go_first(tmp_path: Path):
    for age, name in enumerate("abc"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    keep.make_room(tmp_path, 50, bytes_max=250)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


@compiled
def test_a_second_start_maps_what_the_first_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keep, "BYTES_MIN", 0)
    model, kept = write(tmp_path / "model", LLAMA), tmp_path / "keep"
    first = load(model, dtype="int8", keep=kept)
    text = generate(first, PROMPT, 8)
    (file,) = (kept / "packed").iterdir()
    size, inode = file.stat().st_size, file.stat().st_ino
    second = load(model, dtype="int8", keep=kept)
    assert (second.policy, generate(second, PROMPT, 8)) == (first.policy, text)
    assert file.stat().st_ino == inode, "it was packed and written again"
    short = file.read_bytes()[:-5000]
    file.unlink()  # mapped by the two before
    file.write_bytes(short)
    third = load(model, dtype="int8", keep=kept)
    assert (third.policy, generate(third, PROMPT, 8)) == (first.policy, text)
    assert file.stat().st_size == size


def test_a_digest_is_computed_again_when_a_file_changes(tmp_path: Path):
    file, asked = tmp_path / "weights", []

    def compute() -> str:
        asked.append(file.read_text())
        return keep.hashlib.sha256(asked[-1].encode()).hexdigest()

    file.write_text("one")
    first = keep.digest_of(tmp_path / "keep", [file], compute)
    assert keep.digest_of(tmp_path / "keep", [file], compute) == first
    file.write_text("two")
    assert keep.digest_of(tmp_path / "keep", [file], compute) != first
    assert asked == ["one", "two"]
    for kept in (tmp_path / "keep" / "digests").iterdir():
        kept.write_text("no digest")
    keep.digest_of(tmp_path / "keep", [file], compute)
    assert asked == ["one", "two", "two"]


def test_old_digests_are_forgotten(tmp_path: Path):
    for age in range(10):
        (tmp_path / f"{age}").touch()
        os.utime(tmp_path / f"{age}", (1000 - age, 1000 - age))
    keep._forget(tmp_path, most=10)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "2", "3", "4"]
    keep._forget(tmp_path, most=10)
    assert len([*tmp_path.iterdir()]) == 5

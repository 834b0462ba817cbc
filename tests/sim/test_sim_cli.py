"""`python -m sim`: what it prints, and its exit status."""

import pytest

from sim.__main__ import BAD_USAGE, FAILED, Progress, main
from sim.checks import BoundsCheck


def test_a_run_that_holds_prints_its_digest_and_ends_with_0(capsys: pytest.CaptureFixture):
    assert main(["--scenario", "calm", "--seed", "3", "--minutes", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "times real time" in out
    assert "failed seeds: none" in out
    again = main(["--scenario", "calm", "--seed", "3", "--minutes", "0.05"])
    assert again == 0
    assert capsys.readouterr().out.splitlines()[:2] == out.splitlines()[:2]


def test_a_run_that_fails_prints_the_check_the_trace_and_the_replay_and_ends_with_1(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def spoil(self: BoundsCheck, host, effects) -> None:
        if host.world.time > 2.0:
            host.world.fail("bounds", "planted")

    monkeypatch.setattr(BoundsCheck, "after", spoil)
    assert main(["--scenario", "kill", "--seed", "7", "--minutes", "0.1", "--nodes", "4"]) == FAILED
    captured = capsys.readouterr()
    assert "error: bounds: planted" in captured.err
    assert "python -m sim --scenario kill --seed 7 --nodes 4 --minutes 0.1" in captured.err
    assert "started  generation=0" in captured.err
    assert "failed seeds: 7" in captured.out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--nodes", "1"], "`--nodes 1` is not within 2 to 1024"),
        (["--scenario", "kill", "--nodes", "2"], "`--nodes 2` is not within 3 to 1024"),
        (["--count", "0"], "`--count 0`"),
        (["--minutes", "0"], "`--minutes 0`"),
        (["--scenario", "earthquake"], "invalid choice"),
    ],
)
def test_bad_usage_is_named_and_ends_with_2(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == BAD_USAGE
    assert says in capsys.readouterr().err


def test_progress_says_what_how_far_how_fast_and_how_long(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr("sim.__main__.time.monotonic", lambda: clock[0])
    progress = Progress(seconds=20.0, count=2)
    progress.begin("kill seed 7, 5 nodes")
    clock[0] += 9.0
    progress.watch(5.0)
    assert capsys.readouterr().err == ""
    clock[0] += 1.0
    progress.watch(10.0)
    assert capsys.readouterr().err == "kill seed 7, 5 nodes   25%  1.0 virtual s/s  30 s left\n"

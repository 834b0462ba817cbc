"""A text worker's errands: each answered once, and only the one that it was at is blamed for its death."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.frames import Frame, Hello, Kind, Prepared, Progress, Reject
from node.engine.errands import STILLBORN_MAX, TRIES_MAX, WINDOW, WINDOW_BYTES, Errand, Errands, prompt_ms_max

HELLO = Hello(1, "text").frame()


def errand(number: int, size: int = 10) -> Errand:
    return Errand(Frame(Kind.OPEN, number, 1, bytes(size)), "messages")


def asked(*numbers: int) -> Errands:
    errands = Errands()
    for number in numbers:
        errands.add(errand(number))
    assert [frame.flight for frame in errands.take()] == list(numbers)[:WINDOW]
    return errands


def done(number: int) -> Frame:
    return Prepared((number,)).frame(number, 1)


def died(errands: Errands, timed_out: bool = False) -> list:
    return errands.died("ended by signal 6", timed_out=timed_out, greeted=True)


def test_answers_go_to_their_errands():
    errands = asked(1, 2)
    assert errands.heard(HELLO) == []
    assert errands.heard(done(1)) == [(1, Prepared((1,)))]
    refusal = Reject("invalid_request", "no", False)
    assert errands.heard(refusal.frame(2, 1)) == [(2, refusal)]
    assert len(errands) == 0


def test_who_is_at_work_when_the_time_is_up_is_refused_and_the_others_are_not():
    errands = asked(1, 2, 3)
    errands.heard(done(1))
    ((number, refusal),) = died(errands, timed_out=True)
    assert (number, refusal.code, refusal.retryable, refusal.param) == (
        2,
        "invalid_request",
        False,
        "messages",
    )
    assert "took longer than 1000 ms" in refusal.message
    assert [frame.flight for frame in errands.take()] == [3]
    assert (errands.deaths, errands.timeouts) == (1, 1)


def test_the_stage_that_took_too_long_is_named():
    errands = asked(1)
    errands.heard(Progress(1, 2).frame(1, 1))
    ((_, refusal),) = died(errands, timed_out=True)
    assert "grammar" in refusal.message
    assert refusal.param == "response_format"


def test_a_death_without_a_reason_is_forgiven_once():
    errands = asked(1, 2)
    for _ in range(TRIES_MAX - 1):
        assert died(errands) == []
        assert [frame.flight for frame in errands.take()] == [1, 2]
    ((number, refusal),) = died(errands)
    assert (number, refusal.retryable) == (1, False)
    assert "ended by signal 6 twice" in refusal.message
    assert [frame.flight for frame in errands.take()] == [2]
    assert errands.heard(done(2)) == [(2, Prepared((2,)))]


def test_a_worker_that_cannot_start_sends_everybody_elsewhere():
    errands = asked(1, 2)
    for _ in range(STILLBORN_MAX - 1):
        assert errands.died("ended with status 1", timed_out=False, greeted=False) == []
    answers = errands.died("ended with status 1", timed_out=False, greeted=False)
    assert [(number, reject.retryable) for number, reject in answers] == [(1, True), (2, True)]
    assert len(errands) == 0


def test_nobody_is_blamed_for_the_death_of_an_idle_worker():
    assert died(Errands()) == []


def test_a_worker_holds_a_window_and_one_that_is_larger():
    errands = Errands()
    for number in range(1, WINDOW + 5):
        errands.add(errand(number))
    assert len(errands.take()) == WINDOW
    big = Errands()
    for number in (1, 2, 3):
        big.add(errand(number, WINDOW_BYTES // 2 + 1))
    assert [frame.flight for frame in big.take()] == [1]
    big.heard(done(1))
    assert [frame.flight for frame in big.take()] == [2]


def test_longer_prompts_have_longer():
    assert prompt_ms_max(0) == 1000
    assert prompt_ms_max(2**20) == 3000


def test_nonsense_is_counted_and_its_errand_goes_elsewhere():
    errands = asked(1)
    assert errands.heard(done(9)) == []
    ((number, reject),) = errands.heard(Frame(Kind.PREPARED, 1, 1, b"\xc1"))
    assert (number, reject.retryable, errands.malformed) == (1, True, 2)


moves = st.lists(
    st.sampled_from(["add", "take", "answer", "time", "crash", "stillborn", "forget"]), max_size=60
)


@given(moves)
def test_each_errand_is_answered_once_or_forgotten(moves: list[str]):
    errands, added, settled, out = Errands(), 0, [], []
    for move in [*moves, *["take", "answer"] * (moves.count("add") + 1)]:
        answers = []
        match move:
            case "add":
                added += 1
                errands.add(errand(added))
            case "take":
                out += [frame.flight for frame in errands.take()]
            case "answer" if out:
                answers = errands.heard(done(out.pop(0)))
            case "time" | "crash" | "stillborn":
                greeted = move != "stillborn"
                answers = errands.died("died", timed_out=move == "time", greeted=greeted)
                assert not greeted or {number for number, _ in answers} <= set(out[:1])
                out = []
            case "forget" if added not in [*out, *(n for n, _ in settled)] and added:
                errands.forget(added)
                settled.append((added, None))
        settled += answers
    numbers = [number for number, _ in settled]
    assert sorted(set(numbers)) == list(range(1, added + 1))
    assert len(numbers) == len(set(numbers)) + sum(1 for n in set(numbers) if numbers.count(n) > 1)
    assert all(numbers.count(n) == 1 or (n, None) in settled for n in numbers)
    assert len(errands) == 0

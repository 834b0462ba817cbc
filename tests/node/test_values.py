"""Words to values and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import values
from node.values import HostPort

hosts = st.one_of(st.ip_addresses().map(str), st.sampled_from(["localhost", "node-3.rack.example"]))
addresses = st.builds(HostPort, hosts, st.integers(0, 65535))


@given(addresses)
def test_an_address_survives_being_written(address: HostPort):
    assert values.host_port(str(address)) == address


@given(st.integers(0, 2**44))
def test_a_number_of_bytes_survives_being_written(count: int):
    assert values.byte_count(values.show(count, "bytes")) == count


@given(st.floats(0.001, 1e6))
def test_a_duration_survives_being_written(duration: float):
    assert values.seconds(values.show(duration, "s")) == pytest.approx(duration, rel=1e-9)


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.text()))
def test_a_parser_answers_or_raises_value_error(anything: object):
    for parse in (
        values.host_port,
        values.peer_address,
        values.whole,
        values.byte_count,
        values.seconds,
        values.node_name,
        values.device,
        values.threads,
        values.path,
        values.words,
        values.one_of("a", "b"),
    ):
        try:
            parse(anything)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text", ["8080", ":8080", "[::1]", "::1:80", "a b:1", "h:-1", "h:65536", "h:x", "[x]:1", "h:٣"]
)
def test_this_is_no_address(text: str):
    with pytest.raises(ValueError, match=r"."):
        values.host_port(text)


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
    ],
)
def test_loopback_is_known(address: str, answer: bool):
    assert values.host_port(address).is_loopback is answer


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("4MiB", 4 << 20), ("4 mib", 4 << 20), ("1.5KiB", 1536), (7, 7), ("2KB", 2000)],
)
def test_bytes_have_units(text: object, count: int):
    assert values.byte_count(text) == count


@pytest.mark.parametrize(
    ("text", "duration"), [("2", 2), ("250ms", 0.25), ("1.5m", 90), (3, 3), (0.5, 0.5), ("1h", 3600)]
)
def test_durations_have_units(text: object, duration: float):
    assert values.seconds(text) == pytest.approx(duration)


@pytest.mark.parametrize("text", ["x", "-1", "1 week", "", "nan", "1e9", True])
def test_this_is_neither_bytes_nor_duration(text: object):
    for parse in (values.byte_count, values.seconds):
        with pytest.raises(ValueError, match="as in"):
            parse(text)

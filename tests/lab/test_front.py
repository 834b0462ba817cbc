"""The front between two sockets: what it says of senders, and what rules do to what it carries."""

import os
import socket
from collections.abc import Iterator

import pytest

from tests.lab.ask import figures, total
from tests.lab.sockets import descriptors, encoded, inode, owner


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def test_the_kernel_says_whose_a_connection_is(listener: socket.socket) -> None:
    here = listener.getsockname()
    with socket.create_connection(here) as dialled:
        number = inode("tcp", dialled.getsockname(), here)
        assert f"socket:[{number}]" in descriptors(os.getpid())
        assert owner([os.getppid(), os.getpid()], number) == os.getpid()
        assert inode("tcp", dialled.getsockname(), ("127.0.0.1", 1)) == ""
    assert owner([os.getpid()], "") is None


def test_the_kernel_says_whose_a_datagram_socket_is() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        assert owner([os.getpid()], inode("udp", sock.getsockname())) == os.getpid()


def test_addresses_are_written_as_the_kernel_writes_them() -> None:
    assert encoded(("127.0.0.1", 8080)) == "0100007F:1F90"


def test_series_are_summed_over_their_labels() -> None:
    series = figures('# HELP x\nx{a="1"} 2.0\nx{a="2"} 3.0\nxy 7.0\n')
    assert total(series, "x") == 5.0 and total(series, "xy") == 7.0

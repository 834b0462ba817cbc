"""A link on a blocking socket, for processes that do one thing at a time."""

import socket

import attrs

from mesh.frames import Frame
from mesh.link import Link

READ_BYTES = 256 * 1024
DRAIN_READS_MAX = 64
"""Most reads between two steps: 16 MiB, so that a flood of requests cannot stop those at hand."""


@attrs.define
class Channel:
    """A link on a blocking socket."""

    socket: socket.socket
    link: Link

    def send(self, frames: list[Frame]) -> None:
        """Write frames, and whatever waited before. Raises ConnectionError if the other side has gone."""
        for frame in frames:
            self.link.send(frame)
        while self.link.outbox_bytes:
            self.socket.sendall(self.link.output())

    def receive(self, wait: bool) -> list[Frame]:
        """Read what has come; `wait` for something. Raises ConnectionError if the other side has gone."""
        frames = self._read(0) if wait else []
        for _ in range(DRAIN_READS_MAX):
            try:
                frames += self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        return frames

    def _read(self, flags: int) -> list[Frame]:
        data = self.socket.recv(READ_BYTES, flags)
        if not data:
            raise ConnectionResetError("the other side has closed the link")
        return self.link.input(data)

"""Private networks: namespaces of their own, so that counters are the mesh's alone and rules hurt nobody else.

A network has one side, whose nodes talk over its loopback, or two, joined by a virtual cable that
can be cut one way or both. Addresses lie in 127/8 on both, so that nodes need no mesh key. A
side exists as long as its holder process; the holders end with this process, however that ends.

Packets are dropped where they arrive: dropped where they leave, the sender would be told (EPERM).
"""

import os
import shutil
import subprocess
from pathlib import Path

import attrs

from node.cli.fleet import wait_until

HELD_S = 5.0
"""A namespace that is not there by then will not come."""

TABLE = "inet bench"

SHORT_LIVED = ("setpriv", "--pdeathsig", "KILL", "--")
"""Put before a command, so that it ends with this process."""

TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux", "ip": "iproute2"}


def missing() -> str:
    """Say what this machine lacks for private networks; empty if nothing."""
    if not Path("/proc/self/ns/net").exists():
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [tool for tool in (*TOOLS, "nft") if shutil.which(tool) is None]
    packages = {TOOLS.get(tool, "nftables") for tool in lacking}
    return f"there is no {', '.join(lacking)} (apt install {' '.join(sorted(packages))})" if lacking else ""


@attrs.frozen
class Traffic:
    """What a side's interface has carried so far."""

    bytes: int
    """With IP headers, without Ethernet's."""
    packets: int
    datagrams: int
    """UDP alone."""


@attrs.define
class Side:
    """One network namespace."""

    holder: subprocess.Popen[bytes]
    address: str
    device: str

    def words(self, *command: str) -> list[str]:
        """The command, to be run inside."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *command]

    def run(self, *command: str, given: str = "") -> None:
        """Run a short command inside. Raises CalledProcessError."""
        subprocess.run(self.words(*command), input=given.encode(), check=True)

    def drop(self, what: str) -> None:
        """Drop arriving packets that match `what`, in nft's words, instead of what was dropped before."""
        self.heal()
        chain = f"type filter hook input priority 0; policy accept; {what} counter drop"
        self.run("nft", "-f", "-", given=f"table {TABLE} {{\nchain input {{\n{chain}\n}}\n}}\n")

    def lose(self, percent: int) -> None:
        """Drop this share of all packets that arrive, whatever they carry."""
        self.drop(f"numgen random mod 100 < {percent}")

    def cut(self) -> None:
        """Drop all that arrives from the other side."""
        self.drop(f"iifname {self.device}")

    def heal(self) -> None:
        """Drop nothing more."""
        self.run("nft", "-f", "-", given=f"table {TABLE}\ndelete table {TABLE}\n")

    def traffic(self) -> Traffic:
        """Read the counters."""
        lines = Path(f"/proc/{self.holder.pid}/net/dev").read_text().splitlines()
        received = next(line.split() for line in lines if line.strip().startswith(f"{self.device}:"))
        snmp = Path(f"/proc/{self.holder.pid}/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in snmp if line.startswith("Udp:"))
        datagrams = int(dict(zip(names, values, strict=True))["OutDatagrams"])
        return Traffic(int(received[1]), int(received[2]), datagrams)


class Space:
    """A private network of one side or two. A context manager: it is gone at the end."""

    def __init__(self, sides: int) -> None:
        assert sides in (1, 2), "a cable has two ends"
        self.sides = [_side(number, sides) for number in range(sides)]
        if sides == 2:
            self._join(*self.sides)

    def __enter__(self) -> "Space":
        return self

    def __exit__(self, *_: object) -> None:
        for side in self.sides:
            side.holder.kill()
            side.holder.wait()

    def heal(self) -> None:
        """End every cut and loss."""
        for side in self.sides:
            side.heal()

    @staticmethod
    def _join(one: Side, other: Side) -> None:
        peer = ("peer", "name", other.device, "netns", str(other.holder.pid))
        one.run("ip", "link", "add", one.device, "type", "veth", *peer)
        for side in (one, other):
            side.run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
            side.run("ip", "address", "add", "127.0.0.1/32", "dev", "lo")
            side.run("sysctl", "-qw", f"net.ipv4.conf.{side.device}.route_localnet=1")
            side.run("ip", "address", "add", f"{side.address}/24", "dev", side.device)
            side.run("ip", "link", "set", side.device, "up")


def _side(number: int, sides: int) -> Side:
    holder = subprocess.Popen([*SHORT_LIVED, "unshare", "--net", "sleep", "infinity"])
    ours = os.readlink("/proc/self/ns/net")

    def is_there() -> bool:
        return os.readlink(f"/proc/{holder.pid}/ns/net") != ours

    wait_until(is_there, HELD_S, "a network namespace")
    address, device = ("127.0.0.1", "lo") if sides == 1 else (f"127.77.0.{number + 1}", "cable")
    side = Side(holder, address, device)
    side.run("ip", "link", "set", "lo", "up")
    return side

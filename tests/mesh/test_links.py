"""All links of two nodes in memory: dialling, greeting, silence, succession."""

import attrs
import pytest

from mesh.effects import CloseLink, Dial, FlushLink
from mesh.facts import LinkDown, LinkSilent, LinkUp, TwinMet
from mesh.frames import Frame, Hello, Kind
from mesh.links import LAG_MAX_S, Links, format_address, parse_address
from mesh.now import Now

A, B, C = "a" * 16, "b" * 16, "c" * 16
WHERE = {A: ("127.0.0.1", 1), B: ("127.0.0.1", 2), C: ("127.0.0.1", 3)}


def links(node: str, in_use: bool = True) -> Links:
    hello = Hello(1, node, name=node[0], gossip=format_address(WHERE[node]))
    return Links(hello, in_use=lambda link, node: in_use)


@attrs.define
class Pair:
    """Two nodes; `wires` joins a link of one to a link of the other."""

    one: Links = attrs.Factory(lambda: links(A))
    two: Links = attrs.Factory(lambda: links(B))
    now: float = 0.0
    frozen: bool = False
    wires: list[tuple[int, int]] = attrs.Factory(list)
    heard: dict[str, list] = attrs.Factory(lambda: {A: [], B: []})

    @property
    def at(self) -> Now:
        return Now(self.now, self.now)

    def carry_out(self, outputs: list) -> None:
        for output in outputs:
            if isinstance(output, Dial):
                link, more = self.two.accepted(self.at)
                self.wires.append((output.link, link))
                self.heard[B] += more
                self.heard[A] += self.one.opened(self.at, output.link)
            elif not isinstance(output, FlushLink):
                self.heard[A].append(output)

    def flow(self) -> None:
        for _ in range(4):
            for a, b in self.wires:
                data = self.one.output(a, 1 << 20)  # taken and lost, if the other is frozen
                if data and not self.frozen:
                    self.take(B, *self.two.input(self.at, b, data))
                if not self.frozen and (data := self.two.output(b, 1 << 20)):
                    self.take(A, *self.one.input(self.at, a, data))

    def take(self, node: str, frames: list, outputs: list) -> None:
        self.heard[node] += [o for o in outputs if not isinstance(o, FlushLink)] + frames

    def send(self, flight: int = 1) -> None:
        self.carry_out(self.one.send(self.at, Frame(Kind.OPEN, flight, 1, b"x"), B, WHERE[B]))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + 0.05, 6)
            self.carry_out(self.one.tick(self.at))
            if not self.frozen:
                self.two.tick(self.at)
            self.flow()


def test_a_frame_waits_for_the_dial_and_then_arrives() -> None:
    pair = Pair()
    pair.send()
    pair.flow()
    assert LinkUp(1, A) in pair.heard[B]
    assert Frame(Kind.OPEN, 1, 1, b"x") in pair.heard[B]
    assert LinkUp(1, B) in pair.heard[A]


def test_one_link_serves_both_ways() -> None:
    pair = Pair()
    pair.send()
    pair.flow()
    outputs = pair.two.send(pair.at, Frame(Kind.TOKENS, 1, 1, b"y"), A, WHERE[A])
    assert outputs == [FlushLink(1)]
    gossip = pair.two.send(pair.at, Frame(Kind.GOSSIP, body=b"g"), "", WHERE[A])
    assert gossip == [FlushLink(1)], "found by the address that the hello named"
    pair.flow()
    assert Frame(Kind.TOKENS, 1, 1, b"y") in pair.heard[A]


def test_a_second_send_does_not_dial_again() -> None:
    pair = Pair()
    pair.send(1)
    pair.send(2)
    pair.flow()
    assert len(pair.wires) == 1


def test_a_failed_dial_loses_what_was_meant_for_that_node() -> None:
    one = links(A)
    now = Now(0, 0)
    one.send(now, Frame(Kind.OPEN, 1, 1, b"x"), B, WHERE[B])
    assert one.lost(now, 1, "refused") == [LinkDown(1, B, "refused", True)]
    assert isinstance(one.send(now, Frame(Kind.OPEN, 1, 2, b"x"), B, WHERE[B])[0], Dial), (
        "and is dialled anew"
    )


def test_another_node_at_the_address_is_not_taken_for_the_one_that_was_meant() -> None:
    one, other = links(A), links(C)
    now = Now(0, 0)
    one.send(now, Frame(Kind.OPEN, 1, 1, b"x"), B, WHERE[B])
    one.opened(now, 1)
    link, _ = other.accepted(now)
    _, outputs = one.input(now, 1, other.output(link, 9999))
    assert isinstance(outputs[0], CloseLink) and outputs[1] == LinkDown(1, B, outputs[0].reason, True)


def test_a_node_that_dials_itself_closes_the_link() -> None:
    one = links(A)
    now = Now(0, 0)
    link, _ = one.accepted(now)
    _, outputs = one.input(now, link, Links(one.hello).hello.frame() and _hello_bytes(one.hello))
    assert isinstance(outputs[0], CloseLink)


@pytest.mark.parametrize("facts", [{"gossip": format_address(WHERE[B])}, {"generation": 7}])
def test_another_process_with_our_id_is_met_and_its_link_is_closed(facts: dict) -> None:
    one = links(A)
    now = Now(0, 0)
    link, _ = one.accepted(now)
    theirs = attrs.evolve(one.hello, **facts)
    frames, outputs = one.input(now, link, _hello_bytes(theirs))
    assert not frames and outputs[0] == TwinMet(parse_address(theirs.gossip))
    assert isinstance(outputs[1], CloseLink) and not len(one)


def test_a_greeting_in_our_name_without_an_address_is_no_twin() -> None:
    one = links(A)
    link, _ = one.accepted(Now(0, 0))
    _, outputs = one.input(Now(0, 0), link, _hello_bytes(attrs.evolve(one.hello, gossip="nowhere")))
    assert not [output for output in outputs if isinstance(output, TwinMet)]


def _hello_bytes(hello: Hello) -> bytes:
    from mesh.link import Link

    return Link(hello).output()


def test_silence_is_reported_once_and_undone_by_an_echo() -> None:
    pair = Pair()
    pair.send()
    pair.run(1.0)
    pair.frozen = True
    pair.run(3.0)
    silent = [o for o in pair.heard[A] if isinstance(o, LinkSilent)]
    assert [o.node for o in silent] == [B] and 1.0 < silent[0].silent_s < 1.5
    pair.frozen = False
    pair.run(0.5)
    pair.frozen = True
    pair.run(3.0)
    assert len([o for o in pair.heard[A] if isinstance(o, LinkSilent)]) == 2


def test_an_idle_link_is_never_silent_while_its_peer_lives() -> None:
    pair = Pair()
    pair.send()
    pair.run(20)
    assert not [o for o in pair.heard[A] if isinstance(o, LinkSilent | LinkDown)]


def test_a_link_silent_for_long_is_closed() -> None:
    pair = Pair()
    pair.send()
    pair.run(1)
    pair.frozen = True
    pair.run(31)
    assert [o.node for o in pair.heard[A] if isinstance(o, LinkDown)] == [B]


def test_a_link_that_no_request_uses_is_neither_pinged_nor_judged() -> None:
    pair = Pair(links(A, in_use=False), links(B, in_use=False))
    pair.send()
    pair.run(6)
    sent = pair.one._connections[1].link.statistics.frames_out
    pair.frozen = True
    pair.run(20)
    assert pair.one._connections[1].link.statistics.frames_out == sent
    assert not [o for o in pair.heard[A] if isinstance(o, LinkSilent)]


def test_a_request_on_a_link_that_rested_gives_its_peer_full_time() -> None:
    pair = Pair(links(A, in_use=False), links(B, in_use=False))
    pair.send()
    pair.run(20)
    pair.frozen = True
    pair.send(2)
    pair.run(0.9)
    assert not [o for o in pair.heard[A] if isinstance(o, LinkSilent)]
    pair.run(0.6)
    assert [o.node for o in pair.heard[A] if isinstance(o, LinkSilent)] == [B]


def test_a_link_with_work_under_way_is_not_closed_however_quiet() -> None:
    pair = Pair()
    pair.send()
    pair.run(120)
    assert not [o for o in pair.heard[A] if isinstance(o, CloseLink)]


def test_an_unused_link_is_kept_and_closed_when_its_peer_is_held_dead() -> None:
    pair = Pair(links(A, in_use=False), links(B, in_use=False))
    pair.send()
    pair.run(300)
    assert not [o for o in pair.heard[A] if isinstance(o, CloseLink | LinkDown)]
    assert pair.one.drop(B, "dead") == [CloseLink(1, "dead"), LinkDown(1, B, "dead", True)]
    assert len(pair.one) == 0


def test_after_a_pause_of_our_own_nobody_is_judged() -> None:
    pair = Pair()
    pair.send()
    pair.run(1)
    pair.now += 20
    pair.carry_out(pair.one.tick(pair.at))
    assert not [o for o in pair.heard[A] if isinstance(o, LinkSilent | LinkDown)]
    assert pair.one.lag_s == LAG_MAX_S


def test_who_had_no_link_for_a_while_was_not_late_to_look_at_any() -> None:
    pair = Pair()
    pair.send()
    pair.run(1)
    pair.one.drop(B, "dead")
    assert pair.one.next_deadline() is None
    pair.now += 20
    pair.wires.clear()
    pair.send(2)
    pair.run(1)
    assert (pair.one.lag_s, pair.one.next_deadline() > pair.now) == (0.0, True)


def test_a_peer_that_says_it_is_slow_is_given_time() -> None:
    pair = Pair()
    pair.send()
    pair.run(1)
    pair.two.lag_s = 9.0
    pair.run(0.3)
    pair.frozen = True
    pair.run(1.8)
    assert not [o for o in pair.heard[A] if isinstance(o, LinkSilent)]


def test_whoever_does_not_greet_is_closed() -> None:
    one = links(A)
    link, _ = one.accepted(Now(0, 0))
    outputs = []
    for tenth in range(1, 80):
        outputs += one.tick(Now(tenth / 10, 0))
    assert outputs[0] == CloseLink(link, "no hello"), "within its time, and nothing before"


def test_broken_bytes_close_the_link_and_nothing_else() -> None:
    one = links(A)
    link, _ = one.accepted(Now(0, 0))
    frames, outputs = one.input(Now(0, 0), link, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert frames == [] and CloseLink in [type(o) for o in outputs]
    assert one.input(Now(0, 0), link, b"more") == ([], [])


def test_when_the_primary_goes_another_link_to_the_node_takes_over() -> None:
    pair = Pair()
    pair.send()
    pair.flow()
    second, _ = pair.one.accepted(pair.at)
    pair.one.input(pair.at, second, _hello_bytes(pair.two.hello))
    assert pair.one.lost(pair.at, 1, "reset") == [LinkDown(1, B, "reset", True)]
    assert pair.one.send(pair.at, Frame(Kind.OPEN, 2, 1, b"x"), B, WHERE[B]) == [FlushLink(second)]


def test_addresses_are_read_and_written() -> None:
    for text in ("127.0.0.1:80", "[::1]:7946"):
        assert format_address(parse_address(text)) == text
    for text in ("", "127.0.0.1", "x:70000", ":80", "h:-1", "h:" + "9" * 80):
        assert parse_address(text) is None

"""What the simulator found in links: each was a stream that waited for a kernel's backoff."""

from mesh.effects import CloseLink, Dial
from mesh.facts import LinkDown, LinkSilent
from mesh.frames import Frame, Hello, Kind
from mesh.link import Link
from mesh.links import Links, format_address
from mesh.now import Now

A, B = "a" * 16, "b" * 16
WHERE = ("127.0.0.1", 2)
OPEN = Frame(Kind.OPEN, 1, 1, b"x")


def at(seconds: float) -> Now:
    return Now(seconds, seconds)


def hello(node: str) -> Hello:
    return Hello(1, node, name=node[0], gossip=format_address(WHERE))


def greeted() -> tuple[Links, Link]:
    """Return node A's links, one of them up to B, and B's end of it."""
    links, peer = Links(hello(A)), Link(hello(B))
    links.send(at(0), OPEN, B, WHERE)
    links.opened(at(0), 1)
    links.input(at(0), 1, peer.output())
    return links, peer


def silenced(links: Links) -> None:
    found = [output for tenths in range(1, 20) for output in links.tick(at(tenths / 10))]
    assert any(isinstance(output, LinkSilent) for output in found)


def test_a_silent_link_is_dialled_anew_once_its_peer_has_answered_otherwise() -> None:
    links, _ = greeted()
    silenced(links)
    links.refresh(B)
    outputs = links.send(at(2), OPEN, B, WHERE)
    assert outputs[:2] == [CloseLink(1, "stuck"), LinkDown(1, B, "stuck", primary=False)]
    assert outputs[2] == Dial(2, WHERE)


def test_a_silent_link_that_speaks_again_is_kept() -> None:
    links, peer = greeted()
    silenced(links)
    links.refresh(B)
    peer.send(Frame(Kind.TOKENS, 1, 1, b"late"))
    links.input(at(2), 1, peer.output())
    assert not any(isinstance(output, Dial) for output in links.send(at(2), OPEN, B, WHERE))


def test_a_dial_that_hangs_is_begun_anew_once_its_peer_has_answered_otherwise() -> None:
    links = Links(hello(A))
    links.send(at(0), OPEN, B, WHERE)
    links.refresh(B)
    outputs = links.send(at(1), OPEN, B, WHERE)
    assert outputs == [CloseLink(1, "stuck"), LinkDown(1, B, "stuck", primary=False), Dial(2, WHERE)]


def test_a_healthy_link_is_left_alone() -> None:
    links, _ = greeted()
    links.refresh(B)
    assert not any(isinstance(output, Dial | CloseLink) for output in links.send(at(0.1), OPEN, B, WHERE))


def test_a_quiet_link_that_no_request_uses_is_dialled_anew_once_its_peer_has_answered_otherwise() -> None:
    links, _ = greeted()
    gossip = Frame(Kind.GOSSIP, body=b"x")
    for seconds in range(1, 400):
        links.tick(at(seconds))
        links.send(at(seconds), gossip, B, WHERE)
    links.refresh(B)
    outputs = links.send(at(400), gossip, B, WHERE)
    assert outputs[0] == CloseLink(1, "stuck")
    assert Dial(2, WHERE) in outputs


def test_a_dial_that_hangs_is_silence_after_a_second_and_is_closed_after_five() -> None:
    links = Links(hello(A))
    links.send(at(0), OPEN, B, WHERE)
    found = [(tenths / 10, output) for tenths in range(1, 60) for output in links.tick(at(tenths / 10))]
    silent = [when for when, output in found if isinstance(output, LinkSilent)]
    closed = [when for when, output in found if isinstance(output, LinkDown)]
    assert len(silent) == 1 and 1.0 < silent[0] < 1.5
    assert len(closed) == 1 and 5.0 < closed[0] < 5.5

"""What a host says, whether or not its world is sealed (`sim.sealed`); without what only sealing needs."""

from typing import TYPE_CHECKING

from mesh.effects import Address, Effect, SendDatagram

if TYPE_CHECKING:
    from sim.host import Host


def said_in_clear(host: "Host", effects: list[Effect]) -> list[Effect]:
    """Return what a host says, as its core said it, before it was sealed."""
    said = getattr(host.core.seal, "said", None) if host.core is not None else None
    return effects if said is None else [*said]


def forged(host: "Host", address: Address, packet: bytes) -> list[Effect]:
    """Return the datagrams with which a host says what its core has not: sealed, if it seals."""
    seal = host.core.seal if host.core is not None else None
    if seal is None:
        return [SendDatagram(address, packet)]
    forge = getattr(seal, "forge", None)
    return forge(host.now(), address, packet) if forge is not None else []

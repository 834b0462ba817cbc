"""A mesh of protocol 1 and protocol 2 together: it forms, suffers and heals as one."""

import attrs
import pytest

from mesh import codec
from mesh.errors import DecodeError
from mesh.member import Liveness
from mesh.messages import Reconcile, Seen
from mesh.swim import Swim
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of
from sim.network import Rule

OLD = range(1, 17, 2)
"""Numbers of the nodes that speak protocol 1 alone."""


class Older(Swim):
    """What protocol 1 does: it knows neither Reconcile nor Seen, skips Ages, and compares whole tables."""

    def __init__(self, options, me, rng, known, *rest):
        super().__init__(options, me, rng, known, *rest)
        self._reconciler._open = self._reconciler._sync
        self._reconciler._hurry = lambda now, preferred: None

    def receive(self, now, data, source, reliable=False):
        try:
            packet = codec.decode(data, codec.RELIABLE_BYTES_MAX)
        except DecodeError:
            return super().receive(now, data, source, reliable)
        if isinstance(packet.message, Reconcile | Seen):
            self._tally.decode_errors += 1
            return []
        riders = (*packet.updates, *packet.loads, *packet.held, *packet.still)
        known = codec.packet([codec.item(packet.message), *map(codec.item, riders)], codec.RELIABLE_BYTES_MAX)
        return super().receive(now, known, source, reliable)


def account(seed, index, generation, address):
    plain = account_of(seed, index, generation, address)
    return attrs.evolve(plain, protocol=1) if index in OLD else plain


def core(options, me, rng, known):
    return (Older if me.protocol == 1 else Swim)(options, me, rng, known)


@pytest.mark.parametrize("seed", range(4))
def test_old_and_new_nodes_form_suffer_and_heal_as_one_mesh(seed):
    crowd = Crowd(seed, CrowdOptions(swim=SwimOptions.local(), account=account, core=core, keep_log=False))
    crowd.start(1)
    for index in range(2, 17):
        crowd.start(index, seeds=[1, 2])
    assert crowd.run_until(crowd.converged, 15.0, 0.1) is not None
    crowd.lay("loss", Rule(loss=0.1))
    crowd.partition(range(1, 9), range(9, 17))
    crowd.run_for(15.0)
    crowd.restart(3, seeds=[4])
    crowd.restart(12, seeds=[11])
    crowd.run_for(5.0)
    assert crowd.sees(1, 16) is Liveness.DEAD
    crowd.heal()
    assert crowd.run_until(crowd.converged, 20.0, 0.1) is not None
    refused = {index: crowd.core(index).statistics().decode_errors for index in range(1, 17)}
    assert not [index for index, count in refused.items() if count and index not in OLD]

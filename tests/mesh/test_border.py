"""Two meshes of different names that meet in the clear stay two."""

import attrs
import pytest

from mesh import codec
from mesh.border import REPORT_S, mark_of
from mesh.effects import Report
from mesh.messages import Gossip, Update
from mesh.swim_options import SwimOptions
from sim.crowd import Crowd
from sim.crowd_options import CrowdOptions, account_of

LOCAL = SwimOptions.local()
RED, BLUE = (attrs.evolve(LOCAL, mesh_name=name) for name in ("red", "blue"))


@pytest.fixture
def crowd():
    """Three red nodes, 1 to 3, and three blue ones, 11 to 13."""
    crowd = Crowd(1, CrowdOptions(swim=LOCAL))
    for first, swim in ((1, RED), (11, BLUE)):
        for index in range(first, first + 3):
            crowd.start(index, seeds=[first] if index > first else [], swim=swim)
    crowd.run_for(4.0)
    return crowd


def seen_by(crowd, index):
    return {int(row.name.removeprefix("node-")) for row in crowd.core(index).members()}


def reports(crowd):
    return [who for _, who, said in crowd.log if isinstance(said, Report) and said.event == "other_mesh"]


def is_apart(crowd):
    return all(seen_by(crowd, index) == {1, 2, 3} for index in (1, 2, 3)) and all(
        seen_by(crowd, index) == {11, 12, 13} for index in (11, 12, 13)
    )


def test_each_forms_by_itself(crowd):
    assert is_apart(crowd)
    assert not reports(crowd)


def test_a_seed_of_another_mesh_lets_nobody_in_and_both_sides_say_why(crowd):
    crowd.call(12, "join", [crowd[1].address])
    crowd.run_for(10.0)
    assert is_apart(crowd)
    assert set(reports(crowd)) == {1, 12}
    assert crowd.core(1).statistics().foreign and crowd.core(12).statistics().foreign


def test_who_gets_the_address_of_another_meshs_dead_is_told_nothing_that_it_believes(crowd):
    crowd.crash(3)
    crowd.run_for(4.0)
    address = crowd[3].address
    crowd.start(14, seeds=[11], swim=BLUE)
    crowd.run_for(2.0)
    data = []
    crowd.taps.append(
        lambda peer, outputs: data.extend(
            (peer.index, output.data) for output in outputs if getattr(output, "address", None) == address
        )
    )
    crowd.run_for(10.0)
    told = [bytes_ for index, bytes_ in data if index in (1, 2)]
    assert any(codec.decode(each, codec.RELIABLE_BYTES_MAX).updates for each in told), "the dead are told so"
    for each in told:
        crowd.call(14, "receive", each, crowd[1].address)
    assert seen_by(crowd, 14) == {11, 12, 13, 14}


def test_packets_without_a_mark_are_taken_as_older_versions_send_them(crowd):
    newcomer = account_of(1, 40, 1, ("10.0.0.40", 7946))
    crowd.call(
        1,
        "receive",
        codec.packet([codec.item(Gossip(crowd.node(2))), codec.item(Update(newcomer))]),
        crowd[2].address,
    )
    assert crowd.core(1).member(newcomer.node) is not None


def test_a_flood_of_strangers_is_counted_and_reported_rarely(crowd):
    item = codec.item(mark_of("green"))
    for number in range(500):
        newcomer = codec.item(Update(account_of(1, 100 + number, 1, ("10.0.0.40", 7946))))
        data = codec.packet([codec.item(Gossip(crowd.node(40))), item, newcomer])
        crowd.call(1, "receive", data, ("10.0.0.40", 7946))
    assert crowd.core(1).statistics().foreign == 500
    assert seen_by(crowd, 1) == {1, 2, 3} and reports(crowd) == [1]
    crowd.run_for(REPORT_S)
    crowd.call(1, "receive", data, ("10.0.0.40", 7946))
    assert reports(crowd) == [1, 1]


def test_unnamed_meshes_pay_nothing_and_pings_without_accounts_neither():
    sizes = []
    for swim in (LOCAL, RED):
        crowd = Crowd(1, CrowdOptions(swim=swim))
        crowd.form(4)
        crowd.run_for(10.0)
        before = [crowd.core(index).statistics().bytes_sent for index in (1, 2, 3, 4)]
        crowd.run_for(5.0)
        after = [crowd.core(index).statistics().bytes_sent for index in (1, 2, 3, 4)]
        sizes.append(sum(after) - sum(before))
    assert sizes[0] == sizes[1] > 0

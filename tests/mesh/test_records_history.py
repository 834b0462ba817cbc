"""Histories with long absences: nothing deleted returns, and all agree in the end."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import RevokedError
from mesh.horizon import HorizonOptions
from mesh.member import Liveness
from mesh.records import Table
from mesh.replication_options import ReplicationOptions
from tests.mesh.record_mesh import Mesh

OPTIONS = ReplicationOptions(
    gossip_period_s=0.5, exchange_period_s=2.0, horizon=HorizonOptions(horizon_s=120.0, epoch_s=10.0)
)
"""Two minutes' horizon, so that absences of some minutes are longer than it."""

NODES = st.integers(1, 5)
NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NODES, NAMES),
        st.tuples(st.just("delete"), NODES, NAMES),
        st.tuples(st.just("revoke"), NODES, NAMES),
        st.tuples(st.just("split"), st.sets(NODES, min_size=1, max_size=3)),
        st.tuples(st.just("heal")),
        st.tuples(st.just("restart"), NODES),
        st.tuples(st.just("wait"), st.sampled_from((0.3, 5.0, 80.0, 200.0))),
    ),
    min_size=4,
    max_size=14,
)


def act(mesh, step):
    match step:
        case ("put", node, name):
            with contextlib.suppress(RevokedError):
                mesh.call(node, "put", "keys", name, b"v")
        case ("revoke", node, name):
            mesh.call(node, "revoke", "keys", name, mesh.now(node).wall + 30.0)
        case ("delete", node, name):
            mesh.call(node, "delete", "keys", name)
        case ("split", group):
            mesh.heal()
            mesh.split(tuple(group), tuple(set(mesh.cores) - group))
        case ("heal",):
            mesh.heal()
        case ("restart", node):
            mesh.run(0.0001)
            groups = dict(mesh.groups)
            mesh.start(node)
            mesh.groups = groups
            mesh.join([other for other in groups if groups[other] == groups[node]])
            for other in groups:
                if groups[other] != groups[node]:
                    mesh.hear(node, other, Liveness.DEAD)
        case ("wait", seconds):
            mesh.run(seconds)


def returned(mesh, restarts=()):
    """Names of keys that a node held again after it had, in the same life, known them deleted."""
    buried, found = {}, []
    for at, node, fact in mesh.changes:
        life = sum(who == node and when < at for when, who in restarts)
        key = (node, life, fact.after.key)
        if not fact.after.is_live:
            buried[key] = max(fact.after.stamp, buried.get(key, fact.after.stamp))
        elif key in buried and fact.after.stamp < buried[key]:
            found.append(fact.after.id)
    return found


def is_forgotten(at, node, restarts):
    """Whether what a node knew at a time went with that life of it."""
    return any(who == node and at <= when for when, who in restarts)


def play(mesh, steps):
    restarts = []
    for step in steps:
        if step[0] == "restart":
            restarts.append((mesh.time, step[1]))
        act(mesh, step)
    mesh.heal()
    mesh.run(60, until=mesh.agreed)
    return restarts


def last_words(mesh, restarts):
    """Of each key, the greatest record that was held by anybody who still knows, epitaphs apart."""
    words = {}
    for at, node, fact in mesh.changes:
        record = fact.after
        if record.is_epitaph or is_forgotten(at, node, restarts):
            continue
        if record.key not in words or record.stamp > words[record.key].stamp:
            words[record.key] = record
    return words


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 100))
def test_all_agree_in_the_end_and_the_deleted_stay_deleted(steps, seed):
    mesh = Mesh(5, seed=seed, options=OPTIONS, loss=0.1)
    restarts = play(mesh, steps)
    assert mesh.agreed()
    assert returned(mesh, restarts) == []
    for key, record in last_words(mesh, restarts).items():
        if not record.is_live:
            assert [core.table.get(key) for core in mesh.cores.values()] == [None] * 5


ABSENCE = (
    ("put", 1, "a"),
    ("wait", 5.0),
    ("split", {5}),
    ("delete", 2, "a"),
    ("wait", 400.0),
    ("heal",),
    ("wait", 5.0),
)


def test_an_absence_beyond_the_horizon_is_such_a_history():
    mesh = Mesh(5, options=OPTIONS)
    play(mesh, ABSENCE)
    assert all(core.table.floor_ms > 0 and core.get("keys", "a") is None for core in mesh.cores.values())


def test_the_check_sees_a_table_that_forgets_its_floor(monkeypatch):
    monkeypatch.setattr(Table, "_is_below", lambda self, row, held: False)
    mesh = Mesh(5, options=OPTIONS)
    play(mesh, ABSENCE)
    assert "a" in returned(mesh)


def test_a_mesh_that_stands_still_changes_nothing():
    mesh = Mesh(5, options=OPTIONS)
    play(mesh, (("put", 1, "a"), ("wait", 5.0)))
    mesh.changes.clear()
    mesh.run(600)
    assert mesh.changes == []

"""Measures of tables and queues: they do what plain lists would do, however rows come, go and come back."""

import random

import attrs

from mesh.gossip import Broadcasts, Rank, sends_max
from mesh.health import Announcements, LocalHealth, pause_s
from mesh.identity import GENERATION_MAX, INCARNATION_MAX, Identity
from mesh.inquest import Inquest, Stage
from mesh.member import Liveness, Member, supersedes
from mesh.members import Members
from mesh.now import Now
from mesh.roll import NOBODY, Roll, fingerprint
from mesh.rota import Rota, offset
from mesh.swim_options import SwimOptions

ALIVE, SUSPECT, DEAD, LEFT = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT
STEPS = 300
MEMBERS_MAX = 24


def _member(index: int, generation: int = 1, liveness: Liveness = ALIVE, incarnation: int = 0) -> Member:
    identity = Identity(f"{(index + 1) * 7919 % 65521:016x}", generation, incarnation)
    return Member(identity, f"n{index}", ("10.0.0.1", index), liveness)


class _Plain:
    """A table as a plain list."""

    def __init__(self, me: Member, known: Roll, most: int) -> None:
        self.me, self.most = me.node, most
        self.rows: dict[str, Member] = dict(known.rows)
        self.rows[me.node] = me
        self.gone: dict[str, float] = {node: 0.0 for node, row in self.rows.items() if not row.is_live}
        self.refused = self.returned = 0

    def apply(self, new: Member, now_s: float) -> bool:
        old = self.rows.get(new.node)
        if old is not None and not supersedes(new, old):
            return False
        if old is None and len(self.rows) >= self.most:
            oldest = next((node for node in self.gone if node != self.me), None)
            if oldest is None:
                self.refused += 1
                return False
            self.drop(oldest)
        if new.is_live:
            self.gone.pop(new.node, None)
            if old is not None and old.liveness is DEAD:
                self.returned += old.identity.generation == new.identity.generation
        elif old is None or old.is_live:
            self.gone[new.node] = now_s
        self.rows[new.node] = new
        return True

    def drop(self, node: str) -> None:
        del self.rows[node], self.gone[node]

    @property
    def live(self) -> list[Member]:
        return sorted((row for row in self.rows.values() if row.is_live), key=lambda row: row.node)


def _differs(table: Members, plain: _Plain) -> str:
    """What a table and a plain list do not agree upon."""
    live = plain.live
    digest = 0
    for row in plain.rows.values():
        digest ^= fingerprint(row)
    ids = [row.node for row in live]
    half = sorted(plain.rows)[len(plain.rows) // 3 : 2 * len(plain.rows) // 3 + 1]
    inside = [row for row in live if half[0] <= row.node <= half[-1]]
    for what, one, other in (
        ("rows", {row.node: row for row in table.all()}, plain.rows),
        ("each once", len(table.all()), len(plain.rows)),
        ("length", len(table), len(plain.rows)),
        ("live", table.live, len(live)),
        ("ranks", [table.ranked(rank).node for rank in range(len(live))], ids),
        ("own rank", table.rank, sum(node < plain.me for node in ids)),
        (
            "the dead",
            [row.node for row in table.dead()],
            [n for n in plain.gone if plain.rows[n].liveness is DEAD],
        ),
        ("digest", table.digest(), digest.to_bytes(8, "big")),
        (
            "a range",
            table.between(half[0], half[-1]),
            ([r.node for r in inside], [fingerprint(r) for r in inside]),
        ),
        ("refused", table.refused, plain.refused),
        ("returned", table.returned, plain.returned),
        ("lookup", [table.get(node) for node in plain.rows], list(plain.rows.values())),
        ("nobody", table.get("f" * 16), None),
    ):
        if one != other:
            return f"{what}: {one}, not {other}"
    return ""


def table_is_a_list() -> str:
    """Through hundreds of changes a table holds, counts, ranks, digests and forgets what a plain list would."""
    for seed, rolled in ((1, 0), (2, 15), (3, 23)):
        rng = random.Random(seed)
        known = Roll.of(_member(index, liveness=(ALIVE, ALIVE, DEAD)[index % 3]) for index in range(rolled))
        me = _member(0, generation=2)
        table = Members(me, random.Random(seed), MEMBERS_MAX, known if rolled else NOBODY, differences_max=6)
        plain = _Plain(me, known, MEMBERS_MAX)
        for step in range(STEPS):
            if step < 4 and rolled and table._roll is not known:
                return f"seed {seed}, step {step}: it does not stand on the roll that it was given"
            wrong = _taken(table, plain, _news(rng, plain), float(step))
            if rng.random() < 0.05:
                wrong = wrong or _forgotten(table, plain, step - 20.0)
            wrong = wrong or _differs(table, plain)
            if wrong:
                return f"seed {seed}, step {step}: {wrong}"
            if step > STEPS // 3 and (probed := table.next_probe()) not in [*plain.live, None]:
                return f"seed {seed}, step {step}: {probed} is next"
    return ""


def _news(rng: random.Random, plain: _Plain) -> Member:
    """Some account of somebody: older, the same or newer, of those who are held and of others."""
    index = rng.randrange(0, 40)
    old = plain.rows.get(_member(index).node) or _member(index)
    generation = old.identity.generation + (rng.random() < 0.1)
    incarnation = max(0, old.identity.incarnation + rng.choice((-1, 0, 0, 1, 1)))
    liveness = rng.choice((ALIVE, ALIVE, SUSPECT, DEAD, LEFT)) if index else ALIVE
    return _member(index, generation, liveness, incarnation)


def _taken(table: Members, plain: _Plain, new: Member, now_s: float) -> str:
    before = plain.rows.get(new.node)
    change = table.apply(new, now_s)
    if plain.apply(new, now_s) is not (change is not None):
        return f"{new} is {'taken' if change else 'refused'}"
    if change is not None and (change.before, change.after) != (before, new):
        return f"{change}"
    limit = max(6, len(table._roll))
    return "" if len(table._own) <= limit else f"{len(table._own)} accounts differ from the roll, {limit} may"


def _forgotten(table: Members, plain: _Plain, until_s: float) -> str:
    due = [node for node, since in plain.gone.items() if since < until_s and node != plain.me]
    if [row.node for row in table.forget(until_s)] != due:
        return f"others than {due} are forgotten"
    for node in due:
        plain.drop(node)
    return ""


def table_makes_room() -> str:
    """A full table drops who has been gone longest for a newcomer, never its owner; of the living it refuses more."""
    me = _member(1)
    table = Members(me, random.Random(1), 4)
    for index in (2, 3, 4):
        table.apply(_member(index), 0.0)
    if table.apply(_member(5), 1.0) or table.refused != 1 or len(table) != 4:
        return "there was no room, and it is taken"
    table.apply(_member(3, liveness=LEFT), 2.0)
    table.apply(_member(2, liveness=DEAD), 3.0)
    table.apply(attrs.evolve(me, liveness=LEFT), 1.5)
    if not table.apply(_member(5), 4.0) or not table.apply(_member(6), 5.0):
        return "the gone make no room"
    held = {row.node for row in table.all()}
    if held != {_member(index).node for index in (1, 4, 5, 6)} or table.apply(_member(7), 6.0):
        return f"{held} are held"
    return ""


def probe_order_is_fair() -> str:
    """In SWIM's order all are probed once in each pass; who comes is in it, who goes is not, and nobody is skipped."""
    table = Members(_member(0), random.Random(5), 64)
    for index in range(1, 9):
        table.apply(_member(index), 0.0)
    orders = []
    for _ in range(4):
        order = [table.next_probe().node for _ in range(8)]
        if len(set(order)) != 8 or _member(0).node in order:
            return f"a pass of {order}"
        orders.append(tuple(order))
    if len(set(orders)) < 2:
        return "passes are not shuffled"
    for turn in range(1, 200):
        done = [table.next_probe().node for _ in range(turn % 5)]
        gone, came = (
            table.get(done[-1] if done and turn % 2 else _member(1 + turn % 8).node),
            _member(100 + turn),
        )
        table.apply(attrs.evolve(gone, liveness=LEFT), 0.0)
        table.apply(came, 0.0)
        live = {row.node for row in table.all() if row.is_live} - {_member(0).node}
        two = [table.next_probe() for _ in range(2 * len(live))]
        if {row.node for row in two if row is not None} != live:
            return f"turn {turn}: within two passes {len(live)} live are not all probed"
        table.apply(attrs.evolve(gone, identity=gone.identity.above()), 0.0)
        table.apply(attrs.evolve(came, liveness=LEFT), 0.0)
        rest = {row.node for row in (table.next_probe() for _ in range(16)) if row is not None}
        if rest != {row.node for row in table.all() if row.is_live} - {_member(0).node}:
            return f"turn {turn}: {rest}"
    alone = Members(_member(0), random.Random(5), 64)
    return "" if alone.next_probe() is None else "one alone probes itself"


def passes_go_on_when_some_come_and_go() -> str:
    """A pass that is under way loses nobody, and probes nobody twice, when others come and go meanwhile."""
    for seed in range(30):
        rng = random.Random(seed)
        table = Members(_member(0), random.Random(seed), 64)
        for index in range(1, 11):
            table.apply(_member(index), 0.0)
        done = [table.next_probe().node for _ in range(5)]
        left = [_member(index).node for index in range(1, 11) if _member(index).node not in done]
        gone, kept = table.get(rng.choice(done)), table.get(rng.choice(left))
        table.apply(attrs.evolve(gone, liveness=DEAD), 1.0)
        table.apply(attrs.evolve(kept, liveness=DEAD), 1.0)
        table.apply(_member(20), 1.0)
        due = set(left) - {kept.node}
        order = [table.next_probe().node for _ in range(5)]
        seen = [node for node in order[: len(due) + 1] if node != _member(20).node]
        if not due <= set(order) or set(seen[: len(due)]) != due:
            return f"seed {seed}: {due} were due, {order} came"
    return ""


def samples_scan_and_draw() -> str:
    """A sample has as many as are wanted and may be drawn, in a small table and in a large one."""
    for count in (6, 33, 34, 80):
        table = Members(_member(0), random.Random(count), 200)
        for index in range(1, count):
            table.apply(_member(index, liveness=SUSPECT if index <= 2 else ALIVE), 0.0)
        barred = tuple(_member(index).node for index in range(3, count - 2))
        free = {_member(index).node for index in (count - 1, count - 2)}
        for wanted in (1, 2, 5):
            some = [row.node for row in table.sample(wanted, barred)]
            if len(some) != min(wanted, 2) or not set(some) <= free or len(set(some)) != len(some):
                return f"of {count}, two of whom may be drawn, {wanted}: {len(some)}"
            more = [row.node for row in table.sample(wanted + 2, barred, suspects=True)]
            if len(more) != min(wanted + 2, 4) or len(set(more)) != len(more):
                return f"with suspects {len(more)}"
    large = Members(_member(0), _Counting(3), 200)
    for index in range(1, 100):
        large.apply(_member(index), 0.0)
    large.sample(3)
    return "" if large._rng.draws <= 24 else f"{large._rng.draws} draws for three of a hundred"


class _Counting(random.Random):
    """Counts what is drawn."""

    draws = 0

    def randrange(self, *bounds: int) -> int:
        self.draws += 1
        return super().randrange(*bounds)

    def sample(self, population: list[Member], k: int) -> list[Member]:
        self.draws += len(population)
        return super().sample(population, k)


def rumours_take_their_turns() -> str:
    """Doubts first, least sent first, life before doubt, newest first of the unsent; each so often, and no oftener."""
    queue = Broadcasts()
    for node, rank in (
        ("a", Rank.NEWS),
        ("b", Rank.DOUBT),
        ("c", Rank.LIFE),
        ("d", Rank.DOUBT),
        ("e", Rank.NEWS),
    ):
        queue.offer(node, node.encode() * 10, rank, 1.0)
    orders = []
    while len(queue):
        orders.append("".join(chr(item[0]) for item in queue.fill(50, 3)))
        if len(orders) > 9:
            return "it never ends"
    if orders != ["cdbea", "cdbea", "cdbea"]:
        return f"sent in the order {orders}"
    queue.offer("a", b"a" * 10, Rank.NEWS)
    queue.fill(10, 9)
    queue.offer("b", b"b" * 10, Rank.NEWS)
    first = [queue.fill(10, 9)[0][:1] for _ in range(5)]
    if first != [b"b", b"a", b"b", b"a", b"b"]:
        return f"by turns: {first}"
    queue.offer("b", b"B" * 10, Rank.DOUBT, 2.0)
    taken = queue.take(30, 9, each_bytes=6)
    if taken != [(b"B" * 10, 2.0)] or queue.take(32, 9, each_bytes=6) != [(b"B" * 10, 2.0), (b"a" * 10, 0.0)]:
        return f"into 30 bytes {taken}"
    return ""


def rumours_fit() -> str:
    """What does not fit is passed over for what does, to the byte; the living are told of less often if so said."""
    queue = Broadcasts()
    for node, size in (("a", 20), ("b", 10), ("c", 30)):
        queue.offer(node, node.encode() * size, Rank.DOUBT if node == "c" else Rank.LIFE)
    for budget, due in (
        (9, ""),
        (10, "b"),
        (19, "b"),
        (29, "b"),
        (30, "ba"),
        (59, "ba"),
        (60, "bac"),
        (20, "a"),
    ):
        copied = Broadcasts()
        for node, size in (("a", 20), ("b", 10), ("c", 30)):
            copied.offer(node, node.encode() * size, Rank.DOUBT if node == "c" else Rank.LIFE)
        got = "".join(chr(item[0]) for item in copied.fill(budget, 9))
        if budget != 20 and got != due:
            return f"into {budget} bytes go {got}, not {due}"
    counts = {"a": 0, "b": 0, "c": 0}
    for _ in range(9):
        for item in queue.fill(60, 5, 2):
            counts[chr(item[0])] += 1
    if counts != {"a": 2, "b": 2, "c": 5} or len(queue) or "a" in queue:
        return f"sent {counts}"
    queue.offer("a", b"a")
    queue.discard("a")
    queue.discard("b")
    queue.offer("c", b"c")
    queue.clear()
    return "" if not queue.fill(99, 9) and not len(queue) else "what is discarded is sent"


def sends_follow_the_law() -> str:
    """Each rumour is sent ceil(factor * ln(n + 1)) times, and once at least."""
    known = {(1, 3.0): 3, (4, 3.0): 5, (128, 2.45): 12, (1000, 3.0): 21, (1, 0.1): 1, (0, 3.0): 1}
    wrong = {key: sends_max(*key) for key, due in known.items() if sends_max(*key) != due}
    return f"{wrong}" if wrong else ""


def rota_is_a_permutation() -> str:
    """Within a block of n - 1 periods each offset comes once; blocks differ; nobody probes itself."""
    for count in (2, 3, 5, 8, 17):
        blocks = [
            tuple(offset(block * (count - 1) + turn, count) for turn in range(count - 1))
            for block in range(12)
        ]
        if any(sorted(block) != list(range(1, count)) for block in blocks):
            return f"{count} members: {blocks[0]} is no permutation"
        if count > 4 and len(set(blocks)) < 6:
            return f"{count} members: blocks are alike"
    return ""


def rota_of_clocks_that_are_set() -> str:
    """A clock that is slewed by a period keeps its turns; one that is set begins anew at once."""
    options = SwimOptions.local()
    table = Members(_member(3), random.Random(1), 64)
    for index in range(6):
        table.apply(_member(index), 0.0)
    for step_s, again in (
        (0.4, False),
        (-0.4, False),
        (3600.0, True),
        (-3600.0, True),
        (1.2, True),
        (-1.2, True),
    ):
        rota = Rota(options, table)
        wall = 1_000_000.0
        _, wait_s = rota.turn(Now(10.0, wall))
        if not 0.0 <= wait_s <= 2 * options.probe_period_s:
            return f"it waits {wait_s} s"
        planned = rota._planned
        rota.turn(Now(10.0 + wait_s, wall + wait_s + step_s))
        moved = rota._planned - planned
        present = int((wall + wait_s + step_s) / options.probe_period_s)
        if (moved != 1) is not again or (again and rota._planned != present + 1):
            return f"set by {step_s} s it goes {moved} turns on"
        _, wait_s = rota.turn(Now(11.0, wall + 1.0 + step_s), stretch=4)
        if not 0.0 <= wait_s <= 5 * options.probe_period_s:
            return f"an unhealthy one waits {wait_s} s"
    lonely = Rota(options, Members(_member(3), random.Random(1), 64)).turn(Now(10.0, 1_000_000.0), 3)
    return "" if lonely == (None, 3 * options.probe_period_s) else f"one alone: {lonely}"


def rota_waits_no_longer() -> str:
    """However a clock is set, the wait is neither negative nor longer than two periods, and as many as a turn takes."""
    options = SwimOptions.local()
    table = Members(_member(3), random.Random(1), 64)
    for index in range(9):
        table.apply(_member(index), 0.0)
    for stretch in (1, 2, 5):
        waits = []
        for turn in range(200):
            rota = Rota(options, table)
            rota._planned = 2_000_000 + turn % 3 - 1
            waits.append(
                rota.turn(Now(0.0, 1_000_000.0 + turn * 0.0025), stretch)[1] / options.probe_period_s
            )
        if min(waits) < 0 or max(waits) > stretch + 1:
            return f"a turn of {stretch} periods waits {min(waits)} to {max(waits)}"
    return ""


def lives_follow_each_other() -> str:
    """Above a life is its next incarnation, or above a rumour the rumour's; at the bound the next life begins."""
    at = Identity("a" * 16, 3, 5)
    last = attrs.evolve(at, incarnation=INCARNATION_MAX)
    for said, due in (
        (at.above(), (3, 6)),
        (at.above(Identity("a" * 16, 3, 9)), (3, 10)),
        (at.above(Identity("a" * 16, 2, 99)), (3, 6)),
        (at.above(Identity("a" * 16, 4, 1)), (4, 2)),
        (last.above(), (4, 0)),
        (at.above(last), (4, 0)),
        (at.next_life(), (4, 0)),
        (Identity("a" * 16, GENERATION_MAX).next_life(), (GENERATION_MAX, 0)),
    ):
        if said.age != due:
            return f"{said.age}, not {due}"
    return ""


def own_health() -> str:
    """Health has its bounds; a pause is what is later than bearable; announcements have their intervals."""
    health = LocalHealth(3)
    scores = []
    for move in (health.round_answered, health.deprived, health.refuted, health.deprived, health.refuted):
        move()
        scores.append((health.score, health.multiplier))
    if scores != [(0, 1), (1, 2), (2, 3), (3, 4), (3, 4)]:
        return f"{scores}"
    for given, due in (
        ((None, 9.0, 1.0), 0.0),
        ((5.0, 6.5, 1.0), 1.5),
        ((5.0, 5.9, 1.0), 0.0),
        ((5.0, 3.0, 1.0), 0.0),
    ):
        if pause_s(*given) != due:
            return f"late by {pause_s(*given)}, not {due}"
    if pause_s(None, 5.0, 0.0) != 0.0:
        return "who had no deadline is late"
    for live, apart_s in ((1, 10.0), (8, 10.0), (64, 80.0)):
        turns = Announcements()
        said = [
            turns.take(100.0, live),
            turns.take(100.0 + apart_s * 0.99, live),
            turns.take(100.0 + apart_s, live),
        ]
        if said != [True, False, True]:
            return f"of {live}: {said}"
    return ""


def accounts_have_an_order() -> str:
    """Of two accounts the greater (generation, incarnation, liveness) wins; of equals the greater facts, name first."""
    base = _member(1)
    same_life = [attrs.evolve(base, liveness=liveness) for liveness in (ALIVE, SUSPECT, DEAD, LEFT)]
    later = [_member(1, incarnation=1), _member(1, incarnation=1, liveness=LEFT), _member(1, generation=2)]
    order = [*same_life, *later]
    for low, old in enumerate(order):
        for high, new in enumerate(order):
            if supersedes(new, old) is not (high > low):
                return f"{new} over {old}"
    for field, lesser, greater in (
        ("name", "a", "b"),
        ("zone", "", "x"),
        ("draining", False, True),
        ("protocol", 1, 2),
    ):
        one, other = attrs.evolve(base, **{field: lesser}), attrs.evolve(base, **{field: greater})
        if not supersedes(other, one) or supersedes(one, other) or supersedes(one, one):
            return f"of two that differ in {field}"
    return "" if [row.is_live for row in order[:4]] == [True, True, False, False] else "who is live"


def looks_go_on() -> str:
    """A look that is gone on with keeps what it began with, and counts."""
    first = Inquest(Identity("a" * 16, 1), Stage.LOOK, 1.0, 1.0, True)
    failed = first.failed(2.0)
    held = failed.held_on(3.0)
    due = (Stage.HEAR, 2.0, 1.0, 0, Stage.LOOK, 3.0, 1.0, 1)
    said = (
        failed.stage,
        failed.since,
        failed.began_at,
        failed.held,
        held.stage,
        held.since,
        held.began_at,
        held.held,
    )
    return "" if said == due else f"{said}"


TABLES = (
    table_is_a_list, table_makes_room, probe_order_is_fair, passes_go_on_when_some_come_and_go, samples_scan_and_draw,
    rumours_take_their_turns, rumours_fit, sends_follow_the_law, rota_is_a_permutation, rota_of_clocks_that_are_set,
    rota_waits_no_longer, lives_follow_each_other, own_health, accounts_have_an_order, looks_go_on,
)  # fmt: skip

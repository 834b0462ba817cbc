"""What a node says of its engines, and what an entry reads from what others say.

Pure translations between three shapes: replicas (this node's engines), load records
(gossip), and candidates (routing).
"""

from collections.abc import Callable

import attrs

from mesh.frames import Status
from mesh.load import LoadRecord, ModelLoad
from mesh.member import Member
from mesh.now import Now
from mesh.route import Candidate
from node.policy.engines import Engines, EngineState, Replica

Loads = list[tuple[Member, LoadRecord]]
Card = tuple[str, str, int, bool, tuple[str, ...]]
"""(name, digest, context_max, ready, labels of the nodes that hold it)."""

MODEL_MEMORY_S = 600.0
"""A model that the mesh had so recently is waited for; one that it never had is an error of the client's."""

KNOWN_MODELS_MAX = 1024
"""Most names of models that are remembered; beyond it the one seen longest ago is forgotten."""


@attrs.define
class KnownModels:
    """Which models the mesh has lately had, although nobody may hold them now."""

    _seen_at: dict[str, float] = attrs.field(init=False, factory=dict)

    def note(self, now: Now, names: list[str]) -> None:
        """These are held now."""
        for name in names:
            self._seen_at[name] = now.mono
        while len(self._seen_at) > KNOWN_MODELS_MAX:
            del self._seen_at[min(self._seen_at, key=self._seen_at.__getitem__)]

    def had(self, now: Now, name: str) -> bool:
        """Whether the mesh had this model within `MODEL_MEMORY_S`."""
        seen_at = self._seen_at.get(name)
        return seen_at is not None and now.mono - seen_at < MODEL_MEMORY_S


def load_record(me: Member, engines: Engines, draining: bool, lag_s: float) -> LoadRecord:
    """Say how this node's engines stand now."""
    return LoadRecord(
        node=me.node,
        generation=me.identity.generation,
        models=tuple(map(_model_load, engines.replicas.values())),
        draining=draining,
        zone=me.zone,
        lag_ms=round(lag_s * 1000),
    )


IDLE = Status(waiting=0, running=0, queued_tokens=0, kv_free_ratio=1.0)
"""What is said of an engine that has not said anything itself."""


def _model_load(replica: Replica) -> ModelLoad:
    ready, status = replica.ready, replica.status
    if ready is None or replica.state is not EngineState.READY:
        return ModelLoad(replica.model)
    status = status or IDLE
    return ModelLoad(
        replica.model,
        ready.model_digest,
        ready.policy_digest if ready.exact else "",
        ready=True,
        context_max=ready.context_max,
        queued_tokens=status.queued_tokens,
        running=status.running + status.waiting,
        kv_free_ratio=status.kv_free_ratio,
        prefill_tokens_per_s=status.prefill_tokens_per_s,
        decode_tokens_per_s=status.decode_tokens_per_s,
    )


def candidates_of(
    model: str, loads: Loads, me: str, is_trusted: Callable[[str], bool]
) -> tuple[Candidate, ...]:
    """Return the workers that may be asked for a model: ready, not draining, not in quarantine."""
    return tuple(
        _candidate(load, record, me)
        for member, record in loads
        if not (record.draining or member.draining) and is_trusted(member.node)
        for load in record.models
        if load.name == model and load.ready
    )


def _candidate(load: ModelLoad, record: LoadRecord, me: str) -> Candidate:
    return Candidate(
        node=record.node,
        local=record.node == me,
        digest=load.digest,
        policy=load.policy,
        queued_tokens=load.queued_tokens,
        running=load.running,
        tokens_per_s=load.decode_tokens_per_s,
        age_s=record.age_ms / 1000,
        zone=record.zone,
    )


def cards_of(loads: Loads) -> list[Card]:
    """Return what the mesh serves, by model name."""
    held: dict[str, list[tuple[Member, ModelLoad]]] = {}
    for member, record in loads:
        for load in record.models:
            held.setdefault(load.name, []).append((member, load))
    return [_card(name, held[name]) for name in sorted(held)]


def _card(name: str, holders: list[tuple[Member, ModelLoad]]) -> Card:
    ready = [load for _, load in holders if load.ready]
    first = ready[0] if ready else holders[0][1]
    labels = tuple(dict.fromkeys(member.name for member, _ in holders))
    return name, first.digest, first.context_max, bool(ready), labels

"""What the lab can do to real processes without privileges, and why it cannot do the rest."""

from sim.configuration import differences
from sim.scenario import Scenario

DONE = frozenset(
    (
        *("Crash", "Restart", "CrashRestart", "Amnesia", "MassRestart", "FullDisk"),
        *("Pause", "LongPause", "LeaveStorm"),
        *("EngineCrash", "EngineFreeze"),
        *("Partition", "ThreeWay", "Bridge", "Ring", "OneWayCut", "Mute", "Deaf", "Flapping"),
        *("UdpCut", "TcpCut", "Clog", "SwizzleClog", "MtuBlackHole"),
        *("Loss", "BurstLoss", "LossyNode", "Delay", "Jitter", "HeavyTail", "Reorder", "Duplicate", "Replay"),
        *("BitFlip", "Truncate", "Oversize", "Garbage"),
    )
)
"""Kinds of `sim.faults` that strike real processes."""

_CLOCK = "a process's clocks need a time namespace or an interposed library"
_FIREWALL = "a kernel that refuses to send needs a firewall rule, and so root"
_TRAITOR = "the traitor is a core of the simulator's; no node of ours can be told to lie"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("ClockSkew", "ClockBack", "ClockDrift", "ClocksApart"), _CLOCK),
    **dict.fromkeys(("FullSendBuffer", "SendDenied"), _FIREWALL),
    **dict.fromkeys(("Liar", "RumourFlood", "LoadLies"), _TRAITOR),
    "SmallSocket": "the size of a node's socket is its own",
    "SlowNode": "a share of a processor needs a control group, and so root",
    "SlowEngine": "the toy engine sleeps through its pace, so that nothing outside can slow it by a factor",
    "Move": "a node's front stays where it is for a whole run",
    "NatRebind": "a node's front stays where it is for a whole run",
    "StaleSeeds": "datagrams to addresses where nobody is would leave the machine",
    "JoinStorm": "the nodes of a run are started once",
    "DuplicateName": "the nodes of a run are started once",
    "Clone": "the nodes of a run are started once",
    "RecordStorm": "no port of a node writes arbitrary records",
}
"""The other kinds, each with its reason."""

FLAGS = {
    "links.silence_s": "--link-silence-s",
    "forward.route_wait_s": "--wait-timeout-s",
    "forward.moves_max": "--moves-max",
    "node.flights_max": "--flights-max",
}
"""Knobs of the cores that a node has a setting for."""

NODES_MAX = 16
"""Real nodes in a run: each takes about a third of a processor-second to start."""


class InfeasibleError(ValueError):
    """A scenario asks for what cannot be done for real; the message names all of it."""


def require(scenario: Scenario) -> None:
    """Raise InfeasibleError unless all of a scenario can be done to real processes."""
    if found := obstacles(scenario):
        raise InfeasibleError("; ".join(found))


def obstacles(scenario: Scenario) -> list[str]:
    """Say what of a scenario cannot be done, each with its reason."""
    kinds = dict.fromkeys(type(strike.fault).__name__ for strike in scenario.strikes)
    found = [f"`{kind}`: {REFUSED[kind]}" for kind in kinds if kind not in DONE]
    name, knobs = differences(scenario.options.node)
    if name != "local":
        found.append(f"preset `{name}`: nodes run with `local`")
    found += [f"knob `{knob}`: nodes have no such setting" for knob in knobs if knob not in FLAGS]
    if scenario.nodes > NODES_MAX:
        found.append(f"{scenario.nodes} nodes: at most {NODES_MAX} real ones")
    if any(request.timeout_s is not None for request in scenario.requests):
        found.append("`timeout_s` of a request: clients of HTTP cannot say it")
    if any(request.is_poison for request in scenario.requests):
        found.append("a poisonous request: only the simulator's engine dies of one")
    if scenario.sealed:
        found.append("`sealed`: the ledger of seals is the simulator's; nodes of the lab have no key")
    if scenario.exam:
        found.append("`exam`: it asks cores, not processes")
    return found


def flags(scenario: Scenario) -> list[str]:
    """Return the flags that say the scenario's knobs."""
    _, knobs = differences(scenario.options.node)
    return [word for knob, value in knobs.items() for word in (FLAGS[knob], f"{value}")]

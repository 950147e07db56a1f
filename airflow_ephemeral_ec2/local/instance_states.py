"""
What an instance does next: EC2's state machine as a table, without effects.

Source of states and reasons: EC2 User Guide, "Instance lifecycle", and the StateReason list of
``DescribeInstances``.
"""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """EC2's instance states."""

    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    STOPPING = "stopping"
    STOPPED = "stopped"


STATE_CODES = {
    State.PENDING: 0,
    State.RUNNING: 16,
    State.SHUTTING_DOWN: 32,
    State.TERMINATED: 48,
    State.STOPPING: 64,
    State.STOPPED: 80,
}


class Event(StrEnum):
    """What can happen to an instance, from inside, by the API or by its host."""

    BOOTED = "booted"
    TERMINATE = "terminate"
    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    POWER_OFF = "power-off"
    WATCHDOG = "watchdog"
    HOST_DEATH = "host-death"
    SPOT_RECLAIM = "spot-reclaim"
    LAUNCH_FAILURE = "launch-failure"
    GONE = "gone"
    """No process of the instance is left."""


class Effect(StrEnum):
    """What the state machine asks the runner to do."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"
    """Ask the guest to end, as the power button does; kill it after a grace."""
    KILL = "kill"
    CLEAN = "clean"


@dataclass(frozen=True)
class Reason:
    """``StateReason`` and ``StateTransitionReason`` of an instance."""

    code: str = ""
    message: str = ""
    by_user: bool = False


NO_REASON = Reason()
USER = Reason("Client.UserInitiatedShutdown", "User initiated shutdown", by_user=True)
GUEST = Reason("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
HOST = Reason("Server.InternalError", "Internal error on launch")
SPOT = Reason("Server.SpotInstanceTermination", "Spot instance termination")


@dataclass(frozen=True)
class Step:
    """Where to go, why, and what to do on the way."""

    state: State
    effect: Effect
    reason: Reason = NO_REASON


_ALIVE = frozenset({State.PENDING, State.RUNNING})
_KILLED = {
    Event.TERMINATE: (Effect.STOP, USER),
    Event.HOST_DEATH: (Effect.KILL, HOST),
    Event.LAUNCH_FAILURE: (Effect.KILL, HOST),
    Event.SPOT_RECLAIM: (Effect.STOP, SPOT),
}
_MOVES = {
    (State.PENDING, Event.BOOTED): Step(State.RUNNING, Effect.START),
    (State.RUNNING, Event.STOP): Step(State.STOPPING, Effect.STOP, USER),
    (State.PENDING, Event.STOP): Step(State.STOPPING, Effect.STOP, USER),
    (State.STOPPED, Event.START): Step(State.PENDING, Effect.NOTHING),
    (State.RUNNING, Event.REBOOT): Step(State.RUNNING, Effect.KILL),
    (State.STOPPED, Event.TERMINATE): Step(State.SHUTTING_DOWN, Effect.STOP, USER),
    (State.STOPPING, Event.TERMINATE): Step(State.SHUTTING_DOWN, Effect.STOP, USER),
}


def next_step(
    state: State, event: Event, *, shutdown_behavior: str, reason: Reason | None = None
) -> Step | None:
    """
    Answer one event; None means that it changes nothing in this state.

    ``reason`` replaces the reason of a host death or a failed launch, for faults on demand.
    A terminated instance answers nothing: it can never come back.
    """
    if event is Event.GONE:
        return _gone(state)
    if state in _ALIVE and event in _KILLED:
        effect, usual = _KILLED[event]
        return Step(State.SHUTTING_DOWN, effect, reason or usual)
    if state in _ALIVE and event in {Event.POWER_OFF, Event.WATCHDOG}:
        # A guest that powers off ends by itself; the watchdog has to end it.
        effect = Effect.KILL if event is Event.WATCHDOG else Effect.NOTHING
        ends = State.SHUTTING_DOWN if shutdown_behavior == "terminate" else State.STOPPING
        return Step(ends, effect, GUEST)
    return _MOVES.get((state, event))


def _gone(state: State) -> Step | None:
    if state is State.SHUTTING_DOWN:
        return Step(State.TERMINATED, Effect.CLEAN)
    if state is State.STOPPING:
        return Step(State.STOPPED, Effect.CLEAN)
    return None

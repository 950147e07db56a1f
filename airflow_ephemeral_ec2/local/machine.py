"""One instance's life: events go through the state machine, effects to the runner."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from airflow_ephemeral_ec2.local.clock import Clock
from airflow_ephemeral_ec2.local.instance_states import (
    NO_REASON,
    Effect,
    Event,
    Reason,
    State,
    Step,
    next_step,
)
from airflow_ephemeral_ec2.local.runner import Guest, Runner, RunningGuest

_ENDING = frozenset({State.SHUTTING_DOWN, State.STOPPING})


@dataclass(frozen=True)
class Delays:
    """How long EC2 takes; all in seconds."""

    pending: float = 0.5
    shutting_down: float = 0.3
    stop_grace: float = 3.0
    reboot_guard: float = 60.0
    """The boothook ends a machine this long after any second boot."""


@dataclass(frozen=True)
class MachinePlan:
    """What the state machine has to know about one instance."""

    guest: Guest
    shutdown_behavior: str
    max_lifetime: float | None
    """Seconds until the boothook's watchdog ends the machine; None: no watchdog."""


@dataclass(frozen=True)
class Surroundings:
    """What all machines of a fleet share; the lock guards every state."""

    clock: Clock
    delays: Delays
    runner: Runner
    lock: threading.RLock
    changed: Callable[[str, State, Reason], None]
    """Called under the lock with the instance id after every change."""


class Machine:
    """States change under the fleet's lock, in the thread in which the event happens."""

    def __init__(self, plan: MachinePlan, around: Surroundings) -> None:
        self.plan = plan
        self.state = State.PENDING
        self.reason = NO_REASON
        self._around = around
        self._running: RunningGuest | None = None
        self._starting = False
        self._console = b""
        self._boots = 0
        self._clean_at = 0.0
        self.boot_delay = 0.0
        """Seconds that it stays pending longer than usual; infinite: for good."""
        self.ignores_user_data = False
        self.is_stuck = False
        """It does not come out of shutting-down."""

    @property
    def instance_id(self) -> str:
        return self.plan.guest.instance_id

    def switch_on(self) -> None:
        if self.boot_delay != math.inf:
            self._later(self._around.delays.pending + self.boot_delay, Event.BOOTED)

    def end_by_force(self) -> None:
        """Terminate with ``Force``: what is stuck comes loose."""
        with self._around.lock:
            self.is_stuck = False
            if self.state is State.SHUTTING_DOWN:
                self._end(kill=True)

    def freeze(self, *, still: bool) -> None:
        """Stop all processes of the guest, or let them go on."""
        running = self._running
        if running:
            running.freeze(still=still)

    def happen(self, event: Event, reason: Reason | None = None) -> None:
        """Let something happen to the machine; what changes nothing is ignored."""
        with self._around.lock:
            behavior = self.plan.shutdown_behavior
            step = next_step(self.state, event, shutdown_behavior=behavior, reason=reason)
            if step is None or (step.effect is Effect.CLEAN and self.is_stuck):
                return
            if reason and step.reason.code:
                step = replace(step, reason=reason)
            wait = self._clean_at - time.monotonic()
            if step.effect is Effect.CLEAN and wait > 0:
                self._later(wait, Event.GONE)
                return
            self._enter(step)
            self._apply(event, step)

    def console(self) -> bytes:
        running = self._running
        return running.console() if running else self._console

    def kill_agent(self) -> None:
        running = self._running
        if running:
            running.kill_agent()

    def _later(self, seconds: float, event: Event) -> None:
        self._around.clock.after(seconds, lambda: self.happen(event))

    def _enter(self, step: Step) -> None:
        if step.state is self.state:
            return
        if step.state in _ENDING:
            self._clean_at = time.monotonic() + self._around.delays.shutting_down
        alive = step.state in {State.PENDING, State.RUNNING}
        if step.reason.code or alive:
            self.reason = step.reason
        self.state = step.state
        self._around.changed(self.instance_id, self.state, self.reason)

    def _apply(self, event: Event, step: Step) -> None:
        if event is Event.START:
            self._later(self._around.delays.pending, Event.BOOTED)
        elif event is Event.REBOOT:
            self._reboot()
        elif step.effect is Effect.START:
            self._boot()
        elif step.effect in {Effect.STOP, Effect.KILL}:
            self._end(kill=step.effect is Effect.KILL)

    def _boot(self) -> None:
        self._boots += 1
        if self.plan.max_lifetime is not None:
            guard = self._around.delays.reboot_guard
            self._watch(guard if self._boots > 1 else self.plan.max_lifetime)
        if (
            self._boots == 1 and not self.ignores_user_data
        ):  # cloud-init runs user data once per instance
            self._starting = True
            threading.Thread(target=self._start, daemon=True, name=self.instance_id).start()

    def _watch(self, seconds: float) -> None:
        boot = self._boots

        def bite() -> None:
            if self._boots == boot:
                self.happen(Event.WATCHDOG)

        self._around.clock.after(seconds, bite)

    def _start(self) -> None:
        running: RunningGuest | None = None
        try:
            running = self._around.runner.start(self.plan.guest, self._report)
        except (ValueError, OSError) as error:
            self._console = f"local EC2: cannot run the user data: {error}\n".encode()
        with self._around.lock:
            self._starting = False
            if running is not None and running.ended:
                self._console = running.console()
            else:
                self._running = running
            if self.state is not State.RUNNING:
                self._end(kill=self.state is not State.SHUTTING_DOWN)

    def _reboot(self) -> None:
        self._boots += 1
        if self._running:
            self._running.kill()
        if self.plan.max_lifetime is not None:
            self._watch(self._around.delays.reboot_guard)

    def _report(self, event: Event) -> None:
        with self._around.lock:
            if event is Event.GONE and self._running:
                self._console = self._running.console()
                self._running = None
            self.happen(event)

    def _end(self, *, kill: bool) -> None:
        if self._starting:
            return  # the start looks at the state when it is through
        if self._running is None:
            self._later(0, Event.GONE)
        elif kill:
            self._running.kill()
        else:
            self._running.stop(self._around.delays.stop_grace)

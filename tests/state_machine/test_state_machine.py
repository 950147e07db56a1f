"""
The whole engine against a world in which everything fails at the worst moment.

Real: attempts, store, launcher, controllers, reaper, every decision. Simulated: S3, EC2, the
machines, time, and the deaths of our own processes.
"""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.state_machine.coverage import ALL, ALWAYS, AT_START, MACHINE_FAULTS
from tests.state_machine.oracle import SKIP
from tests.state_machine.process import (
    ENDING_FAULTS,
    FAULTS,
    KILL_FAULTS,
    LAUNCH_FAULTS,
    RARE,
    Fault,
)
from tests.state_machine.simulated_machine import OUT_OF_MEMORY
from tests.state_machine.world import IDENTITIES, JOBS, REACHED, TAMPERABLE, World

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "200"))
MANY = 2_000
"""So many examples are enough to reach everything."""
MIN_STEPS, MAX_STEPS = 30, 50
"""A counterexample is filled up to the minimum with steps that change nothing."""


def make_fault(pair, at):
    kind, where = pair
    return Fault(kind, where, at % 2 if where in RARE else at)


FAULT = st.one_of(
    st.none(),
    st.builds(make_fault, st.sampled_from(FAULTS), st.sampled_from(range(12))),
)
LAUNCH_FAULT = st.builds(make_fault, st.sampled_from(LAUNCH_FAULTS), st.sampled_from((0, 0, 1)))
ENDING_FAULT = st.builds(
    make_fault, st.sampled_from(ENDING_FAULTS), st.sampled_from((0, 1, 2, 3, 4))
)
KILL_FAULT = st.builds(make_fault, st.sampled_from(KILL_FAULTS), st.sampled_from((0, 0, 1)))
DAY = 90_000
TASKS = st.sampled_from(range(len(JOBS)))
TRIGGERERS = st.sampled_from((0, 1))
INDEX = st.sampled_from(range(4))
OFFERINGS = [
    (kind, subnet, market)
    for kind in ("m7i.large", "m6i.large")
    for subnet in ("subnet-0a1", "subnet-0b2")
    for market in ("on-demand", "spot")
]


class Engine(RuleBasedStateMachine):
    """At any moment anything can happen; the oracle of the world says what never may."""

    def __init__(self):
        super().__init__()
        self.world = World()

    def reach(self, what):
        self.world.reach(f"rule: {what}")

    def _machine(self, index):
        alive = [m for m in self.world.ec2.own if m.is_alive]
        return alive[index % len(alive)] if alive else None

    @initialize(answers_with_the_dead=st.booleans())
    def begin(self, answers_with_the_dead):
        self.world.ec2.answers_with_the_dead = answers_with_the_dead

    # -- Airflow ---------------------------------------------------------------------------

    @rule(task=TASKS, fault=FAULT)
    def run_task(self, task, fault):
        own = IDENTITIES[task].task_id
        is_first = not any(r.task_id == own for r in self.world.oracle.records())
        self.reach("first try" if is_first else "retry")
        self.world.open(task, fault)

    @rule(task=TASKS, fault=FAULT)
    def clear_task(self, task, fault):
        self.reach("clear")
        self.world.epochs[task] += 1
        self.world.open(task, fault)

    @rule(task=TASKS, fault=FAULT)
    def kill_task(self, task, fault):
        self.reach("kill")
        self.world.kill(task, fault)

    @rule(index=TRIGGERERS, fault=FAULT)
    def tick(self, index, fault):
        self.reach(f"tick of controller {'AB'[index]}")
        self.world.tick(index, fault)

    @rule(index=TRIGGERERS, seconds=st.sampled_from((1, 20, 65)))
    def tick_again(self, index, seconds):
        self.reach(f"tick of controller {'AB'[index]}")
        self.world.advance(seconds)
        self.world.tick(index)

    @rule(
        index=INDEX, what=st.sampled_from(("crash", "release", "resume", "resume", "resume", "all"))
    )
    def shake_processes(self, index, what):
        match what:
            case "crash":
                self.reach("crash of a controller")
                self.world.restart(index % 2)
            case "release":
                self.reach("release of the lease")
                self.world.release(index % 2)
            case "resume":
                self.reach("resume of a frozen process")
                self.world.resume(index)
            case "all":
                self.reach("restart of everything")
                self.world.restart_everything()

    @rule(fault=FAULT)
    def reap(self, fault):
        self.reach("reaper pass")
        self.world.reap(fault)

    @rule(task=TASKS, index=TRIGGERERS, fault=LAUNCH_FAULT)
    def launch_badly(self, task, index, fault):
        self.reach("launch goes wrong")
        self.world.open(task)
        self.world.advance(65)
        self.world.tick(index, fault)

    @rule(index=TRIGGERERS, fault=ENDING_FAULT)
    def end_badly(self, index, fault):
        self.reach("end goes wrong")
        self._let_machines_finish()
        self.world.advance(65)
        self.world.tick(index, fault)

    @rule(index=TRIGGERERS, exit_code=st.sampled_from((0, 1)))
    def let_it_run(self, index, exit_code):
        self.reach("everything goes well for a while")
        self.world.advance(65)
        self.world.tick(index)
        for machine in self.world.ec2.own:
            machine.settle()
            for _ in range(3):
                machine.act(exit_code=exit_code)

    @rule(task=TASKS, index=TRIGGERERS, kind=st.sampled_from(("crash after", "answer lost")))
    def launch_and_come_back_a_day_later(self, task, index, kind):
        """Nobody hears EC2's answer until it has forgotten the client token."""
        self.reach("launch whose answer is asked for a day later")
        self.world.open(task)
        self.world.advance(65)
        self.world.tick(index, Fault(kind, "launch", 0))
        self._let_machines_finish()
        self.world.advance(DAY)
        self.world.tick(1 - index)

    @rule(task=TASKS, index=TRIGGERERS, fault=KILL_FAULT)
    def kill_badly(self, task, index, fault):
        """A task is ended whose machine is out, and the end of the machine goes wrong."""
        self.reach("kill goes wrong")
        self.world.open(task)
        self.world.advance(65)
        self.world.tick(index)
        self._let_machines_finish(JOBS[task]["job"], steps=3)
        self.world.kill(task, fault)

    @rule(index=TRIGGERERS, fault=st.one_of(st.none(), ENDING_FAULT))
    def write_input_again(self, index, fault):
        """What a job reads is written again while it runs: its success is stale from the start."""
        self.reach("input written again beside its reader")
        self._run_to_its_end(0, index)
        self.world.open(2)
        self.world.advance(65)
        self.world.tick(index)
        self._let_machines_finish("reports", steps=3)
        self.world.epochs[0] += 1
        self._run_to_its_end(0, index)
        self._let_machines_finish("reports")
        self.world.tick(index, fault)

    def _run_to_its_end(self, task, index):
        self.world.open(task)
        for _ in range(2):
            self.world.advance(65)
            self.world.tick(index)
            self._let_machines_finish(JOBS[task]["job"])
        self.world.tick(index)

    # -- machines --------------------------------------------------------------------------

    @rule(
        index=INDEX,
        steps=st.sampled_from((1, 2, 4, 8)),
        is_deaf=st.booleans(),
        exit_code=st.sampled_from((0, 0, 0, 1, 75, SKIP, OUT_OF_MEMORY)),
        loses_answer=st.booleans(),
    )
    def step_machine(self, index, steps, is_deaf, exit_code, loses_answer):
        machine = self._machine(index)
        if machine is not None:
            self.reach("machine step")
            for _ in range(steps):
                machine.act(is_deaf=is_deaf, exit_code=exit_code, loses_answer=loses_answer)

    @rule(index=INDEX, posts_console=st.booleans())
    def settle_machine(self, index, posts_console):
        machine = self._machine(index)
        if machine is not None:
            self.reach("EC2 completes a transition")
            machine.settle(posts_console=posts_console)

    @rule(
        index=INDEX,
        kind=st.sampled_from(MACHINE_FAULTS),
    )
    def break_machine(self, index, kind):
        machine = self._machine(index)
        if machine is not None:
            self.reach("machine fault")
            self.world.reach(f"machine fault: {kind}")
            BREAK[kind](machine)

    @rule(
        task=TASKS,
        index=TRIGGERERS,
        steps=st.sampled_from((0, 1, 2, 4, 4, 5)),
        kind=st.sampled_from(MACHINE_FAULTS),
    )
    def launch_and_break(self, task, index, steps, kind):
        """A machine comes to harm at each step of its life."""
        self.reach("launch, then a machine fault")
        self.world.open(task)
        self.world.advance(65)
        self.world.tick(index)
        alive = [m for m in self.world.ec2.own if m.is_alive]
        if alive:
            self.world.reach(f"machine fault: {kind}")
            # The code is unpacked two steps after the boot.
            only = dict.fromkeys(AT_START, 0) | {"bad code": 2}
            for _ in range(only.get(kind, steps)):
                alive[-1].settle()
                alive[-1].act()
            BREAK[kind](alive[-1])

    # -- AWS -------------------------------------------------------------------------------

    @rule(gone=st.one_of(st.none(), st.just(OFFERINGS), st.sets(st.sampled_from(OFFERINGS))))
    def change_capacity(self, gone):
        self.reach("capacity back" if gone is None else "capacity gone")
        self.world.ec2.no_capacity = set(gone or ())
        if gone is None:
            self.world.ec2.is_over_quota = False

    @rule(
        index=INDEX,
        what=st.sampled_from(
            ("quota", "visibility", "visibility", "queue state damaged", "foreign", "vanish")
        ),
    )
    def change_aws(self, index, what):
        self.reach(what)
        self.world.change_aws(what, index)

    @rule(kind=st.sampled_from(sorted(TAMPERABLE)), index=INDEX)
    def tamper(self, kind, index):
        self.reach("tampering")
        self.world.tamper(kind, index)

    @rule(seconds=st.sampled_from((5, 45, 65, 130, 400, 1_000, 4_000, DAY)))
    def advance(self, seconds):
        self.reach("a day without us" if seconds == DAY else "time")
        if seconds == DAY:
            self._let_machines_finish()
        self.world.advance(seconds)

    def _let_machines_finish(self, job=None, steps=10):
        for machine in self.world.ec2.own:
            if job not in (None, self.world.oracle.job_of(machine)):
                continue
            for _ in range(steps):
                machine.settle()
                machine.act()

    # -- the oracle ------------------------------------------------------------------------

    @invariant()
    def nothing_forbidden_happened(self):
        self.check()

    def check(self):
        found = self.world.oracle.violations
        assert not found, "\n".join(found)

    def teardown(self):
        try:
            if not self.world.oracle.violations:
                self.world.settle()
                self.check()
        finally:
            self.world.close()


def hang(machine):
    machine.is_hung = True


def impair(machine):
    machine.is_hung = machine.is_impaired = True


def toggle_network(machine):
    machine.is_offline = not machine.is_offline


def hide(machine):
    machine.hidden_until = machine.world.clock.now + 90


def stick(machine):
    machine.is_stuck = True


BREAK = {
    "spot": lambda machine: machine.end("Server.SpotInstanceTermination"),
    "spot notice": lambda machine: machine.give_notice(),
    "spot without notice": lambda machine: machine.end(
        "Server.SpotInstanceTermination", is_told=False
    ),
    "host lost": lambda machine: machine.lose_host(),
    "hang": hang,
    "impaired": impair,
    "network lost": toggle_network,
    "reboot": lambda machine: machine.reboot(),
    "stopped": lambda machine: machine.stop(),
    "terminated by somebody": lambda machine: machine.end_by_others(),
    "hidden": hide,
    "stuck": stick,
    "forged report": lambda machine: machine.begin_to_lie(),
    "EBS quota": lambda machine: machine.fail_to_start("Client.VolumeLimitExceeded"),
    "key denied": lambda machine: machine.fail_to_start("Client.InternalError"),
    "bad code": lambda machine: machine.find_bad_code(),
}


@pytest.mark.timeout(1_800)
def test_nothing_runs_twice_is_lost_or_left_running_whatever_fails():
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=MAX_STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
        _min_steps=MIN_STEPS,
    )
    expected = ALL if EXAMPLES >= MANY else ALWAYS
    assert [what for what in expected if not REACHED[what]] == []
    scopes = {str(where) for _, where in FAULTS}
    reached = {what.split()[1] for what in REACHED if what.startswith("fault: ") and REACHED[what]}
    assert scopes <= reached

"""Everything outside our processes, and the processes: one simulated AWS, four tasks."""

import logging
import re
import secrets
from collections import Counter
from hashlib import sha256
from unittest import mock

from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error
from airflow_ephemeral_ec2.hooks import attempts
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, kill_attempt, open_attempt
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.reaper import Reaper
from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
from airflow_ephemeral_ec2.model.identity import TaskIdentity, entry_name
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.plan import TAG_ENVIRONMENT, TAG_JOBKEY
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts, JobSpec, Limits, LockFile
from tests.example_row import SPEC
from tests.state_machine.oracle import RUBBISH, Oracle
from tests.state_machine.process import Process, ProcessKilled
from tests.state_machine.simulated_clock import SimulatedClock
from tests.state_machine.simulated_ec2 import SimulatedEC2
from tests.state_machine.simulated_s3 import SimulatedS3

REACHED: Counter[str] = Counter()
"""Rules, faults and events of all examples of this run."""
SHORT = {"boot_timeout": "5m", "max_runtime": "15m"}
JOBS = (
    SPEC | SHORT | {"job": "member", "priority": 900, "instance_types": ["m7i.large"]},
    SPEC | SHORT | {"job": "claims", "capacity_type": "spot-then-on-demand", "max_wait": "1h"},
    SPEC
    | {"job": "reports", "boot_timeout": "5m", "max_runtime": "2h", "priority": 100}
    | {"depends_on": ["member"], "max_wait": "1h"},
    SPEC | SHORT | {"job": "claims", "capacity_type": "spot-then-on-demand", "max_wait": "3h"},
)
IDENTITIES = (
    TaskIdentity("payer_acme", "manual__1", "member"),
    TaskIdentity("payer_acme", "manual__1", "claims"),
    TaskIdentity("payer_acme", "manual__1", "reports"),
    TaskIdentity("payer_acme", "manual__2", "claims of another run"),
)
LIMIT_VCPUS = 4
TAMPERABLE = {
    "launch record": re.compile(r"test/jobs/.*/launch\.json"),
    "start lock": re.compile(r"test/jobs/.*/start-lock-.*\.json"),
    "refusal": re.compile(r"test/jobs/.*/refused-.*\.json"),
    "queue entry": re.compile(r"test/queue/[^.]*\.json"),
    "kill request": re.compile(r"test/queue/.*\.kill\.json"),
    "report": re.compile(r"test/machines/.*/report\.json"),
}
_LOGGER = logging.getLogger("airflow_ephemeral_ec2")
SIZES = InstanceFacts(vcpus=2, memory_mib=8_192, architecture="x86_64")
LOCK = LockFile(
    instance_types={"m7i.large": SIZES, "m6i.large": SIZES},
    images={
        SPEC["ami"]: ImageFacts(
            architecture="x86_64", root_device="/dev/xvda", data_devices=(), image_id=SPEC["ami"]
        )
    },
)


class Triggerer(Process):
    """A process with a controller."""

    def __init__(self, world, skew_seconds):
        super().__init__(world, skew_seconds)
        self.controller = Controller(
            self.store,
            lambda _connection, _region: self.fleet,
            in_parallel=one_by_one,
            home=("aws_default", "us-east-1"),
        )


class World:
    """
    One example: AWS, two triggerers, workers that come and go.

    :param seed: of the random numbers that our processes draw; equal seeds give equal runs
    """

    def __init__(self):
        self.clock = SimulatedClock()
        self.oracle = Oracle(self)
        self.s3 = SimulatedS3(self.clock, self.oracle.see_change)
        self.ec2 = SimulatedEC2(self)
        self._drawn = 0
        self._patches = [
            mock.patch.object(secrets, "token_hex", self._draw),
            # The guests here take the agent's steps themselves; its source only costs time.
            mock.patch.object(attempts, "agent_source", return_value="def main(blob, sha): pass\n"),
        ]
        for patch in self._patches:
            patch.start()
        self.triggerers = [Triggerer(self, 0.0), Triggerer(self, -7_200.0)]
        self.frozen_workers: list[Process] = []
        self.reaper = self._start_reaper()
        self.epochs = [0] * len(JOBS)
        self.unfinished: set[int] = set()
        self.has_lost_state = False
        self.tampered: list[str] = []
        """Keys of what somebody has overwritten."""
        self._log = _FaultLog(self.oracle)
        _LOGGER.addHandler(self._log)
        _LOGGER.propagate = False

    def close(self):
        for process in (*self.triggerers, *self.frozen_workers):
            process.kill()
        for patch in self._patches:
            patch.stop()
        _LOGGER.removeHandler(self._log)
        _LOGGER.propagate = True

    def reach(self, what):
        REACHED[what] += 1

    def _draw(self, nbytes=32):
        self._drawn += 1
        return sha256(str(self._drawn).encode()).hexdigest()[: 2 * nbytes]

    # -- Airflow's tasks ----------------------------------------------------------------------

    def order(self, task):
        spec = JobSpec.model_validate(JOBS[task])
        return LaunchOrder(
            spec=spec,
            lock=LOCK,
            table="payers.yaml",
            table_version="t1",
            limits=Limits(vcpus=LIMIT_VCPUS),
            identity=IDENTITIES[task],
            epoch=f"e{self.epochs[task]}",
            business_date="2026-03-01",
            dependents=("reports",) if spec.job == "member" else (),
            may_retry=True,
        )

    def open(self, task, fault=None):
        """A worker runs the task until it defers."""
        self.unfinished.add(task)
        order = self.order(task)
        self.oracle.see_new_epoch(IDENTITIES[task].task_id, self.epochs[task])

        def work(worker):
            open_attempt(worker.store, worker.fleet, order)
            if self.epochs[task] == int(order.epoch[1:]):
                self.unfinished.discard(task)

        self._run_worker(work, fault)

    def kill(self, task, fault=None):
        """Somebody ends the task: the worker or the trigger ends its latest attempt."""
        latest = [r for r in self.oracle.records() if r.task_id == IDENTITIES[task].task_id]
        if not latest:
            return
        record = max(latest, key=lambda r: r.attempt)
        self.oracle.see_wish((record.jobkey, record.attempt))

        def work(worker):
            kill = Kill("cancelled", by="mark failed")
            kill_attempt(worker.store, worker.fleet, record.jobkey, record.attempt, kill)

        self._run_worker(work, fault)

    def _run_worker(self, work, fault):
        worker = Process(self, 3_600.0)
        self._attend(worker, lambda: worker.run(lambda: work(worker), fault))
        if worker.frozen is not None:
            self.frozen_workers.append(worker)

    def _attend(self, process, act):
        try:
            act()
        except EphemeralEC2Error as error:
            self.reach(f"error: {type(error).__name__}")
        except ProcessKilled:
            if process in self.triggerers:
                self.restart(self.triggerers.index(process))
        except Exception as error:  # noqa: BLE001 - whatever else comes out is a fault of ours
            self.oracle.complain(f"{type(error).__name__}: {error}")

    # -- triggerers -----------------------------------------------------------------------------

    def tick(self, index, fault=None):
        triggerer = self.triggerers[index]
        if triggerer.frozen is not None:
            return
        names = [entry_name(*attempt) for attempt in self._awaited()]
        follow = triggerer.controller.follow
        self._attend(triggerer, lambda: triggerer.run(lambda: follow(names), fault))

    def _awaited(self):
        return sorted(self.oracle.attempts())

    def release(self, index):
        triggerer = self.triggerers[index]
        if triggerer.frozen is None:
            self._attend(triggerer, lambda: triggerer.run(triggerer.controller.release))

    def restart(self, index):
        self.triggerers[index].kill()
        self.triggerers[index] = Triggerer(self, 0.0 if index == 0 else -7_200.0)

    def restart_everything(self):
        for index in (0, 1):
            self.restart(index)
        for worker in self.frozen_workers:
            worker.kill()
        self.frozen_workers = []
        self.reaper = self._start_reaper()

    def resume(self, index):
        """Wake one frozen process up."""
        frozen = [p for p in (*self.triggerers, *self.frozen_workers) if p.frozen is not None]
        if not frozen:
            return
        process = frozen[index % len(frozen)]
        self.reach("process: resumed")
        self._attend(process, process.resume)
        self.frozen_workers = [w for w in self.frozen_workers if w.frozen is not None]

    def reap(self, fault=None):
        process, reaper = self.reaper

        def make_pass():
            for orphan in reaper.make_pass().plan.orphans:
                self.reach("reaper: orphan ended")
                self.oracle.see_reaping(self.ec2.machines[orphan.resource_id])

        self._attend(process, lambda: process.run(make_pass, fault))
        process.kill()

    def _start_reaper(self):
        process = Process(self)
        return process, Reaper(ReaperFleet(process.ec2, "test", "us-east-1"), process.store)

    # -- time, and the end ------------------------------------------------------------------------

    def advance(self, seconds):
        self.clock.now += seconds
        for machine in self.ec2.machines.values():
            machine.pass_time()

    def change_aws(self, what, index):
        match what:
            case "quota":
                self.ec2.is_over_quota = not self.ec2.is_over_quota
            case "visibility":
                self.ec2.is_lagging = not self.ec2.is_lagging
            case "queue state damaged":
                self.has_lost_state = True
                if "test/queue-state.json" in self.s3.objects:
                    self.s3.objects["test/queue-state.json"] = b'{"version": 9'
            case "foreign":
                self.launch_foreign()
            case "vanish":
                dead = [m for m in self.ec2.own if m.state == "terminated"]
                if dead:
                    self.reach("ec2: record vanished")
                    dead[index % len(dead)].is_evicted = True

    def tamper(self, kind, index):
        """Somebody overwrites an object of ours, as only an administrator of the bucket could."""
        found = [
            key
            for key in sorted(self.s3.objects)
            if TAMPERABLE[kind].fullmatch(key) and self.s3.objects[key] != RUBBISH
        ]
        if found:
            self.reach(f"tampered: {kind}")
            key = found[-1 - index % len(found)]
            self.s3.objects[key] = RUBBISH
            self.tampered.append(key)

    def launch_foreign(self):
        """Somebody else's machine, in the same account and with a tag like ours."""
        mine = next(iter(self.ec2.own), None)
        if mine is not None:
            request = mine.request | {"ClientToken": f"foreign-{len(self.ec2.machines)}"}
            machine = self.ec2.launch(request)
            machine.tags |= {TAG_ENVIRONMENT: "production", TAG_JOBKEY: "f" * 40}
            machine.is_hung = True

    def settle(self, rounds=120):
        """Drive everything to its end: nothing fails any more, and the guests go on."""
        self.ec2.no_capacity.clear()
        self.ec2.is_over_quota = self.ec2.is_lagging = False
        while any(p.frozen for p in (*self.triggerers, *self.frozen_workers)):
            self.resume(0)
        for turn in range(rounds):
            for task in sorted(self.unfinished):
                self.open(task)
            self.advance(65 if turn % 8 else 700)
            for machine in list(self.ec2.own):
                machine.settle()
                for _ in range(4):
                    machine.act()
            self.tick(turn // 12 % 2)
            if turn % 4 == 3:
                self.reap()
            if self._is_quiet() and turn > 3:
                break
        self.oracle.check_quiescence()

    def _is_quiet(self):
        is_open = any(key.startswith("test/queue/") for key in self.s3.objects)
        return not is_open and not any(m.is_alive for m in self.ec2.own)


class _FaultLog(logging.Handler):
    """A stack trace in the log is a fault of ours that was survived: it counts as a finding."""

    def __init__(self, oracle):
        super().__init__()
        self._oracle = oracle

    def emit(self, record):
        if record.exc_info:
            kind, error, _ = record.exc_info
            self._oracle.complain(f"in the log: {record.getMessage()}: {kind.__name__}: {error}")

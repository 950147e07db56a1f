"""The trace through the engine alone: the real controller, simulated time, S3 and EC2."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any
from unittest import mock

from airflow_ephemeral_ec2.hooks import admitting, attempts
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, open_attempt
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.admission import Because, Queue, admit
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts, JobSpec, Limits, LockFile
from benchmarks.bouncer_trace import BOOT_TIMEOUT, LIMIT, SIZES, STOP_GRACE, TracedJob
from tests.state_machine.process import Process
from tests.state_machine.simulated_clock import SimulatedClock
from tests.state_machine.simulated_ec2 import SimulatedEC2
from tests.state_machine.simulated_s3 import SimulatedS3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from airflow_ephemeral_ec2.model.admission import Admission

POLL_SECONDS = 4.0
"""The product's default."""
BOOT_SECONDS, SHUTDOWN_SECONDS = 15.0, 3.0
IMAGE = "ami-0123456789abcdef0"
LOCK = LockFile(
    instance_types={
        f"m7i.{size}": InstanceFacts(vcpus=vcpus, memory_mib=4096 * vcpus, architecture="x86_64")
        for vcpus, size in SIZES.items()
    },
    images={
        IMAGE: ImageFacts(
            architecture="x86_64", root_device="/dev/xvda", data_devices=(), image_id=IMAGE
        )
    },
)
SECONDS_AT_MOST = 10 * 86_400.0


class TracedEC2(SimulatedEC2):  # type: ignore[misc]  # tests have no types
    """EC2 whose machines run for as long as the trace says, and that notes its launches."""

    def __init__(self, world: EngineWorld) -> None:
        super().__init__(world)
        self.launches: list[dict[str, Any]] = []

    def launch(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - tests have no types
        machine, world = super().launch(request), self._world
        tags = machine.tags
        job = world.jobs[f"{tags['ephemeral-ec2:payer']}/{tags['ephemeral-ec2:job']}"]
        note = {"name": job.name, "at": world.now, "ended_at": float("inf")}
        self.launches.append(note)

        def start() -> None:
            machine.settle()
            for _ in range(4):
                machine.act()

        def finish() -> None:
            for _ in range(4):
                machine.act()
            world.after(SHUTDOWN_SECONDS, end)

        def end() -> None:
            machine.settle()
            note["ended_at"] = world.now

        world.after(BOOT_SECONDS, start)
        world.after(BOOT_SECONDS + job.seconds, finish)
        return machine


class EngineWorld:
    """One run of a trace; ``run`` returns arrivals and launches."""

    def __init__(self, trace: Sequence[TracedJob]) -> None:
        self.jobs = {job.name: job for job in trace}
        self.clock = SimulatedClock()
        self.start = self.clock.now
        self.oracle = mock.Mock()
        self.s3 = SimulatedS3(self.clock, lambda *_: None)
        self.ec2 = TracedEC2(self)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.worker = Process(self)
        self.controllers = [self._start_controller()]
        self.arrivals: list[dict[str, Any]] = []
        self._awaited: dict[str, TracedJob] = {}
        self._open = set(self.jobs)

    @property
    def now(self) -> float:
        """Seconds since the start of the trace."""
        return self.clock.now - self.start

    def reach(self, what: str) -> None:
        """Count nothing: the state machine does."""

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), act))

    def run(
        self, kill_at: float | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """
        Run the trace to its end.

        :param kill_at: when the controller is killed; a second one goes on when its lease is over
        :raises RuntimeError: jobs do not come to their end
        """
        for job in self.jobs.values():
            if job.is_early or not job.depends:
                self._ask_for(job, job.data_at + job.task_seconds)
        if kill_at is not None:
            self.controllers.append(self._start_controller())
            self.after(kill_at, lambda: self.controllers.pop(0))
        self.after(0.0, self._tick)
        with mock.patch.object(
            attempts, "agent_source", return_value="def main(blob, sha): pass\n"
        ):
            while self._open:
                at, _, act = heapq.heappop(self._events)
                if at > SECONDS_AT_MOST:
                    raise RuntimeError(
                        f"{len(self._open)} jobs do not end: {sorted(self._open)[:5]}"
                    )
                self.clock.now = self.start + at
                act()
        return self.arrivals, self.ec2.launches

    def _start_controller(self) -> Controller:
        process = Process(self)
        return Controller(process.store, lambda *_: process.fleet, in_parallel=one_by_one)

    def _ask_for(self, job: TracedJob, seconds: float) -> None:
        self.after(seconds, lambda: self._open_attempt(job))

    def _open_attempt(self, job: TracedJob) -> None:
        opened = open_attempt(self.worker.store, self.worker.fleet, make_order(job))
        self.arrivals.append(job.arrival(self.now))
        self._awaited[opened.name] = job

    def _tick(self) -> None:
        for controller in tuple(self.controllers):
            for name, outcome in controller.follow(tuple(self._awaited)).items():
                if outcome.outcome != "succeeded":
                    raise RuntimeError(f"{outcome.title}: {outcome.outcome} {outcome.reason}")
                self._finish(self._awaited.pop(name))
        self.after(POLL_SECONDS, self._tick)

    def _finish(self, ended: TracedJob) -> None:
        self._open.discard(ended.name)
        for job in self.jobs.values():
            if ended.name in job.depends and not job.is_early:
                self._ask_for(job, job.task_seconds)


def make_order(job: TracedJob) -> LaunchOrder:
    """Return what the job's task asks for."""
    spec = JobSpec.model_validate(
        {
            "payer": job.payer,
            "job": job.job,
            "command": ["python3", f"{job.job}.py"],
            "instance_types": [f"m7i.{SIZES[job.vcpus]}"],
            "ami": IMAGE,
            "subnets": ["subnet-0a1"],
            "security_groups": ["sg-0c3"],
            "instance_profile": "payer-machine",
            "region": "us-east-1",
            "priority": job.priority,
            "max_runtime": f"{job.max_runtime}s",
            "boot_timeout": f"{BOOT_TIMEOUT}s",
            "stop_grace": f"{STOP_GRACE}s",
            "depends_on": [name.partition("/")[2] for name in job.depends],
        }
    )
    return LaunchOrder(
        spec=spec,
        lock=LOCK,
        table="payers.yaml",
        table_version="t1",
        limits=Limits(vcpus=LIMIT),
        identity=TaskIdentity(f"payer_{job.payer}", "manual__1", job.job),
        epoch="e1",
        business_date=job.date,
    )


def admit_without_reservation(queue: Queue, limits: Mapping[str, Limits], now: float) -> Admission:
    """Decide wrongly: nobody stands behind who waits for room. The judge must see it."""
    blocked = dict(queue.blocked)
    while True:
        given = Queue(queue.entries, queue.states, queue.pools, blocked, queue.promoted)
        admission = admit(given, limits, now)
        heads = [n for n, wait in admission.waiting.items() if wait.because is Because.ROOM]
        if not heads:
            return admission
        blocked |= dict.fromkeys(heads, "waits for room")


def break_engine(stack: ExitStack) -> None:
    """Take the reservation out of the engine."""
    stack.enter_context(mock.patch.object(admitting, "admit", admit_without_reservation))

"""Crash drills: ``kill -9`` of Airflow's parts at random moments while ten jobs run.

``python -m tests.system.drills --rounds 20 --seed 7``. Exit status: 0 nothing doubled, lost or
left; 10 something was; 1 something did not start.
"""
# ruff: noqa: T201 - its output is its purpose

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_settings import EngineSettings
from tests.system.airflow_versions import AirflowThree
from tests.system.attempt_evidence import living_machines, read_attempts, read_queue
from tests.system.attempt_stage import count_executions, lay_out_drill
from tests.system.demo_stage import no_proxies, seed
from tests.system.leash import descendants
from tests.system.postgres import Postgres
from tests.system.services import ServiceError, wait_until

JOBS = 10
KINDS = ("worker", "triggerer", "scheduler", "api-server", "all at once")
PARTS = {name: name for name in ("scheduler", "triggerer", "dag-processor", "api-server")}
ENDED = {"success", "failed"}
EXIT_FINDINGS = 10


@dataclass(frozen=True)
class Kill:
    """What is killed, how long after the start of its round, and how long it stays away."""

    victim: str
    after: float
    away: float

    def __str__(self):
        return f"{self.victim} {self.after:.1f}s"


@dataclass(frozen=True)
class Result:
    """What one round left."""

    kills: tuple[Kill, ...]
    """As planned."""
    done: tuple[Kill, ...]
    """Those that ended a process: where nobody runs a task, no worker can be killed."""
    seconds: float
    attempts: int
    outcomes: dict
    doubles: tuple[str, ...]
    lost: tuple[str, ...]
    orphans: tuple[str, ...]

    @property
    def is_clean(self):
        return not (self.doubles or self.lost or self.orphans)


def plan_round(number, chance, window=14.0):
    """Plan a round: every kind of victim in turn, and up to two more at random."""
    victims = [KINDS[number % len(KINDS)]]
    victims += chance.choices(KINDS[:4], k=chance.randint(0, 2))
    kills = [Kill(one, chance.uniform(0.5, window), chance.uniform(0.0, 3.0)) for one in victims]
    return tuple(sorted(kills, key=lambda kill: kill.after))


def find_doubles(begun, ended):
    """
    Name the work that ran twice.

    :param begun: {(jobkey, attempt): how often the work of the attempt began}
    :param ended: the same for work that came to its end
    """
    found = [f"{key[:8]} a{attempt} ran {n} times" for (key, attempt), n in begun.items() if n > 1]
    whole = Counter(key for key, _ in ended)
    return (*found, *(f"{key[:8]} was done {n} times" for key, n in whole.items() if n > 1))


def find_lost(states, attempts, ended):
    """
    Name what has no end, or another than it should.

    :param states: {task: state in Airflow}
    :param attempts: {(job, jobkey): outcome of each attempt}
    :param ended: {(jobkey, attempt): how often the work came to its end}
    """
    found = [f"task {name} is {state}" for name, state in states.items() if state != "success"]
    for (job, key), outcomes in attempts.items():
        for number, outcome in enumerate(outcomes, 1):
            if outcome == "open":
                found.append(f"{job} a{number} has no outcome")
            elif outcome == "succeeded" and not ended[key, number]:
                found.append(f"{job} a{number} succeeded and never came to its end")
    return tuple(found)


class Drill:
    """One Airflow on PostgreSQL and one local EC2, for all rounds."""

    def __init__(self, home, chance, lease_seconds=None):
        self.home, self._chance = Path(home), chance
        self.engine = EngineSettings(environment="drill")
        self.runs = self.home / "runs"
        lay_out_drill(self.home / "dags", self.runs, JOBS)
        self._postgres = Postgres(self.home / "postgres")
        self._lease_seconds = lease_seconds
        self.airflow = self.cloud = None

    def open(self, stack):
        """Start everything."""
        stack.callback(self._postgres.stop)
        self._postgres.start()
        self.airflow = AirflowThree(
            self.home / "airflow",
            self.home / "dags",
            self._postgres,
            self.engine,
            lease_seconds=self._lease_seconds,
            parts=PARTS,
        )
        stack.callback(self.airflow.stop)
        self.cloud = stack.enter_context(
            local_ec2(seed(self.engine), self.home / "ec2", pending=0.1, stop_grace=1)
        )
        self.airflow.migrate()
        self.airflow.start(self.cloud)
        self.airflow.wait_until_ready()
        self.airflow.wait_for_dags(["drill"])

    def run(self, number, seconds=240.0):
        """Run ten jobs, kill on the way, wait until all is quiet, and look."""
        kills = plan_round(number, self._chance)
        run_id, began = f"round-{number}", time.monotonic()
        known, done = set(self._attempts()), []
        self.airflow.trigger("drill", run_id, f"2026-03-{number % 28 + 1:02}")
        for kill in kills:
            time.sleep(max(began + kill.after - time.monotonic(), 0))
            if self._kill(kill):
                done.append(kill)
        with contextlib.suppress(ServiceError):  # what has not ended then is a finding
            wait_until(lambda: self._is_quiet(run_id), seconds, "the round to end")
        attempts = {key: found for key, found in self._attempts().items() if key not in known}
        keys = {key for _, key in attempts}
        begun, ended = (
            Counter(
                {one: n for one, n in count_executions(self.runs, phase).items() if one[0] in keys}
            )
            for phase in ("begin", "end")
        )
        return Result(
            kills=kills,
            done=tuple(done),
            seconds=time.monotonic() - began,
            attempts=sum(map(len, attempts.values())),
            outcomes=dict(Counter(one for found in attempts.values() for one in found)),
            doubles=find_doubles(begun, ended),
            lost=find_lost(self._states(run_id), attempts, ended),
            orphans=(*living_machines(self.cloud), *self._queue()),
        )

    # -- looking

    def _states(self, run_id):
        found = {
            task: state for (_, run, task), state in self.airflow.states().items() if run == run_id
        }
        return {f"job-{number}": found.get(f"job-{number}") for number in range(JOBS)}

    def _attempts(self):
        return read_attempts(self.cloud.client("s3"), self.engine.bucket)

    def _queue(self):
        return read_queue(self.cloud.client("s3"), self.engine.bucket, self.engine.environment)

    def _is_quiet(self, run_id):
        time.sleep(0.3)
        return (
            set(self._states(run_id).values()) <= ENDED
            and not living_machines(self.cloud)
            and not self._queue()
        )

    # -- killing

    def _kill(self, kill):
        """Return whether it ended a process."""
        components = self.airflow.components
        if kill.victim == "worker":
            return self._kill_worker()
        victims = list(PARTS) if kill.victim == "all at once" else [kill.victim]
        if kill.victim == "all at once":
            # As when the host goes: the workers, too.
            for name in victims:
                for pid in components.services[name].descendants:
                    _end(pid)
        ended = sum(components.kill(name) for name in victims)
        wait_until(
            lambda: all(components.services[name].has_ended for name in victims), 10, "its end"
        )
        time.sleep(kill.away)
        for name in victims:
            components.start_part(name)
        return ended > 0

    def _kill_worker(self):
        """Kill a process that runs a task, alone or with who supervises it; False without any."""
        try:
            workers = wait_until(self._workers_with_tasks, 10, "a worker whose task has begun")
        except ServiceError:  # nobody runs a task now
            return False
        worker = self._chance.choice(workers)
        tasks = descendants(worker)
        victims = [worker, *tasks] if self._chance.random() < 0.5 else tasks
        return sum(map(_end, victims)) > 0

    def _workers_with_tasks(self):
        """
        Find workers whose task Airflow knows to run.

        What a LocalExecutor's worker has taken and not begun stays queued for good when the worker
        is killed: the executor cannot revoke it (``BaseExecutor.revoke_task``; Airflow 3.3).
        """
        workers = self._busy_workers()
        return workers if "queued" not in self.airflow.states().values() else []

    def _busy_workers(self):
        found = []
        for pid in self.airflow.components.services["scheduler"].descendants:
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
                if "worker -- LocalExecutor" in title and "<idle>" not in title:
                    found.append(pid)
        return found


def _end(pid):
    """Return whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


HEADER = (
    f"{'round':>5}  {'seconds':>7}  {'attempts':>8}  doubles  lost  orphans  killed, and outcomes"
)


def render(number, result):
    """One line of the table, and one for each finding."""
    kills = ", ".join(
        str(kill) if kill in result.done else f"{kill} (nobody there)" for kill in result.kills
    )
    outcomes = ", ".join(f"{n} {name}" for name, n in sorted(result.outcomes.items()))
    counts = f"{len(result.doubles):>7}  {len(result.lost):>4}  {len(result.orphans):>7}"
    line = (
        f"{number:>5}  {result.seconds:>7.1f}  {result.attempts:>8}  {counts}  {kills}; {outcomes}"
    )
    findings = {"double": result.doubles, "lost": result.lost, "orphan": result.orphans}
    return "\n".join(
        [line, *(f"       {kind}: {one}" for kind, found in findings.items() for one in found)]
    )


def count_kills(results):
    """Say how many of the planned kills ended a process."""
    done, planned = (sum(len(one.done) for one in results), sum(len(one.kills) for one in results))
    return f"{done} of {planned} planned kills"


def run_rounds(count, number, home, lease_seconds=None, tell=print):
    """Run the drills of a seed; returns their results."""
    results = []
    with contextlib.ExitStack() as stack:
        drill = Drill(home, random.Random(number), lease_seconds)
        drill.open(stack)
        tell(HEADER)
        for one in range(count):
            results.append(drill.run(one))
            tell(render(one, results[-1]))
    return results


def main(argv=None):
    parser = argparse.ArgumentParser(description="Kill Airflow's parts while ten jobs run.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, help="seconds; default: the product's")
    given = parser.parse_args(argv)
    no_proxies()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="drills-"))
    home.chmod(0o755)
    print(f"seed {given.seed}; logs: {home}", flush=True)
    try:
        results = run_rounds(
            given.rounds, given.seed, home, given.lease, lambda line: print(line, flush=True)
        )
    except (ServiceError, OSError) as error:
        print(f"drills: {error}", file=sys.stderr)
        return 1
    if not all(result.is_clean for result in results):
        return EXIT_FINDINGS
    print(
        f"{len(results)} rounds, {JOBS * len(results)} jobs, {count_kills(results)}: "
        "0 doubles, 0 lost, 0 orphans"
    )
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())

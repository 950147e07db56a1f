"""One Airflow, one local EC2, all cases at once; then the evidence of each."""

import contextlib
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_settings import EngineSettings
from tests.system.attempt_evidence import machines_by_job, read_attempts
from tests.system.attempt_stage import count_executions, lay_out, write_cases
from tests.system.demo_stage import seed
from tests.system.postgres import Postgres
from tests.system.services import ServiceError, wait_until

DATE = "2026-03-01"
RUN = "attempts"
ENDED = ("success", "failed")
LEASE_SECONDS = 8.0
AT_ONCE = 7
"""Cases in flight: two cores start no more tasks in time."""


@dataclass(frozen=True)
class Evidence:
    """What was found at the end of a case."""

    outcomes: tuple[str, ...]
    """Of the attempts in the bucket, in order; ``open`` where there is none."""
    machines: int
    tokens: int
    executions: int
    most_executions_of_an_attempt: int
    living: int
    state: str


class Play:
    """One case in one world; what its script may do and look at."""

    def __init__(self, world, case):
        self._world, self.case = world, case

    # -- what a person or a fault does

    def trigger(self):
        self._world.airflow.trigger(self.case.dag_id, RUN, DATE)

    def clear(self, task="job"):
        self._world.airflow.clear(self.case.dag_id, RUN, task, DATE)

    def delete_run(self):
        self._world.airflow.delete_run(self.case.dag_id, RUN)

    def reprocess(self):
        self._world.airflow.reprocess(self.case.dag_id, DATE)

    def run_once_more(self):
        self._world.airflow.run_once_more(self.case.dag_id, RUN, "job")

    def edit_retries(self, retries):
        self._world.change(replace(self.case, retries=retries))

    def arm(self, operation, needle, when):
        needles = [f'"{self.case.name}"', needle]
        self._world.airflow.components.arm(self.case.name, operation, when, needles)

    # -- what can be seen

    def state(self, task="job"):
        return self._world.states.get((self.case.dag_id, RUN, task))

    def has_ended(self):
        return self.state() in ENDED

    def has_run_ended(self):
        """Not only its task: what is still running is neither deleted nor reprocessed."""
        return self._world.airflow.run_state(self.case.dag_id, RUN) in ENDED

    def has_crashed(self):
        return self._world.airflow.components.has_crashed(self.case.name)

    def has_serialized_retries(self, retries):
        return f'"retries": {retries}' in self._world.airflow.serialized(self.case.dag_id)

    def executions(self):
        return sum(n for (job, _), n in self._world.executions.items() if job == self.case.name)


class World:
    """``run`` plays all cases; ``evidence`` says what came of each."""

    def __init__(self, airflow_class, home, cases, postgres):
        self.cases = {case.name: case for case in cases}
        self.home = Path(home)
        self.engine = EngineSettings(environment="main")
        self.runs = self.home / "runs"
        self.dags = self.home / "dags"
        lay_out(self.dags, self.runs, cases, "attempts_dag.py")
        airflow_home = self.home / f"airflow_{airflow_class.name.replace('.', '_')}"
        self.airflow = airflow_class(
            airflow_home, self.dags, postgres, self.engine, lease_seconds=LEASE_SECONDS
        )
        self.states, self.executions = {}, {}
        self.seconds = {}
        self.found = {}

    def run(self, seconds):
        """Start everything, play, collect the evidence, stop everything."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(self.airflow.stop)
            cloud = stack.enter_context(
                local_ec2(seed(self.engine), self.home / "ec2", pending=0.1, stop_grace=1)
            )
            stack.callback(self._let_go)
            for case in self.cases.values():
                if case.environment:
                    cloud.seed(**(seed(self.engine) | {"environment": case.environment}))
            self.airflow.migrate()
            self._note("database", began)
            self.airflow.start(cloud)
            self.airflow.wait_until_ready()
            self.airflow.wait_for_dags([case.dag_id for case in self.cases.values()])
            self._note("ready", began)
            self._play(seconds)
            self._note("played", began)
            self.schedulers = self.airflow.schedulers_that_queued()
            self._collect(cloud)
        self._note("stopped", began)

    def change(self, case):
        """Edit the DAG file's table, as a person does."""
        self.cases[case.name] = case
        write_cases(self.dags, list(self.cases.values()))
        (self.dags / "attempts_dag.py").touch()

    # -- the play

    def _play(self, seconds):
        plays = {name: Play(self, case) for name, case in self.cases.items()}
        # Those at the end of the table take longest.
        scripts = {name: play.case.script(play) for name, play in reversed(plays.items())}
        self._began = time.monotonic()
        awaited = {}
        deadline = self._began + seconds
        while scripts:
            self.states = self.airflow.states()
            self.executions = count_executions(self.runs)
            self._bring_back()
            for name in list(scripts)[:AT_ONCE]:
                if name not in awaited or awaited[name]():
                    try:
                        awaited[name] = next(scripts[name])
                    except StopIteration:
                        del scripts[name]
                        self._note(name, self._began)
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.unfinished = set(scripts)

    def _bring_back(self):
        """Start what a case has killed, as a service manager does."""
        for name in self.airflow.components.parts:
            if self.airflow.components.services[name].has_ended:
                self.airflow.components.start_part(name)

    def _let_go(self):
        for service in self.airflow.components.services.values():
            service.let_go()

    def _note(self, what, began):
        self.seconds[what] = time.monotonic() - began

    # -- the evidence

    def _collect(self, cloud):
        """Wait until all is quiet, then look at everything once."""
        with contextlib.suppress(ServiceError):  # what is left then is a finding
            wait_until(lambda: not self._restless(cloud), 20, "machines and attempts to end")
        outcomes, machines = self._outcomes(cloud), machines_by_job(cloud)
        counts = count_executions(self.runs)
        states = self.airflow.states()
        self.found = {}
        for name, case in self.cases.items():
            mine = machines.get(name, {})
            by_attempt = [n for (job, _), n in counts.items() if job == name]
            self.found[name] = Evidence(
                outcomes=tuple(outcomes.get(name, ())),
                machines=len(mine),
                tokens=len({one.token for one in mine.values()}),
                executions=sum(by_attempt),
                most_executions_of_an_attempt=max(by_attempt, default=0),
                living=sum(one.state != "terminated" for one in mine.values()),
                state=states.get((case.dag_id, RUN, "job")) or "none",
            )

    def _restless(self, cloud):
        living = [
            one
            for mine in machines_by_job(cloud).values()
            for one in mine.values()
            if one.state != "terminated"
        ]
        return living or any("open" in outcomes for outcomes in self._outcomes(cloud).values())

    def _outcomes(self, cloud):
        """Return {job: outcome of each attempt that has a launch record, in order}."""
        found = read_attempts(cloud.client("s3"), self.engine.bucket)
        return {job: outcomes for (job, _), outcomes in found.items()}


def play_all(versions, cases, seconds=300):
    """Play the cases on several Airflows at the same time; returns {name of version: World}."""
    home = Path(tempfile.mkdtemp(prefix="attempts-"))
    home.chmod(0o755)
    postgres = Postgres(home / "postgres")
    errors, worlds = [], {}

    def run(world):
        try:
            world.run(seconds)
        except Exception as error:  # noqa: BLE001 (raised again below)
            errors.append(error)

    try:
        postgres.start()
        for version in versions:
            worlds[version.name] = World(version, home / version.name, cases, postgres)
        threads = [threading.Thread(target=run, args=[world]) for world in worlds.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        postgres.stop()
    if errors:
        raise errors[0]
    return home, worlds

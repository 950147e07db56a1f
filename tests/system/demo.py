"""``make demo``: three payers, on machines that destroy themselves, in a real Airflow.

Exit status: 0 all as promised; 10 the checker found something; 1 something did not start;
130 ended by Ctrl-C.
"""
# ruff: noqa: T201 - its output is its purpose

import argparse
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system import checker_evidence as evidence
from tests.system.airflow_process import AirflowProcess
from tests.system.airflow_settings import USER, EngineSettings
from tests.system.checker import EXIT_FINDINGS, EXPECTED, Evidence, find_violations
from tests.system.demo_breaks import BREAKS, break_cloud, break_stage
from tests.system.demo_report import read_outcomes, render, rows
from tests.system.demo_stage import (
    DATA_BUCKET,
    PAYERS,
    fill,
    lay_out_dags,
    no_proxies,
    push,
    seed,
)
from tests.system.services import CHECKOUT, ServiceError, wait_until

ENDED = {"success", "failed"}
RUN_SECONDS = 300.0


class Demo:
    """One run of the demo in its folder below the checkout."""

    def __init__(self, home, business_date, broken=None):
        self.home = home
        self.date = business_date
        self.broken = broken
        self.dags = home / "dags"
        self.engine = EngineSettings()
        self.airflow = AirflowProcess(home / "airflow", self.dags, self.engine, port=8080)
        self.cloud = None
        self.client = None
        self._began = time.monotonic()

    def tell(self, line):
        print(f"{time.monotonic() - self._began:6.1f}s  {line}", flush=True)

    # -- acts ------------------------------------------------------------------------------

    def open(self, stack):
        """Start everything; Airflow comes up while the payers' files are made and code is pushed."""
        lay_out_dags(self.dags, copy=self.broken is not None)
        if line := self.broken and break_stage(self.broken, self.dags):
            self.tell(line)
        self.airflow.prepare()
        stack.callback(self.airflow.stop)
        cloud_home = self.home / "ec2"
        cloud_home.mkdir(parents=True)
        self.cloud = stack.enter_context(local_ec2(seed(self.engine), cloud_home))
        # Both go down together: ends are waited for, in the order of the stack.
        stack.callback(self.airflow.let_go)
        self.tell(f"local EC2 at {self.cloud.url}")
        stage = _Errand(self._fill_and_push)
        self.client = self.airflow.start(self.cloud, self.tell)
        stage.result()

    def _fill_and_push(self):
        count = fill(self.cloud, self.date)
        self.tell(f"{count} files of three payers in s3://{DATA_BUCKET}/incoming/")
        push(self.cloud, self.engine, self.dags / "payers.yaml")
        push(self.cloud, self.engine, self.dags / "examples.yaml")
        self.tell("code pushed")

    def run(self):
        """Trigger the three payers and follow them to their ends."""
        wanted = {f"payer_{payer}" for payer in PAYERS}
        wait_until(lambda: wanted <= self.client.dags(), 60, f"the DAGs {sorted(wanted)}")
        for dag_id in sorted(wanted):
            self.client.trigger(dag_id, self.run_id, self.date)
        self.tell(f"triggered {', '.join(sorted(wanted))} for {self.date}")
        seen = {}
        wait_until(lambda: self._follow(sorted(wanted), seen), RUN_SECONDS, "the DAG runs to end")

    @property
    def run_id(self):
        return f"demo_{self.date}"

    def _follow(self, dag_ids, seen):
        self.airflow.must_run()
        states = [self.client.run_state(dag_id, self.run_id) for dag_id in dag_ids]
        for dag_id in dag_ids:
            for (task_id, _), task in self.client.tasks(dag_id, self.run_id).items():
                name, state = f"{dag_id.removeprefix('payer_')}/{task_id}", task["state"]
                if state and seen.get(name) != state:
                    self.tell(f"{name:<20} {state}")
                    seen[name] = state
        time.sleep(0.4)
        return all(state in ENDED for state in states)

    def collect(self):
        """Take the evidence while everything is up."""
        if line := self.broken and break_cloud(self.broken, self.cloud, self.engine):
            self.tell(line)
        with contextlib.suppress(ServiceError):  # what is still alive then is a finding
            wait_until(lambda: not self._alive(), 5, "all machines to be gone")
        lines = evidence.read_log(self.cloud.api_log)
        instances = evidence.instances_of(lines)
        counters = evidence.read_counters(self.cloud.client("s3"), DATA_BUCKET, self.date)
        lines = evidence.read_log(self.cloud.api_log)
        return Evidence(
            instances=instances,
            counts=evidence.counts_of(lines, counters),
            processes=evidence.instance_processes([one.instance_id for one in instances]),
        )

    def _alive(self):
        found = evidence.instances_of(evidence.read_log(self.cloud.api_log))
        return [one for one in found if one.last_state != "terminated"]

    def show(self):
        records = read_outcomes(
            self.cloud.client("s3"), self.engine.bucket, self.engine.environment
        )
        lines = evidence.read_log(self.cloud.api_log)
        print("\n" + render(rows(records, lines, EXPECTED)) + "\n")
        print(f"Airflow: {self.airflow.url}   user {USER}   password {self.airflow.password}")
        print(f"Table:   {CHECKOUT / 'dags' / 'payers.yaml'} (edit it; a new payer shows in 30 s)")
        print(f"Logs:    {self.home}\n", flush=True)


class _Errand:
    """Work in a thread; ``result`` waits and raises what it raised."""

    def __init__(self, work):
        self._work = work
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 (raised again in result)
            self._error = error

    def result(self):
        self._thread.join()
        if self._error:
            raise self._error


def judge(demo, found):
    """Look for what was left over, then let the checker speak."""
    ids = [one.instance_id for one in found.instances]
    after = Evidence(
        instances=found.instances,
        counts=found.counts,
        processes=found.processes,
        processes_after=evidence.instance_processes(ids) + evidence.demo_processes(demo.home),
        folders_after=evidence.instance_folders(ids, demo.home / "ec2"),
    )
    violations = find_violations(after)
    for line in violations:
        print(f"checker: {line}")
    if violations:
        print(f"checker: {len(violations)} findings")
        return EXIT_FINDINGS
    jobs = sum(code is not None for code in EXPECTED.values())
    print(f"checker: {jobs} jobs ran once each, in order, ended as expected, nothing is left")
    return 0


def main(argv=None):
    given = _options(argv)
    no_proxies()
    # Also where a shell started us in the background, with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    home = given.home.resolve()
    with contextlib.suppress(FileNotFoundError):
        _remove(home)
    demo = Demo(home, given.date, given.broken)
    try:
        with contextlib.ExitStack() as stack:
            demo.open(stack)
            demo.run()
            found = demo.collect()
            demo.show()
            if not given.exit:
                print("Ctrl-C stops everything.", flush=True)
                signal.pause()
            demo.tell("stopping")
    except KeyboardInterrupt:
        demo.tell("stopped")
        return 130
    except (ServiceError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    status = judge(demo, found)
    demo.tell("everything stopped")
    return status


def _remove(home):
    import shutil  # noqa: PLC0415

    shutil.rmtree(home)


def _options(argv):
    parser = argparse.ArgumentParser(description="Three payers on disposable machines.")
    parser.add_argument(
        "--exit", action="store_true", help="stop when done, and let the checker judge"
    )
    parser.add_argument("--break", dest="broken", choices=BREAKS, help="break it on purpose")
    parser.add_argument("--date", default="2026-03-01", help="business date (default: %(default)s)")
    parser.add_argument("--home", type=Path, default=CHECKOUT / ".demo", help="folder to use")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

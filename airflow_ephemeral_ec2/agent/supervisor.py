"""Fetch, run, report, power off: in that order, once."""

# Pathlib costs bytes and 10 ms at start.
# ruff: noqa: PTH103, PTH108, PTH112, PTH118

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.aws import Aws
from airflow_ephemeral_ec2.agent.code_archive import unpack
from airflow_ephemeral_ec2.agent.credentials import CredentialServer, Renewed, assume_role
from airflow_ephemeral_ec2.agent.failure import Failure, Interrupted
from airflow_ephemeral_ec2.agent.interruption import watch_for_spot_notice
from airflow_ephemeral_ec2.agent.job_environment import job_environment, job_user
from airflow_ephemeral_ec2.agent.log_streamer import LogStreamer
from airflow_ephemeral_ec2.agent.process import PlainJob, SystemdJob, output_pipe, own, read
from airflow_ephemeral_ec2.agent.report import disk, empty_report, encode, read_result
from airflow_ephemeral_ec2.agent.secret_values import secret_value
from airflow_ephemeral_ec2.agent.store import Store
from airflow_ephemeral_ec2.contract import (
    BY_SPOT,
    ERROR_CODE_HASH,
    ERROR_DENIED,
    ERROR_INTERNAL,
    ERROR_PRE_COMMAND,
    PHASE_CODE,
    PHASE_CREDENTIALS,
    PHASE_JOB,
    PHASE_LOCK,
    PHASE_PRE_COMMAND,
    PHASE_SECRETS,
    PHASE_SUPERSEDED,
    code_key,
    instance_arn,
    log_key,
    partition,
    report_key,
    start_lock_key,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from airflow_ephemeral_ec2.agent.clock import Clock
    from airflow_ephemeral_ec2.agent.imds import Imds
    from airflow_ephemeral_ec2.agent.process import Ending

REPORT_PATIENCE = 180.0
LOG_PATIENCE = 60.0
LAST_PATIENCE = 5.0
"""For credentials when all that is left is the report: a shutdown may be under way."""
KILL_SECONDS = 10.0
"""After SIGKILL a process may hang in the kernel for ever; the report does not wait for it."""


READER_SECONDS = 6.0
"""A process that could not be killed may hold the pipe of the log open."""


class Supervisor:
    """One attempt on one machine. ``run()`` never raises and leaves ``report`` complete."""

    def __init__(
        self,
        config: Mapping[str, Any],
        environ: Mapping[str, str],
        imds: Imds,
        clock: Clock,
        home: str,
        *,
        systemd: bool,
        agent_sha256: str,
    ) -> None:
        self.config, self.environ, self.home = config, environ, home
        self.imds, self.clock, self.systemd = imds, clock, systemd
        imds.sleep, imds.patience = self.pause, config["boot_timeout"]
        self.report = empty_report(config, agent_sha256)
        self.report["phase"] = PHASE_CREDENTIALS
        self.work = os.path.join(home, "work")
        self.result_path = os.path.join(self.work, ".ephemeral-result.json")
        self.arn = self.user = self.account = ""
        self._starting = True
        self._stopped_by: str | None = None
        self._stop, self._wake, self._over = threading.Event(), threading.Event(), threading.Event()
        self._boot_ends = clock.monotonic() + config["boot_timeout"]
        self.aws = self._aws(Renewed(imds.keys, clock, margin=300))
        self.store = Store(self.aws, config["bucket"])
        self.log: LogStreamer | None = None

    def stop(self, by: str | None = None) -> None:
        """End what runs now and report it as interrupted; any thread or signal may call this.

        ``by`` says what caused it, where that is known: EC2 does not, once the machine is off.
        """
        if not self._stop.is_set():
            self._stopped_by = by
        self._stop.set()
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Sleep; before the command starts an end from outside cuts it short."""
        if not self._starting:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise Interrupted

    def run(self) -> None:
        """Do the attempt's work and fill in the report."""
        error = None
        try:
            self._attempt()
        except Interrupted:
            self._note_interruption()
        except Failure as e:
            error = e
        except Exception as e:  # noqa: BLE001 - whatever it is, it has to be reported
            error = Failure(ERROR_INTERNAL, f"{type(e).__name__}: {e}")
        self._starting, self.imds.patience = False, LAST_PATIENCE
        self._over.set()
        if error:
            self.report["error"] = {"kind": error.kind, "message": error.message[:500]}
        self._finish()

    def send_report(self) -> bool:
        """Write the report; False if it could not be written."""
        if not self.arn:
            return False
        try:
            # 412 is our own lost response: nobody else may write below this machine's ARN.
            key = report_key(self.config["env"], self.arn)
            patience = min(REPORT_PATIENCE, self.config["boot_timeout"])
            self.store.put_once(key, encode(self.report), patience)
        except Failure:
            return False
        return True

    def _attempt(self) -> None:
        identity = self.imds.identity()
        self.report["instance_id"] = instance = identity["instanceId"]
        self.account, region = identity["accountId"], identity["region"]
        self.arn = instance_arn(region, self.account, instance, partition(region))
        self.aws.keys()
        self._phase(PHASE_LOCK)
        if not self._take_lock():
            self._phase(PHASE_SUPERSEDED)
            return
        self.report["lock_at"] = self.clock.iso()
        watch_for_spot_notice(self.imds, lambda: self.stop(BY_SPOT), self._over)
        self._phase(PHASE_CODE)
        self._fetch_code()
        self.report["code_at"] = self.clock.iso()
        self._phase(PHASE_SECRETS)
        environ = self._environment()
        self._starting = False
        self.log = LogStreamer(self._put_log, self.config["log_limit"])
        end = self.clock.monotonic() + self.config["max_runtime"]
        if self.config["pre_command"]:
            self._phase(PHASE_PRE_COMMAND)
            if self._run(self.config["pre_command"], environ, end).exit_code:
                raise Failure(ERROR_PRE_COMMAND, "pre_command did not exit with 0; see the log")
        self._phase(PHASE_JOB)
        self._run(self.config["command"], environ, end)

    def _note_interruption(self) -> None:
        self.report.update(interrupted=True, interrupted_by=self._stopped_by)

    def _phase(self, name: str) -> None:
        self.report["phase"] = name
        if self._stop.is_set():
            raise Interrupted

    def _patience(self) -> float:
        left: float = self._boot_ends - self.clock.monotonic()
        return max(left, 1.0)

    def _take_lock(self) -> bool:
        config = self.config
        key = start_lock_key(config["env"], config["jobkey"], config["attempt"], config["nonce"])
        mine = {
            "instance_id": self.report["instance_id"],
            "arn": self.arn,
            "boot_id": read("/proc/sys/kernel/random/boot_id").strip(),
            "nonce": config["nonce"],
            "taken_at": self.clock.iso(),
        }
        if self.store.put_once(key, encode(mine), self._patience()):
            return True
        # The answer to an earlier try of ours may have been lost.
        try:
            return bool(json.loads(self.store.get(key, self._patience())) == mine)
        except Failure as e:
            if e.kind == ERROR_DENIED:
                return False
            raise
        except (ValueError, RecursionError):
            return False  # nothing that an agent writes: it is nobody's, and Airflow names it

    def _fetch_code(self) -> None:
        os.makedirs(self.work, exist_ok=True)
        wanted = self.config["code"]
        if wanted:
            with tempfile.TemporaryFile(dir=self.home) as file:
                key = code_key(self.config["env"], wanted)
                found = self.store.fetch(key, file, self._patience())
                if found != wanted:
                    raise Failure(ERROR_CODE_HASH, f"code has sha256 {found}, expected {wanted}")
                unpack(file, self.work)
        if os.path.lexists(self.result_path):
            os.unlink(self.result_path)
        if self.systemd:
            self.user = job_user()
            own(self.work, self.user)

    def _environment(self) -> dict[str, str]:
        config, environ = self.config, job_environment(self.config, self.environ, self.work)
        environ["EPHEMERAL_RESULT_PATH"] = self.result_path
        role, keys = config["job_role"], None
        if role:
            if not role.startswith("arn:"):
                role = self.arn.split("ec2:")[0] + f"iam::{self.account}:role/{role}"
            session = config["jobkey"][:32] + "-" + self.report["instance_id"]
            keys = Renewed(
                lambda: assume_role(self.aws, role, session[:64], self._patience()), self.clock
            )
            keys()
            server = CredentialServer(keys, os.urandom(24).hex())
            environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = server.url
            environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = server.token
        if config["secrets"] and not keys:
            raise Failure(ERROR_DENIED, "secrets are read with the job's role; set job_role")
        if keys:
            aws = self._aws(keys)
            for name, reference in config["secrets"].items():
                environ[name] = secret_value(aws, reference, self._patience())
        return environ

    def _run(self, argv: Sequence[str], environ: Mapping[str, str], end: float) -> Ending:
        """Run to the end, to ``end`` (monotonic) or until somebody stops it."""
        pipe, output = output_pipe(self.user)
        start = self.clock.monotonic()
        self.report["started_at"] = self.clock.iso()
        job = self._start(argv, environ, output, max(end - start, 1))
        reader = self.log.follow(pipe) if self.log else None
        timed_out = self._watch(job, end)
        if self._stop.is_set():  # now: a stop after the job's end did not interrupt it
            self._note_interruption()
        ending = job.finish()
        os.close(output)
        if reader:
            reader.join(READER_SECONDS)
        self.report.update(
            exit_code=ending.exit_code,
            signal=ending.signal,
            oom=ending.oom,
            timed_out=timed_out or ending.timed_out,
            ended_at=self.clock.iso(),
            wall_seconds=round(self.clock.monotonic() - start, 3),
            cpu_seconds=ending.cpu_seconds or None,
            peak_memory_bytes=ending.peak_memory_bytes or None,
        )
        return ending

    def _start(
        self, argv: Sequence[str], environ: Mapping[str, str], output: int, seconds: float
    ) -> PlainJob | SystemdJob:
        if not self.systemd:
            return PlainJob(argv, environ, self.work, output, self._wake.set)
        grace = self.config["stop_grace"]
        return SystemdJob(
            argv, environ, self.work, self._wake.set,
            user=self.user, seconds=seconds, grace=grace,
        )  # fmt: skip

    def _watch(self, job: PlainJob | SystemdJob, end: float) -> bool:
        """Wait for the job's end; TERM, then KILL at its time. Return whether time was up."""
        now = self.clock.monotonic
        while not job.is_over.is_set() and not self._stop.is_set() and now() < end:
            self._wake.wait(end - now())
            self._wake.clear()
        if job.is_over.is_set():
            return False
        timed_out = not self._stop.is_set()
        job.terminate()
        if not job.is_over.wait(self.config["stop_grace"]):
            job.kill()
            job.is_over.wait(KILL_SECONDS)
        return timed_out

    def _finish(self) -> None:
        """Fill in what can be known only when nothing runs any more."""
        if self.log:
            self.log.close(min(LOG_PATIENCE, self.config["boot_timeout"]))
            self.report["log"] = self.log.counts()
        if os.path.isdir(self.work):
            volume = self.environ.get("EPHEMERAL_EC2_VOLUME_BYTES") or self.config["volume_bytes"]
            used, full = disk(self.home, int(volume), shared=not self.systemd)
            self.report["disk_used_bytes"] = used
            self.report["disk_full"] = full or self.report["signal"] == signal.SIGXFSZ
            self.report["result"], self.report["result_error"] = read_result(self.result_path)

    def _put_log(self, sequence: int, body: bytes) -> None:
        self.store.put_once(log_key(self.config["env"], self.arn, sequence), body, 1.0)

    def _aws(self, keys: Renewed) -> Aws:
        endpoint = self.environ.get("AWS_ENDPOINT_URL", "")
        return Aws(self.config["region"], endpoint, keys, self.clock, self.pause)

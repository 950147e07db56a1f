"""The console: read where no report arrived, where one may not be believed, and before an end."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.fleet import ConsoleOutput
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.outcome import BY_ITSELF, Observation, Outcome, Verdict
from airflow_ephemeral_ec2.model.report import Report, read_marker
from airflow_ephemeral_ec2.model.watch import (
    CONSOLE_GRACE_SECONDS,
    CONSOLE_PATIENCE_SECONDS,
    is_last_post,
    may_conclude_without_marker,
)

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.endings import Evidence
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import Memory, OpenAttempts
    from airflow_ephemeral_ec2.model.plan import LaunchRecord

log = logging.getLogger(__name__)
SILENT_OUTCOMES = frozenset({Outcome.NEVER_STARTED, Outcome.LOST_STATUS})
"""What an attempt ends with that left neither report nor marker nor reason."""
EXPLAINED_OUTCOMES = frozenset({Outcome.BOOT_TIMEOUT, Outcome.INFRA_FAILED})
"""The console decides nothing of these, and is all that says why."""


@dataclass(frozen=True)
class Look:
    """What one pass sees of one machine."""

    observation: Observation
    now: float
    is_impaired: bool


def find_patience(verdict: Verdict | None, text: str, marker: Report | None) -> float:
    """
    For how many seconds a dead machine's console is waited for; 0: not at all.

    :param verdict: without the console
    :param text: what is there of it
    """
    if verdict is None or marker is not None:
        return 0.0
    if verdict.outcome in SILENT_OUTCOMES:
        return CONSOLE_PATIENCE_SECONDS
    is_unexplained = verdict.outcome in EXPLAINED_OUTCOMES and not text
    return CONSOLE_GRACE_SECONDS if is_unexplained else 0.0


class LastWords:
    """What the machines of one controller wrote to their consoles."""

    def __init__(self, store: JobStore, attempts: OpenAttempts) -> None:
        self._store, self._open = store, attempts

    def read(
        self, record: LaunchRecord, evidence: Evidence, look: Look, fleet: Fleet
    ) -> tuple[Report | None, bool] | None:
        """
        Read and keep the console of a machine that left no report; None: ask again later.

        Where a report would have decided it is waited for, and for a moment where it is all that
        says why the machine failed.
        """
        name = entry_name(record.jobkey, record.attempt)
        memory, observation = self._open.memories[name], look.observation
        memory.seconds_since("dead", look.now)
        try:
            console = fleet.read_console(observation.instance_id)
        except AwsError as error:
            memory.tell(f"no console output: {error}")
            console = ConsoleOutput("", None)
            if not error.retryable:
                return None, False
        dead_since = memory.since["dead"]
        text = console.text
        if evidence.kill is not None and not is_last_post(dead_since, console.posted_at):
            # What EC2 has may be from the machine's start.
            text = self._store.read_heard(observation.arn) or text
        marker = read_marker(text, record.nonce)
        verdict = evidence.judge(record.spec, observation)
        patience = find_patience(verdict, text, marker)
        if patience and not may_conclude_without_marker(
            dead_since, look.now, console.posted_at, patience
        ):
            memory.tell(f"gone: {observation.instance_id} left no report; reading its console")
            return None
        if text:
            self._store.write_console(observation.arn, text)
        return marker, bool(text)

    def end(self, memory: Memory, observation: Observation, arn: str, fleet: Fleet) -> None:
        """
        End a machine, and keep what its console says until then: EC2 posts it minutes later.

        It is asked for once; whatever comes of it, the machine is ended.
        """
        heard = ""
        if not memory.is_heard and arn and observation.state in ("pending", "running"):
            # Before asking: should even this fail in a way that nobody foresaw, it is not repeated.
            memory.is_heard = True
            with contextlib.suppress(AwsError):
                heard = fleet.read_console(observation.instance_id, as_of_now=True).text
        try:
            fleet.terminate([observation.instance_id])
        finally:
            if heard:
                self._keep(arn, heard)

    def _keep(self, arn: str, heard: str) -> None:
        try:
            self._store.write_heard(arn, heard)
        except AwsError as error:
            log.warning("the console of %s is not kept: %s", arn, error)

    def cross_check(
        self, name: str, observation: Observation, fleet: Fleet
    ) -> tuple[Report | None, bool]:
        """
        Read the console of a machine that reported and then did not power itself off.

        That is not how the agent ends: the report may be somebody else's. One call for each of
        those, none for the others; what is not posted yet, or cannot be read, is not waited for.
        """
        if observation.reason_code == BY_ITSELF:
            return None, False
        try:
            console = fleet.read_console(observation.instance_id)
        except AwsError as error:
            self._open.memories[name].tell(f"report not compared with the console: {error}")
            return None, False
        marker = read_marker(console.text, self._open.memories[name].entry.nonce)
        if marker is not None:
            self._store.write_console(observation.arn, console.text)
        return marker, marker is not None

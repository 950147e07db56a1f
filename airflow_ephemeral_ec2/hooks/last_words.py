"""The console of a dead machine: read where no report arrived, and where one may not be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.fleet import ConsoleOutput
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.outcome import BY_ITSELF, Observation, Outcome
from airflow_ephemeral_ec2.model.report import Report, read_marker
from airflow_ephemeral_ec2.model.watch import may_conclude_without_marker

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.endings import Evidence
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.model.plan import LaunchRecord

SILENT_OUTCOMES = frozenset({Outcome.NEVER_STARTED, Outcome.LOST_STATUS})
"""What an attempt ends with that left neither report nor marker nor reason."""


@dataclass(frozen=True)
class Look:
    """What one pass sees of one machine."""

    observation: Observation
    now: float
    is_impaired: bool


class LastWords:
    """What the machines of one controller wrote to their consoles."""

    def __init__(self, store: JobStore, attempts: OpenAttempts) -> None:
        self._store, self._open = store, attempts

    def read(
        self, record: LaunchRecord, evidence: Evidence, look: Look, fleet: Fleet
    ) -> tuple[Report | None, bool] | None:
        """
        Read and keep the console of a machine that left no report; None: ask again later.

        Only where a report would have decided is it waited for.
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
        marker = read_marker(console.text, record.nonce)
        silent = evidence.judge(record.spec, observation)
        decides = silent is not None and silent.outcome in SILENT_OUTCOMES
        dead_since = memory.since["dead"]
        is_last = may_conclude_without_marker(dead_since, look.now, console.posted_at)
        if decides and marker is None and not is_last:
            memory.tell(f"gone: {observation.instance_id} left no report; reading its console")
            return None
        if console.text:
            self._store.write_console(observation.arn, console.text)
        return marker, bool(console.text)

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

"""One attempt from this terminal: opened, followed with its output, ended at Ctrl-C."""

from __future__ import annotations

import secrets
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import log_key
from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, kill_attempt, open_attempt
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.model.identity import Step, name_jobkey
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ephemeral_ec2.cli.access import Access
    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.hooks.attempts import OpenAttempt
    from airflow_ephemeral_ec2.model.record import OutcomeRecord

CLI_EPOCH = "cli"
"""Runs with one run id adopt each other's open attempt and keep each other's success."""


def make_run_id() -> str:
    """Name a run after the moment; two of one second differ."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{secrets.token_hex(3)}"


class Attempt:
    """An attempt that this terminal opened or adopted."""

    def __init__(self, access: Access, order: LaunchOrder, terminal: Terminal) -> None:
        self._access = access
        self._order = order
        self._terminal = terminal
        home = (access.settings.aws_conn_id, access.settings.region)
        self._controller = Controller(access.store, access.fleet_for, home=home)
        self._arn: str | None = None
        self._next_chunk = 1

    def run(self) -> OutcomeRecord:
        """
        Open the attempt and follow it to its outcome, copying the job's output as it comes.

        :raises KeyboardInterrupt: Ctrl-C or SIGTERM; the attempt was ended before
        :raises EphemeralEC2Error: it could not be opened, or AWS refuses
        """
        with _interrupted_by_signals():
            try:
                return self._follow(self._open())
            except KeyboardInterrupt:
                self._end()
                raise

    def _open(self) -> OpenAttempt:
        order = self._order
        fleet = self._access.fleet_for(order.spec.aws_conn_id, order.spec.region)
        opened = open_attempt(self._access.store, fleet, order)
        if opened.record is not None:
            for line in opened.record.announce(opened.choice.step is Step.ADOPT):
                self._terminal.tell(line)
        return opened

    def _follow(self, opened: OpenAttempt) -> OutcomeRecord:
        outcome: OutcomeRecord | None = None
        if opened.choice.step is not Step.RETURN:
            with self._terminal.activity(f"run {self._order.identity.run_id}"):
                outcome = wait_in_this_thread(
                    self._controller,
                    opened.name,
                    self._terminal.tell,
                    poll_seconds=self._access.settings.poll_seconds,
                    sleep=lambda seconds: self._pause(opened.name, seconds),
                    keep_asking=False,
                ).outcome
        else:
            self._terminal.tell("this run was done before; its outcome stands")
        if outcome is None:
            outcome = self._access.store.read_outcome(opened.jobkey, opened.choice.attempt)
        if outcome is None:
            raise AwsError(opened.name, "the outcome record has disappeared.")
        self._arn = outcome.machine.arn if outcome.machine else None
        self._copy_log()
        return outcome

    def _pause(self, name: str, seconds: float) -> None:
        """Sleep between two looks, and use them to copy what the job wrote since."""
        if self._arn is None and self._controller.machine_of(name):
            jobkey, _, attempt = name.rpartition("-a")
            spec = self._order.spec
            fleet = self._access.fleet_for(spec.aws_conn_id, spec.region)
            found = fleet.find_attempt(jobkey, int(attempt))
            self._arn = found[0].arn if found else None
        self._copy_log()
        time.sleep(seconds)

    def _copy_log(self) -> None:
        if self._arn is None:
            return
        store = self._access.store
        while True:
            chunk = store.read(log_key(store.environment, self._arn, self._next_chunk))
            if chunk is None:
                return
            self._terminal.write_bytes(chunk)
            self._next_chunk += 1

    def _end(self) -> None:
        """End whatever was opened; a second Ctrl-C does not wait for the machine's death."""
        store, order = self._access.store, self._order
        self._terminal.tell("interrupted: ending the attempt and its machine", "yellow")
        jobkey = name_jobkey(store.read_secret(), store.environment, order.identity)
        last = store.last_attempt(jobkey)
        if last is None or last.outcome is not None:
            return
        fleet = self._access.fleet_for(order.spec.aws_conn_id, order.spec.region)
        kill_attempt(store, fleet, jobkey, last.attempt, Kill("cancelled", by="ephemeral-ec2 run"))
        wait_in_this_thread(
            self._controller,
            f"{jobkey}-a{last.attempt}",
            self._terminal.tell,
            poll_seconds=self._access.settings.poll_seconds,
            keep_asking=False,
        )
        self._terminal.tell("its machine is gone", "yellow")


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C while the block runs."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

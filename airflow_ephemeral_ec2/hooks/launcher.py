"""The launch protocol: a frozen record -> one machine, a refusal, or an honest "not known yet"."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from airflow_ephemeral_ec2.hooks.aws_errors import (
    Answer,
    classify_launch_error,
    error_code,
    error_message,
)
from airflow_ephemeral_ec2.model.outcome import Budget, Observation, Outcome, Verdict
from airflow_ephemeral_ec2.model.plan import LaunchRecord, render_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore

QUOTA_PAUSE_SECONDS = 60.0
AMBIGUOUS_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Launched:
    """The machine of the attempt; it may already be dead."""

    placement: int
    observation: Observation


@dataclass(frozen=True)
class Refused:
    """No machine was launched, and asking again gives the same answer."""

    verdict: Verdict


@dataclass(frozen=True)
class Pending:
    """Not known yet: the same request must be asked again, not before ``seconds`` from now."""

    placement: int
    seconds: float
    why: str


class LaunchRate:
    """
    A token bucket at EC2's own numbers: 5 at once, then 2 a second.

    Source: EC2 API reference, "Request throttling", RunInstances, per account and region.
    """

    def __init__(
        self,
        burst: float = 5.0,
        per_second: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst, self._per_second, self._monotonic = burst, per_second, monotonic
        self._tokens, self._at = burst, monotonic()

    def take(self) -> bool:
        """Take the right to make one call; False when none is left now."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Launcher:
    """Walks the placements of a record in order; see DESIGN of the launch in docs/how-it-works."""

    def __init__(self, fleet: Fleet, store: JobStore, rate: LaunchRate) -> None:
        self._fleet, self._store, self._rate = fleet, store, rate

    def launch(self, record: LaunchRecord, first: int = 0) -> Launched | Refused | Pending:
        """
        Try the placements from ``first`` on.

        Never goes to another placement before this one's answer is definitive: that would be the
        way to two machines.
        """
        last_code = ""
        # Who launched before us may have died after a refusal: what was refused stays refused.
        refused = self._store.refused_placements(record)
        for index in range(first, len(record.placements)):
            if index in refused:
                continue
            if not self._rate.take():
                return Pending(index, 1.0, "pacing launches at EC2's rate")
            try:
                return Launched(index, self._fleet.run(render_request(record, index)))
            except (ClientError, BotoCoreError) as error:
                answer = classify_launch_error(error)
                if answer is not Answer.CAPACITY:
                    return self._other_answer(record, index, error, answer)
                last_code = _code(error)
                self._store.write_refusal(record, index, last_code, _message(error))
        tried = ", ".join(str(placement) for placement in record.placements)
        reason = f"no EC2 capacity ({last_code}) in any of: {tried}"
        return Refused(Verdict(Outcome.NO_CAPACITY, reason, Budget.INFRA))

    def _other_answer(
        self,
        record: LaunchRecord,
        index: int,
        error: ClientError | BotoCoreError,
        answer: Answer,
    ) -> Launched | Refused | Pending:
        if answer is Answer.QUOTA:
            why = f"EC2 quota reached ({_code(error)}); raise it in Service Quotas"
            return Pending(index, QUOTA_PAUSE_SECONDS, why)
        if answer in (Answer.THROTTLED, Answer.AMBIGUOUS):
            why = f"EC2 gave no answer ({_code(error)}); asking the same again"
            return Pending(index, AMBIGUOUS_PAUSE_SECONDS, why)
        if answer in (Answer.TOKEN_DEAD, Answer.TOKEN_MISMATCH):
            return self._by_token(record, index, _code(error))
        self._store.write_refusal(record, index, _code(error), _message(error))
        return Refused(_refusal(record, answer, _code(error), _message(error)))

    def _by_token(self, record: LaunchRecord, index: int, code: str) -> Launched | Refused:
        found = self._fleet.find_by_token(record.placements[index].client_token)
        if found is not None:
            return Launched(index, found)
        reason = f"EC2 says {code} for this attempt's token and shows no machine of it"
        return Refused(Verdict(Outcome.LOST_STATUS, reason))


def _refusal(record: LaunchRecord, answer: Answer, code: str, message: str) -> Verdict:
    if answer is Answer.ACCESS:
        advice = (
            f"Grant ec2:RunInstances and iam:PassRole to connection {record.spec.aws_conn_id!r}; "
            "machines are launched by the triggerer, so it needs them too (docs/operating.md#iam)."
        )
        return Verdict(Outcome.BAD_CONFIG, f"EC2 denied the launch ({code}). {advice}")
    return Verdict(Outcome.BAD_CONFIG, f"EC2 refused the launch request ({code}): {message}")


def _code(error: ClientError | BotoCoreError) -> str:
    return error_code(error) if isinstance(error, ClientError) else type(error).__name__


def _message(error: ClientError | BotoCoreError) -> str:
    # botocore's own errors name endpoints and hosts, EC2's never hold user data.
    return error_message(error) if isinstance(error, ClientError) else type(error).__name__

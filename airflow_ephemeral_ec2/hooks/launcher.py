"""The launch protocol: a frozen record -> one machine, a refusal, or an honest "not known yet"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from airflow_ephemeral_ec2.hooks.aws_errors import (
    Answer,
    UnreadableAnswerError,
    classify_launch_error,
    error_code,
    error_message,
)
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.launch_request import render_request
from airflow_ephemeral_ec2.model.outcome import Budget, Observation, Outcome, Verdict
from airflow_ephemeral_ec2.model.queue import UNAVAILABLE_SECONDS
from airflow_ephemeral_ec2.model.watch import QUIET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.launch_rate import LaunchRate
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.queue import Unavailable

QUOTA_PAUSE_SECONDS = 60.0
QUOTA_PAUSE_LIMIT = 300.0
AMBIGUOUS_PAUSE_SECONDS = 2.0
AMBIGUOUS_PAUSE_LIMIT = 30.0
REMEMBERED = "remembered:"

LaunchFault: TypeAlias = ClientError | BotoCoreError | UnreadableAnswerError


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
    is_expired: bool = False
    """The credentials are no longer good: make the clients anew."""


class OfferingBook(Protocol):
    """What EC2 has nothing left of lately; the queue state keeps it for all jobs."""

    def find_refusal(self, offering: str) -> Unavailable | None: ...
    def remember_refusal(self, offering: str, code: str, seconds: float) -> None: ...
    def forget_refusal(self, offering: str) -> None: ...


@dataclass
class Progress:
    """What this process knows of one launch under way; none of it has to survive it."""

    first: int = 0
    """The placement to begin with; those before it were refused."""
    may_have_asked: bool = True
    """Somebody may have sent the first placement's request: it must be asked again, not skipped."""
    is_unclear: bool = field(init=False)
    """Somebody has asked and nobody has EC2's answer: there may be a machine."""
    faults: int = 0
    """Answers in a row that said nothing."""
    mismatch_since: float | None = None
    refused: dict[int, str] = field(default_factory=dict)
    """Placement -> code of its refusal, as written down."""

    def __post_init__(self) -> None:
        self.is_unclear = self.may_have_asked


class Launcher:
    """Walks the placements of a record in order; see DESIGN of the launch in docs/how-it-works."""

    def __init__(
        self,
        fleet: Fleet,
        store: JobStore,
        rate: LaunchRate,
        offerings: OfferingBook,
        when_my_turn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Take what a launch needs.

        :param when_my_turn: returns when EC2 may be asked for an offering; others may be launched
            at the same time
        """
        self._fleet, self._store, self._rate = fleet, store, rate
        self._when_my_turn = when_my_turn
        self._offerings = offerings

    def launch(self, record: LaunchRecord, progress: Progress) -> Launched | Refused | Pending:
        """
        Try the placements in order.

        Never goes to another placement before this one's answer is definitive: that would be the
        way to two machines. A refusal is definitive because only the holder of the lease asks;
        should two ask all the same, the start lock lets one machine run.
        """
        # Who launched before us may have died after a refusal: what was refused stays refused.
        progress.refused = self._store.read_refusals(record)
        self._when_my_turn(record.offering(min(progress.first, len(record.placements) - 1)))
        remembered: list[int] = []
        for index in range(progress.first, len(record.placements)):
            if index in progress.refused:
                continue
            if not progress.may_have_asked and self._is_unavailable(record, index):
                remembered.append(index)
                continue
            answer = self._try(record, index, remembered, progress)
            if answer is not None:
                return answer
        if remembered:
            return self._wait_for_capacity(record, remembered)
        return _no_capacity(record, progress.refused)

    def _try(
        self, record: LaunchRecord, index: int, remembered: list[int], progress: Progress
    ) -> Launched | Refused | Pending | None:
        """Ask for a placement, unless its quota is known to be used up."""
        known = self._offerings.find_refusal(record.quota(index))
        if known is not None and not progress.may_have_asked:
            if self._leave_spot(record, index, REMEMBERED + known.code, progress):
                return None
            return self._wait_for_quota(index, known)
        self._skip(record, remembered, progress)
        remembered.clear()
        return self._ask(record, index, progress)

    def _skip(self, record: LaunchRecord, indexes: list[int], progress: Progress) -> None:
        """Write down what is passed over, so that no crash goes back to it."""
        for index in indexes:
            found = self._offerings.find_refusal(record.offering(index))
            code = REMEMBERED + (found.code if found else "")
            self._store.write_refusal(record, index, code, "refused to another job just now")
            progress.refused[index] = code

    def _is_unavailable(self, record: LaunchRecord, index: int) -> bool:
        return self._offerings.find_refusal(record.offering(index)) is not None

    def _ask(
        self, record: LaunchRecord, index: int, progress: Progress
    ) -> Launched | Refused | Pending | None:
        """Ask for one placement; None when it was refused and the next may be tried."""
        if not self._rate.take():
            seconds = max(self._rate.seconds_left, 1.0)
            return Pending(index, seconds, "pacing launches at EC2's rate")
        progress.first, progress.may_have_asked = index, True
        try:
            machine = self._fleet.run(render_request(record, index))
        except (ClientError, BotoCoreError, UnreadableAnswerError) as error:
            answer = classify_launch_error(error)
            if answer is not Answer.CAPACITY:
                return self._other_answer(record, index, error, progress)
            self._refuse(record, index, _code(error), _message(error), progress)
            offering = record.offering(index)
            self._offerings.remember_refusal(offering, _code(error), UNAVAILABLE_SECONDS)
            return None
        self._offerings.forget_refusal(record.offering(index))
        self._offerings.forget_refusal(record.quota(index))
        progress.faults = 0
        return self._adopt(record, index, machine)

    def _refuse(
        self, record: LaunchRecord, index: int, code: str, text: str, progress: Progress
    ) -> None:
        self._store.write_refusal(record, index, code, text)
        progress.refused[index] = code
        progress.may_have_asked, progress.is_unclear, progress.faults = False, False, 0

    def _adopt(self, record: LaunchRecord, index: int, machine: Observation) -> Launched | Refused:
        """Take the machine, unless EC2 answers with another one than was asked for."""
        placement = record.placements[index]
        wanted = (placement.instance_type, placement.subnet, placement.client_token)
        given = (machine.instance_type, machine.subnet, machine.client_token)
        if all(found in ("", asked) for found, asked in zip(given, wanted, strict=True)):
            return Launched(index, machine)
        self._fleet.terminate([machine.instance_id])
        reason = (
            f"EC2 answered with {machine.instance_id}, a {machine.instance_type} in "
            f"{machine.subnet or 'an unknown subnet'}; asked was {placement}"
        )
        return Refused(Verdict(Outcome.TAMPERED, reason))

    def _other_answer(
        self, record: LaunchRecord, index: int, error: LaunchFault, progress: Progress
    ) -> Launched | Refused | Pending | None:
        code, answer = _code(error), classify_launch_error(error)
        if answer is Answer.QUOTA:
            return self._over_quota(record, index, error, progress)
        if answer is Answer.AMBIGUOUS:
            progress.is_unclear = True
        if answer in (Answer.THROTTLED, Answer.AMBIGUOUS, Answer.EXPIRED):
            why = f"EC2 gave no answer ({code}); asking the same again"
            seconds = _backoff(AMBIGUOUS_PAUSE_SECONDS, AMBIGUOUS_PAUSE_LIMIT, progress)
            if answer is Answer.THROTTLED:
                # For all: otherwise a job behind might be served first.
                self._rate.pause(seconds)
            return Pending(index, seconds, why, is_expired=answer is Answer.EXPIRED)
        if answer in (Answer.TOKEN_DEAD, Answer.TOKEN_MISMATCH):
            return self._by_token(record, index, answer, progress)
        self._store.write_refusal(record, index, code, _message(error))
        return Refused(_refusal(record, answer, code, _message(error)))

    def _over_quota(
        self, record: LaunchRecord, index: int, error: LaunchFault, progress: Progress
    ) -> Pending | None:
        """Wait, or go on to on-demand: a quota holds for all placements of its capacity type."""
        seconds = _backoff(QUOTA_PAUSE_SECONDS, QUOTA_PAUSE_LIMIT, progress)
        self._offerings.remember_refusal(record.quota(index), _code(error), seconds)
        if self._leave_spot(record, index, _code(error), progress):
            return None
        why = f"EC2 quota reached ({_code(error)}); raise it in Service Quotas"
        # Nothing was launched, and this placement stays the one to ask.
        progress.may_have_asked = progress.is_unclear = False
        return Pending(index, seconds, why)

    def _leave_spot(self, record: LaunchRecord, index: int, code: str, progress: Progress) -> bool:
        """Write all spot placements off, durably, if there are others; the spot quota is used up."""
        markets = [p.capacity_type for p in record.placements[index:]]
        if markets[0] != "spot" or "on-demand" not in markets:
            return False
        for skipped in range(index, index + markets.index("on-demand")):
            self._refuse(record, skipped, code, "the quota for spot machines is used up", progress)
        return True

    def _wait_for_quota(self, index: int, known: Unavailable) -> Pending:
        """Another job has just met the same quota: who comes first asks first when it is over."""
        seconds = max(known.until - self._store.clock.now(), 1.0)
        again = format_duration(seconds)
        why = f"EC2 quota reached ({known.code}), as a job before found; asked again in {again}"
        return Pending(index, seconds, why)

    def _by_token(
        self, record: LaunchRecord, index: int, answer: Answer, progress: Progress
    ) -> Launched | Refused | Pending:
        found = self._fleet.find_by_token(record.placements[index].client_token)
        if found is not None:
            return self._adopt(record, index, found)
        if answer is Answer.TOKEN_DEAD:
            # Who gives up revokes the start lock; if it was taken, its holder is judged instead.
            reason = "EC2 says that the machine of this attempt has ended, and does not show it"
            return Refused(Verdict(Outcome.NEVER_STARTED, reason, Budget.INFRA))
        now = self._store.clock.now()
        progress.mismatch_since = progress.mismatch_since or now
        if now - progress.mismatch_since < QUIET_SECONDS:
            why = "EC2 knows this attempt's client token with other parameters; looking for its machine"
            return Pending(index, AMBIGUOUS_PAUSE_LIMIT, why)
        reason = (
            "this attempt's client token was used with other parameters, and EC2 shows no machine"
        )
        return Refused(Verdict(Outcome.TAMPERED, reason))

    def _wait_for_capacity(self, record: LaunchRecord, indexes: list[int]) -> Pending:
        """All that is left has just been refused to others: wait until EC2 may be asked again."""
        now = self._store.clock.now()
        refusals = [self._offerings.find_refusal(record.offering(index)) for index in indexes]
        # None is left when all have expired since, or a launch beside this one got a machine.
        until = min((found.until for found in refusals if found is not None), default=now)
        names = ", ".join(str(record.placements[index]) for index in indexes)
        seconds = max(until - now, 1.0)
        why = f"no EC2 capacity just now for {names}; EC2 is asked again in {format_duration(seconds)}"
        return Pending(indexes[0], seconds, why)


def _backoff(first: float, limit: float, progress: Progress) -> float:
    progress.faults += 1
    return float(min(first * 2 ** (progress.faults - 1), limit))


def _no_capacity(record: LaunchRecord, refused: dict[int, str]) -> Refused:
    codes = [code.removeprefix(REMEMBERED) for _, code in sorted(refused.items())]
    last = codes[-1] if codes else "no placement"
    tried = ", ".join(str(placement) for placement in record.placements)
    reason = f"no EC2 capacity ({last}) in any of: {tried}"
    return Refused(Verdict(Outcome.NO_CAPACITY, reason, Budget.INFRA))


def _refusal(record: LaunchRecord, answer: Answer, code: str, message: str) -> Verdict:
    if answer is Answer.ACCESS:
        advice = (
            f"Grant ec2:RunInstances and iam:PassRole to connection {record.spec.aws_conn_id!r}; "
            "machines are launched by the triggerer, so it needs them too (docs/operating.md#iam)."
        )
        return Verdict(Outcome.BAD_CONFIG, f"EC2 denied the launch ({code}). {advice}")
    return Verdict(Outcome.BAD_CONFIG, f"EC2 refused the launch request ({code}): {message}")


def _code(error: LaunchFault) -> str:
    return error_code(error) if isinstance(error, ClientError) else type(error).__name__


def _message(error: LaunchFault) -> str:
    # botocore's own errors name endpoints and hosts, EC2's never hold user data.
    return error_message(error) if isinstance(error, ClientError) else type(error).__name__

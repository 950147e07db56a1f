"""Open, adopt or kill an attempt: the three bucket writes before waiting, and the way out."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import code_key
from airflow_ephemeral_ec2.exceptions import CodeMissingError, TamperedObjectError
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.model.identity import (
    AttemptChoice,
    Step,
    TaskIdentity,
    choose_attempt,
    entry_name,
    name_jobkey,
    name_run,
)
from airflow_ephemeral_ec2.model.image import is_of
from airflow_ephemeral_ec2.model.outcome import Budget, Kill, Outcome, gives_up
from airflow_ephemeral_ec2.model.plan import LaunchFacts, LaunchRecord, plan_entry, plan_launch
from airflow_ephemeral_ec2.model.record import conclude_tampered
from airflow_ephemeral_ec2.model.retry import decide_retry

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.identity import PastAttempt
    from airflow_ephemeral_ec2.model.spec import (
        ImageFacts,
        InstanceFacts,
        JobSpec,
        Limits,
        LockFile,
    )

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaunchOrder:
    """What a task instance asks for."""

    spec: JobSpec
    lock: LockFile
    table: str
    """The table as the user named it, for messages."""
    table_version: str
    limits: Limits
    identity: TaskIdentity
    epoch: str
    """Same for all retries of one run of the task; see ``choose_attempt``."""
    business_date: str
    array_index: int = 0
    may_retry: bool = False
    """Whether Airflow would try the task again after this attempt."""
    is_awaited: bool = True
    """Whether the task waits for the end."""
    dependents: tuple[str, ...] = ()
    """Jobs of the payer that read, directly or not, what this one writes."""
    is_retry: bool = False
    """Airflow tries the task again, and awaits the job."""
    is_backfill: bool = False
    priority_reason: str = ""
    """Why the run asks for another priority than the table's."""
    order_override: str = ""
    """Why the run may go ahead without a success of what it depends on."""

    @property
    def table_name(self) -> str:
        """The table's file, wherever this worker has it."""
        return self.table if self.table.startswith("s3://") else PurePath(self.table).name


@dataclass(frozen=True)
class OpenAttempt:
    """The attempt that a task instance awaits."""

    choice: AttemptChoice
    jobkey: str
    record: LaunchRecord | None
    """None when the attempt is over already."""

    @property
    def name(self) -> str:
        """Name of its queue entry."""
        return entry_name(self.jobkey, self.choice.attempt)


def open_attempt(store: JobStore, fleet: Fleet, order: LaunchOrder) -> OpenAttempt:
    """
    Choose the attempt of this task instance and make sure that it is in the queue.

    Three writes: launch record, queue entry, index by date. Doing it again is harmless.

    :raises CodeMissingError: the row's code was not pushed
    :raises ConfigurationError: the row cannot be launched
    :raises AwsError: AWS could not be asked
    :raises TamperedObjectError: a record of the latest attempt is not ours
    """
    secret = store.read_secret()
    jobkey = name_jobkey(secret, store.environment, order.identity)
    try:
        last = store.last_attempt(jobkey)
    except TamperedObjectError as error:
        _end_unqueued(store, jobkey, order, error)
        raise
    choice = choose_attempt(last, order.epoch)
    if choice.step is Step.ADOPT and was_given_up(store, jobkey, choice.attempt):
        # Clearing a running task leaves its epoch as it was; its machine is on the way out.
        choice = AttemptChoice(Step.SUPERSEDE, choice.attempt + 1)
    elif choice.step is Step.OPEN and last is not None and _is_unheard(store, order, jobkey, last):
        choice = AttemptChoice(Step.RETURN, last.attempt)
    if choice.step is Step.RETURN:
        return OpenAttempt(choice, jobkey, None)
    if choice.step is Step.ADOPT:
        record = store.read_launch(jobkey, choice.attempt)
    else:
        before = choice.attempt - 1 if choice.step is Step.SUPERSEDE else None
        if before is not None:
            supersede(store, fleet, store.read_launch(jobkey, before))
        facts = _find_facts(store, fleet, order, secret, choice.attempt, before)
        record = store.write_launch(plan_launch(order.spec, facts))
    # The index first: who depends on this job must find it before it can end.
    store.write_date_index(record)
    store.write_entry(plan_entry(record))
    if store.read_outcome(jobkey, choice.attempt) is not None:
        # It ended in between, also one that is new here: this worker may have been suspended, and
        # another has run the task meanwhile. What has an outcome is not queued again.
        store.close_entry(entry_name(jobkey, choice.attempt))
        return OpenAttempt(AttemptChoice(Step.RETURN, choice.attempt), jobkey, None)
    return OpenAttempt(choice, jobkey, record)


def _is_unheard(store: JobStore, order: LaunchOrder, jobkey: str, last: PastAttempt) -> bool:
    """
    Say whether the last attempt failed for good and no try of the task has lived to say so.

    Airflow tries nothing again whose failure was told as final: its worker died over it. A clear
    changes the epoch, and what a clear or a timeout of Airflow's has ended is tried again.
    """
    if not order.is_retry or last.epoch != order.epoch:
        return False
    outcome = store.read_outcome(jobkey, last.attempt)
    if outcome is None or outcome.outcome in (Outcome.KILLED, Outcome.SUPERSEDED):
        return False
    if outcome.budget is Budget.NONE:
        return True
    spec = store.read_launch(jobkey, last.attempt).spec
    earlier = store.read_earlier(jobkey, last.attempt)
    return not decide_retry(spec, outcome, earlier).is_allowed


def _end_unqueued(
    store: JobStore, jobkey: str, order: LaunchOrder, damage: TamperedObjectError
) -> None:
    """
    Record the end of an attempt that never came into the queue, and whose record is not ours.

    Its worker died between two writes. No controller knows of it, so nobody else would ever end
    it, and a clear would fail for good. It has no machine: launches come from the queue alone.
    """
    number = store.last_number(jobkey)
    if number is None or store.read_outcome(jobkey, number) is not None:
        return
    name = entry_name(jobkey, number)
    if store.is_queued(name):
        return
    spec = order.spec
    store.write_outcome(
        conclude_tampered(name, None, str(damage), store.clock.now()).model_copy(
            update={
                "title": f"{spec.payer}/{spec.job} {order.business_date}",
                "payer": spec.payer,
                "job": spec.job,
                "business_date": order.business_date,
                "array_index": order.array_index,
            }
        )
    )
    if store.is_queued(name):
        # Another try came in between; what has an outcome is not launched.
        store.close_entry(name)


def was_given_up(store: JobStore, jobkey: str, attempt: int) -> bool:
    """
    Say whether a person or Airflow wants an open attempt no more.

    What the controller itself ends, because it is overdue or lost, has an outcome of its own: the
    next try must hear it, for it decides whether there may be another.
    """
    kill = store.read_kill(entry_name(jobkey, attempt))
    if kill is not None and gives_up(kill.reason):
        return True
    lock = store.read_start_lock(store.read_launch(jobkey, attempt))
    return lock is not None and lock.revoked is not None and gives_up(lock.revoked)


def supersede(store: JobStore, fleet: Fleet, record: LaunchRecord) -> None:
    """End an attempt that nobody awaits any more, because the task was cleared."""
    # Its entry may be missing after a crash between two writes; somebody must judge it.
    entry = plan_entry(record)
    store.write_entry(entry)
    if not kill_attempt(store, fleet, record.jobkey, record.attempt, Kill("superseded")):
        store.close_entry(entry.name)


def kill_attempt(store: JobStore, fleet: Fleet, jobkey: str, attempt: int, kill: Kill) -> bool:
    """
    End an attempt: nobody starts its work any more and its machine goes; False if it was over.

    Safe to repeat. The controller waits for the machine's death and records the outcome.
    """
    if store.read_outcome(jobkey, attempt) is not None:
        return False
    store.write_kill(entry_name(jobkey, attempt), kill)
    try:
        store.revoke_start_lock(store.read_launch(jobkey, attempt), kill.reason)
    except TamperedObjectError as error:
        # Without the nonce nobody can revoke; the machines are found and ended all the same.
        log.warning("%s", error)
    machines = fleet.find_attempt(jobkey, attempt)
    fleet.terminate(m.instance_id for m in machines if not m.is_dead)
    return True


def kill_latest(store: JobStore, fleet: Fleet, identity: TaskIdentity, kill: Kill) -> None:
    """End the open attempt of a task instance that was killed before it knew its attempt."""
    jobkey = name_jobkey(store.read_secret(), store.environment, identity)
    last = store.last_attempt(jobkey)
    if last is not None and last.outcome is None:
        kill_attempt(store, fleet, jobkey, last.attempt, kill)


def _find_facts(
    store: JobStore,
    fleet: Fleet,
    order: LaunchOrder,
    secret: bytes,
    attempt: int,
    supersedes: int | None,
) -> LaunchFacts:
    spec = order.spec
    image_id = fleet.resolve_image(spec.ami)
    return LaunchFacts(
        environment=store.environment,
        bucket=store.bucket,
        jobkey=name_jobkey(secret, store.environment, order.identity),
        run_key=name_run(secret, store.environment, order.identity),
        attempt=attempt,
        nonce=secrets.token_hex(16),
        epoch=order.epoch,
        identity=order.identity,
        business_date=order.business_date,
        requested_at=store.clock.now(),
        image_id=image_id,
        image=find_image_facts(fleet, spec, order.lock, image_id),
        instance_types=find_instance_facts(fleet, spec, order.lock),
        code_sha256=find_code(store, order),
        agent=agent_source(),
        table_version=order.table_version,
        table=order.table_name,
        account=fleet.find_account(),
        limits=order.limits,
        dependents=order.dependents,
        is_backfill=order.is_backfill,
        priority_reason=order.priority_reason,
        order_override=order.order_override,
        array_index=order.array_index,
        supersedes=supersedes,
        may_retry=order.may_retry,
        is_awaited=order.is_awaited,
    )


def find_instance_facts(fleet: Fleet, spec: JobSpec, lock: LockFile) -> dict[str, InstanceFacts]:
    """Take instance types from the lock file; look up the others."""
    known = {
        name: lock.instance_types[name]
        for name in spec.instance_types
        if name in lock.instance_types
    }
    missing = [name for name in spec.instance_types if name not in known]
    return known | (fleet.instance_facts(missing) if missing else {})


def find_image_facts(fleet: Fleet, spec: JobSpec, lock: LockFile, image_id: str) -> ImageFacts:
    """Take the AMI's facts from the lock file, or look it up where they are of another AMI."""
    known = lock.images.get(spec.ami)
    return known if known and is_of(known, image_id) else fleet.image_facts(image_id)


def find_code(store: JobStore, order: LaunchOrder) -> str | None:
    """
    Find the pushed code of a row.

    :raises CodeMissingError: it is not in the lock file, or no longer in the bucket
    """
    code = order.spec.code
    if code is None:
        return None
    facts = order.lock.code.get(code)
    if facts is None:
        raise CodeMissingError(code, order.table, "is not in the lock file: it was never pushed")
    key = code_key(store.environment, facts.sha256)
    if not store.exists(key):
        raise CodeMissingError(code, order.table, f"is not at s3://{store.bucket}/{key}")
    return facts.sha256

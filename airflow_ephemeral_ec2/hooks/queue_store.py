"""The queue in the bucket: entries, kill requests, what people order, and the one state of all."""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from pydantic import ValidationError

from airflow_ephemeral_ec2.exceptions import AwsError, TamperedObjectError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, http_status
from airflow_ephemeral_ec2.hooks.bucket import CHECKSUM, MAX_DOCUMENT_BYTES, Bucket, read_json
from airflow_ephemeral_ec2.hooks.garbage import without_collections
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.queue import QueueEntry, QueueState
from airflow_ephemeral_ec2.model.queue_orders import QueueOrder, parse_order_key
from airflow_ephemeral_ec2.model.record import read_verdict, write_verdict

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)
_KILL_SUFFIX = ".kill"
_ORDERS = "orders/"


@dataclass(frozen=True)
class QueueListing:
    """One look at the queue prefix."""

    entries: frozenset[str]
    kills: frozenset[str]
    orders: frozenset[str] = frozenset()
    """What people have ordered: holds and promotions, by key below ``queue/orders/``."""


EMPTY_QUEUE = QueueListing(frozenset(), frozenset())


class QueueStore(Bucket):
    """The queue of one environment; every write is conditional."""

    def __init__(self, s3: S3Client, bucket: str, environment: str) -> None:
        super().__init__(s3, bucket)
        self.environment = environment

    # -- the queue -------------------------------------------------------------------------

    def write_entry(self, entry: QueueEntry) -> None:
        self.write_new(self._entry_key(entry.name), entry.model_dump_json().encode())

    def read_entry(self, name: str) -> QueueEntry | None:
        return self.read_model(self._entry_key(name), QueueEntry)

    def is_queued(self, name: str) -> bool:
        """Say whether an attempt has an entry, readable or not."""
        return self.exists(self._entry_key(name))

    def list_queue(self) -> QueueListing:
        prefix = f"{self.environment}/queue/"
        with without_collections():
            keys = list(self.list_keys(prefix))
        found = [key.removeprefix(prefix).removesuffix(".json") for key in keys]
        orders = {name.removeprefix(_ORDERS) for name in found if name.startswith(_ORDERS)}
        names = [name for name in found if not name.startswith(_ORDERS)]
        kills = {n.removesuffix(_KILL_SUFFIX) for n in names if n.endswith(_KILL_SUFFIX)}
        entries = frozenset(n for n in names if not n.endswith(_KILL_SUFFIX))
        return QueueListing(entries, frozenset(kills), frozenset(orders))

    def close_entry(self, name: str) -> None:
        """Take an attempt out of the queue; only after its outcome is recorded."""
        for key in (self._entry_key(name), self._entry_key(name + _KILL_SUFFIX)):
            with aws_call(f"delete s3://{self.bucket}/{key}", bucket=self.bucket):
                self.s3.delete_object(Bucket=self.bucket, Key=key)

    def write_kill(self, name: str, kill: Kill) -> None:
        """Ask for the end of an attempt; the controller finds it when it lists the queue."""
        body = {"reason": kill.reason, "by": kill.by, "at": self.clock.now()}
        body |= write_verdict(kill.verdict)
        self.write_new(self._entry_key(name + _KILL_SUFFIX), json.dumps(body).encode())

    def read_kill(self, name: str) -> Kill | None:
        body = self.read_document(self._entry_key(name + _KILL_SUFFIX))
        if body is None:
            return None
        found = read_json(body)
        if "reason" not in found:
            return Kill("tampered", by="the kill request is not what this package writes")
        reason = str(found["reason"])
        return Kill(reason, str(found.get("by", "")), read_verdict(found, reason))

    # -- what people order -------------------------------------------------------------------

    def write_order(self, order: QueueOrder) -> bool:
        """Hold or promote a job; False when somebody has ordered the same before."""
        body = order.model_dump_json().encode()
        if self.read_order(order.key) is not None:
            return False
        # First: nothing may be held of which nobody knows who did it.
        self.record_order(order)
        is_new = self.write_new(self._entry_key(_ORDERS + order.key), body)
        # An answer that was lost is repeated by botocore, and S3 then finds our own object.
        return is_new or self.read_order(order.key) == order

    def read_order(self, key: str) -> QueueOrder | None:
        """Read an order; one that cannot be read still counts, as nobody's."""
        action, target = parse_order_key(key)
        if action is None:
            return None
        try:
            return self.read_model(self._entry_key(_ORDERS + key), QueueOrder)
        except TamperedObjectError as error:
            log.warning("%s", error)
            return QueueOrder(action=action, target=target, by="unknown", reason="unreadable", at=0)

    def withdraw_order(self, key: str) -> None:
        """Take a hold or promotion back."""
        full = self._entry_key(_ORDERS + key)
        with aws_call(f"delete s3://{self.bucket}/{full}", bucket=self.bucket):
            self.s3.delete_object(Bucket=self.bucket, Key=full)

    def record_order(self, order: QueueOrder) -> None:
        """Keep who ordered what, when and why."""
        key = order.target
        date = key.business_date or "all-dates"
        name = f"order-{order.at:.3f}-{order.action}-{secrets.token_hex(4)}.json"
        full = f"{self.environment}/history/{key.payer}/{key.job}/{date}/{name}"
        self.write_new(full, order.model_dump_json().encode())

    def _entry_key(self, name: str) -> str:
        return f"{self.environment}/queue/{name}.json"

    def read_state(self) -> tuple[QueueState, str | None]:
        """
        Return the queue state and its ETag (None before the first write).

        One that cannot be read is an empty one that must be rebuilt from entries and EC2.
        """
        found = self.read_tagged(self._state_key, MAX_DOCUMENT_BYTES)
        if found is None:
            # New, or deleted while machines are out: EC2 knows.
            return QueueState(is_rebuilt=True), None
        try:
            state = QueueState.model_validate_json(found[0])
        except ValidationError:
            return QueueState(is_rebuilt=True), found[1]
        # Each state that was ever written here has a revision: ``{}`` says nothing of what is out.
        return state if state.revision else QueueState(is_rebuilt=True), found[1]

    def write_state(self, state: QueueState, etag: str | None) -> str | None:
        """
        Write the queue state if nobody else did since ``etag``; None when somebody was first.

        After a lost answer the revision, the writer's own nonce, tells that the write was ours.
        """
        state = state.model_copy(update={"revision": secrets.token_hex(16)})
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        body = state.model_dump_json(exclude_defaults=True).encode()
        try:
            with aws_call(f"write s3://{self.bucket}/{self._state_key}", bucket=self.bucket):
                answer = self.s3.put_object(
                    Bucket=self.bucket,
                    Key=self._state_key,
                    Body=body,
                    ChecksumAlgorithm=CHECKSUM,
                    **condition,  # type: ignore[arg-type]  # one of two optional arguments
                )
        except AwsError as error:
            return self._own_revision(state, error)
        self.observe(answer)
        return answer["ETag"]

    def _own_revision(self, state: QueueState, error: AwsError) -> str | None:
        cause = error.__cause__
        lost = not isinstance(cause, ClientError) or http_status(cause) >= 500
        raced = isinstance(cause, ClientError) and http_status(cause) in (409, 412, 404)
        if not (lost or raced):
            raise error
        found, etag = self.read_state()
        return etag if found.revision == state.revision else None

    @property
    def _state_key(self) -> str:
        return f"{self.environment}/queue-state.json"

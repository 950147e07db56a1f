"""The SQS queue that tells of a payer's files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_ephemeral_ec2.exceptions import RequestRefusedError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call
from airflow_ephemeral_ec2.model.landing import Message, read_messages

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)
WAIT_SECONDS = 10
"""A long poll; less than the read timeout of the client."""
VISIBILITY_SECONDS = 300
"""How long a received message is ours: from here to its deletion pass a deferral and a worker."""
MAX_MESSAGES = 10
"""The most that ``ReceiveMessage`` gives."""


class FileQueue:
    """
    One payer's queue.

    :param sqs: boto3 client of the queue's region
    :param url: as ``CreateQueue`` returns it
    :raises AccessError: no permission
    :raises AwsUnavailableError: SQS cannot be asked now
    :raises RequestRefusedError: no such queue
    """

    def __init__(self, sqs: Any, url: str) -> None:  # noqa: ANN401 - has no stubs here
        self._sqs = sqs
        self.url = url

    def receive(self, wait_seconds: int = WAIT_SECONDS) -> tuple[Message, ...]:
        """Wait for messages, and keep them from others for ``VISIBILITY_SECONDS``."""
        with aws_call(f"receive from {self.url}"):
            answer = self._sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=MAX_MESSAGES,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=VISIBILITY_SECONDS,
            )
        return read_messages(answer.get("Messages", []))

    def delete(self, receipts: Iterable[str]) -> None:
        """Delete what is dealt with; a message that stays comes again, and is known then."""
        for receipt in receipts:
            try:
                with aws_call(f"delete a message of {self.url}"):
                    self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=receipt)
            except RequestRefusedError as error:
                log.info("a message was deleted before, or received again: %s", error)

"""EphemeralEC2FileTrigger: a sensor's wait for messages about files."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ephemeral_ec2.exceptions import AwsUnavailableError, EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.ec2 import connect
from airflow_ephemeral_ec2.hooks.file_queue import FileQueue
from airflow_ephemeral_ec2.triggers.resumption import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ephemeral_ec2.model.landing import Message

PAUSE_SECONDS = 15.0
"""Between two tries while SQS cannot be asked."""
_POLLS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="file-queue")
"""Long polls only wait; in asyncio's own few threads they would keep out the controller."""


class EphemeralEC2FileTrigger(BaseTrigger):
    """
    Wait until a queue has messages; they are not deleted here, so none can be lost.

    :param queue_url: URL of the SQS queue
    :param aws_conn_id: Airflow connection that reads it
    :param region: region of the queue
    """

    def __init__(self, queue_url: str, aws_conn_id: str, region: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow does not annotate triggers
        self.queue_url = queue_url
        self.aws_conn_id = aws_conn_id
        self.region = region

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_ephemeral_ec2.triggers.files.EphemeralEC2FileTrigger",
            {
                "queue_url": self.queue_url,
                "aws_conn_id": self.aws_conn_id,
                "region": self.region,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: ``message_batch`` as Airflow's SQS trigger has it, or an error's text."""
        began = time.monotonic()
        try:
            messages = await self._wait()
            batch = [
                {"MessageId": one.message_id, "ReceiptHandle": one.receipt, "Body": one.body}
                for one in messages
            ]
            event = TriggerEvent({"status": "success", "message_batch": batch})
        except EphemeralEC2Error as error:
            event = TriggerEvent({"error": str(error)})
        await settle(self, event, began)
        yield event

    async def _wait(self) -> tuple[Message, ...]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                messages = await loop.run_in_executor(_POLLS, self._poll)
            except AwsUnavailableError as error:
                self.log.warning("cannot ask SQS, will ask again: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if messages:
                return messages

    def _poll(self) -> tuple[Message, ...]:
        return FileQueue(connect(self.aws_conn_id, self.region).sqs, self.queue_url).receive()

"""What the bucket of record says about the attempts of machines that EC2 shows."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import launch_key
from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.model.reap import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.queue_store import QueueListing
    from airflow_ephemeral_ec2.model.reap import SeenMachine

log = logging.getLogger(__name__)
_JOBKEY = re.compile(r"[0-9a-f]{8,64}")
_ATTEMPT = re.compile(r"[1-9][0-9]{0,5}")


def find_standings(store: JobStore, machines: Sequence[SeenMachine]) -> dict[str, Standing]:
    """
    Find the standing of each machine, by instance id: one listing, and a read for each odd one.

    Ask after EC2 has shown the machines: an attempt is in the queue before its machine exists.

    :raises AwsError: the bucket cannot be read; then nothing is said of anybody
    """
    queue = store.list_queue()
    count = Counter(machine.name for machine in machines)
    return {
        machine.instance_id: _find_standing(store, queue, machine, count[machine.name] > 1)
        for machine in machines
    }


def _find_standing(
    store: JobStore, queue: QueueListing, machine: SeenMachine, is_twin: bool
) -> Standing:
    if machine.name in queue.kills:
        return Standing.ENDING
    if machine.name in queue.entries:
        is_out = is_twin and _is_locked_out(store, machine)
        return Standing.LOCKED_OUT if is_out else Standing.OPEN
    return Standing.OVER if _was_asked_for(store, machine) else Standing.UNKNOWN


def _was_asked_for(store: JobStore, machine: SeenMachine) -> bool:
    # Tags can be anything; only what we write becomes part of a key.
    if not _JOBKEY.fullmatch(machine.jobkey) or not _ATTEMPT.fullmatch(machine.attempt):
        return False
    return store.exists(launch_key(store.environment, machine.jobkey, int(machine.attempt)))


def _is_locked_out(store: JobStore, machine: SeenMachine) -> bool:
    """One of two machines of an attempt: the start lock says which of them may run."""
    try:
        entry = store.read_entry(machine.name)
        lock = store.read_start_lock(entry) if entry else None
    except TamperedObjectError as error:
        log.warning("%s: %s", machine.instance_id, error)
        return False
    if lock is None or lock.is_foreign:
        return False
    return lock.instance_id != machine.instance_id

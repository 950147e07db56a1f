"""The start lock as it lies in the bucket: checked against the attempt before it is believed."""

import json
from collections.abc import Mapping
from typing import Any

from airflow_ephemeral_ec2.contract import CONTRACT_VERSION
from airflow_ephemeral_ec2.model.outcome import StartLock
from airflow_ephemeral_ec2.model.record import read_verdict


def parse_start_lock(body: bytes, nonce: str) -> StartLock:
    """Read a start lock; one that neither an agent nor this package has written says why."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return StartLock(None, None, fault="the start lock cannot be read")
    version = found.get("v", CONTRACT_VERSION)
    if version != CONTRACT_VERSION:
        fault = f"the start lock has schema version {version!r:.20}, not {CONTRACT_VERSION}"
        return StartLock(None, None, fault=fault)
    if found.get("nonce", nonce) != nonce:
        return StartLock(None, None, fault="the start lock names another nonce")
    if not _is_well_formed(found):
        return StartLock(None, None, fault="the start lock is not what an agent writes")
    instance_id, revoked = found.get("instance_id"), found.get("revoked")
    arn = found.get("arn") or ""
    return StartLock(instance_id, revoked, arn=arn, verdict=read_verdict(found, revoked))


def _is_well_formed(found: Mapping[str, Any]) -> bool:
    """Whether it is either taken, by one instance, or revoked."""
    instance_id, revoked = found.get("instance_id"), found.get("revoked")
    if bool(instance_id) == bool(revoked):
        return False
    words = (value for name, value in found.items() if name != "v")
    if not all(isinstance(word, str | None) for word in words):
        return False
    arn = found.get("arn")
    return not arn or revoked is not None or arn.endswith(f"/{instance_id}")

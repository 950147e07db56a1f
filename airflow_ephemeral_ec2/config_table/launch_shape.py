"""Settings that would loosen the shape of every launch, and why a row may not have them."""

import re

_REASONS = {
    "every machine has a private address only; reach it through your VPC": (
        "public_ip", "public_ip_address", "associate_public_ip", "associate_public_ip_address",
    ),
    "nobody logs in to a machine, so it gets no key pair; the log is in the bucket": (
        "key_name", "key_pair", "keypair", "ssh_key",
    ),
    "a machine that powers off is gone; one that only stops keeps a disk with PHI": (
        "shutdown_behavior", "shutdown_behaviour", "instance_initiated_shutdown_behavior",
        "disable_api_termination", "disable_api_stop", "termination_protection",
    ),
    "the machine's credentials need IMDSv2 and are never more than one hop away": (
        "http_tokens", "imds", "imdsv1", "hop_limit", "http_put_response_hop_limit",
        "metadata_options", "instance_metadata_tags",
    ),
    "disks hold PHI: they are always encrypted; kms_key chooses the key": (
        "encrypted", "encryption", "ebs_encrypted",
    ),
    "disks hold PHI: none outlives its machine": ("delete_on_termination", "keep_volume"),
    "a machine that was recovered would run the work a second time": (
        "auto_recovery", "maintenance_options",
    ),
    "capacity reservations are somebody else's; jobs never use them up": (
        "capacity_reservation", "capacity_reservation_preference",
    ),
    "a spot request that comes back would launch machines nobody asked for": (
        "spot_type", "spot_instance_type", "persistent_spot", "interruption_behavior",
        "instance_interruption_behavior",
    ),
    "user data carries the agent and the watchdog; use pre_command": ("user_data", "userdata"),
    "a launch template can be changed by others and could keep a machine from ending": (
        "launch_template", "launch_template_id",
    ),
    "a dedicated host outlives its job, and somebody pays for it by the hour": (
        "tenancy", "host_id", "host_resource_group_arn", "dedicated_host",
    ),
    "one job, one machine: array_size splits a job": ("min_count", "max_count", "count"),
}  # fmt: skip
_BY_NAME = {name.replace("_", ""): why for why, names in _REASONS.items() for name in names}


def refuse_loosening(name: str) -> str | None:
    """
    Say why a setting is not for users; None for every other word.

    ``PublicIp``, ``public-ip`` and ``public_ip`` are the same word.
    """
    reason = _BY_NAME.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    return f"not for a row to change: {reason}" if reason else None

"""What may expire in the bucket of record, and when; lifecycle rules against it."""

from collections.abc import Mapping, Sequence
from typing import Any

RECORD_DAYS = 400
"""Launch records, locks, outcomes, history and files taken: longer than any retry, clear or audit year."""
LOG_DAYS = 30
"""Reports and logs: longer than the longest job, so that no living machine loses its own."""

_MINIMUM_DAYS = {"jobs/": RECORD_DAYS, "by-date/": RECORD_DAYS, "history/": RECORD_DAYS,
                 "landed/": RECORD_DAYS, "code/": RECORD_DAYS, "machines/": LOG_DAYS}  # fmt: skip
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_NEVER = ("environment.json", "queue/", "queue-state.json")


def find_retention_problems(rules: Sequence[Mapping[str, Any]], environment: str) -> list[str]:
    """
    Name the lifecycle rules that would take away what may still be needed.

    Launch records and start locks must outlive every retry, or a retry could run the work twice.
    An object in an archive class cannot be read either (S3 user guide, "Restoring an archived
    object"). Old versions and delete markers may always go, and so may what carries object tags:
    nothing of ours does.

    :param rules: as ``GetBucketLifecycleConfiguration`` returns them
    """
    problems = []
    for rule in rules:
        if rule.get("Status") != "Enabled" or _needs_tags(rule):
            continue
        prefix = _prefix_of(rule)
        for what, days in _losses(rule):
            for name, minimum in _limits():
                is_soon = minimum is None or days is None or days < minimum
                if is_soon and _overlaps(prefix, f"{environment}/{name}"):
                    allowed = "never" if minimum is None else f"after {minimum} days or more"
                    when = "on a date" if days is None else f"after {days} days"
                    problems.append(
                        f"lifecycle rule {rule.get('ID', '(no name)')!r} (prefix {prefix!r}) "
                        f"{what} {environment}/{name} {when}; allowed: {allowed}"
                    )
    return problems


def _losses(rule: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Return how current objects become unreadable, and after how many days; None: on a date."""
    found: list[tuple[str, int | None]] = []
    expiration = rule.get("Expiration", {})
    if "Days" in expiration or "Date" in expiration:
        found.append(("deletes", expiration.get("Days")))
    found += [
        ("archives", transition.get("Days"))
        for transition in rule.get("Transitions", ())
        if transition.get("StorageClass") in _ARCHIVES
    ]
    return found


def _needs_tags(rule: Mapping[str, Any]) -> bool:
    found = rule.get("Filter", {})
    return bool(found.get("Tag") or found.get("And", {}).get("Tags"))


def _limits() -> list[tuple[str, int | None]]:
    return [*_MINIMUM_DAYS.items(), *((name, None) for name in _NEVER)]


def _prefix_of(rule: Mapping[str, Any]) -> str:
    found = rule.get("Filter", {})
    return str(
        found.get("Prefix") or found.get("And", {}).get("Prefix") or rule.get("Prefix") or ""
    )


def _overlaps(prefix: str, key: str) -> bool:
    return key.startswith(prefix) or prefix.startswith(key)


def recommended_rules(environment: str) -> list[dict[str, Any]]:
    """Return lifecycle rules that delete what may go, for ``PutBucketLifecycleConfiguration``."""
    rules: list[dict[str, Any]] = [
        {
            "ID": f"ephemeral-ec2-{environment}-{name.rstrip('/')}",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{environment}/{name}"},
            "Expiration": {"Days": RECORD_DAYS},
        }
        for name in _MINIMUM_DAYS
        if name != "code/"
    ]
    queue = {
        "ID": f"ephemeral-ec2-{environment}-old-versions",
        "Status": "Enabled",
        "Filter": {"Prefix": f"{environment}/"},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    return [*rules, queue]

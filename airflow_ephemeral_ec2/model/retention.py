"""What may expire in the bucket of record, and when; lifecycle rules against it."""

from collections.abc import Mapping, Sequence
from typing import Any

RECORD_DAYS = 400
"""Launch records, locks, outcomes and history: longer than any retry, clear or audit year."""
LOG_DAYS = 30
"""Reports and logs: longer than the longest job, so that no living machine loses its own."""

_MINIMUM_DAYS = {"jobs/": RECORD_DAYS, "by-date/": RECORD_DAYS, "history/": RECORD_DAYS,
                 "code/": RECORD_DAYS, "machines/": LOG_DAYS}  # fmt: skip
_NEVER = ("environment.json", "queue/", "queue-state.json")


def find_retention_problems(rules: Sequence[Mapping[str, Any]], environment: str) -> list[str]:
    """
    Name the lifecycle rules that would delete what may still be needed.

    Launch records and start locks must outlive every retry, or a retry could run the work twice.

    :param rules: as ``GetBucketLifecycleConfiguration`` returns them
    """
    problems = []
    for rule in rules:
        days = rule.get("Expiration", {}).get("Days")
        if rule.get("Status") != "Enabled" or (
            "Date" not in rule.get("Expiration", {}) and not days
        ):
            continue
        prefix = _prefix_of(rule)
        for name, minimum in _limits():
            if _overlaps(prefix, f"{environment}/{name}") and (
                minimum is None or not days or days < minimum
            ):
                allowed = "never" if minimum is None else f"after {minimum} days or more"
                when = f"after {days} days" if days else "on a date"
                problems.append(
                    f"lifecycle rule {rule.get('ID', '(no name)')!r} (prefix {prefix!r}) deletes "
                    f"{environment}/{name} {when}; allowed: {allowed}"
                )
    return problems


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

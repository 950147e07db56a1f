"""How long a machine may live, as each layer of control counts it; the inner ones act first."""

from airflow_ephemeral_ec2.model.spec import LONGEST_LIFETIME_SECONDS

SCHEDULE_SLACK_SECONDS = 300
"""EventBridge Scheduler ends a machine this long after its own watchdog should have."""
REAPER_SLACK_SECONDS = 600
"""The reaper suspects a machine this long after its own watchdog should have ended it."""


def scheduled_end(launched_at: float, max_lifetime: float) -> float:
    """Return when EventBridge Scheduler ends a machine (seconds since 1970)."""
    return launched_at + max_lifetime + SCHEDULE_SLACK_SECONDS


def reapable_age(max_lifetime: float | None) -> float:
    """
    Return the age in seconds beyond which a machine is an orphan.

    :param max_lifetime: of its tag; None when the tag is missing or no number: then the longest
        lifetime that any row can ask for counts
    """
    longest = LONGEST_LIFETIME_SECONDS if max_lifetime is None else max_lifetime
    return longest + REAPER_SLACK_SECONDS

"""The ways in which a job is ended through Airflow: what is done, and what ends the machine."""

from dataclasses import dataclass

BYSTANDERS = "bystanders"
GOAL_SECONDS = 10.0
"""From the user's action to ``shutting-down``, for as long as a controller lives."""
REAP_SECONDS = 20.0
"""Between two runs of the reaper here; its DAG says five minutes."""


@dataclass(frozen=True)
class Path:
    """One row of the table in ``docs/killing.md``."""

    name: str
    title: str
    ended_by: str
    deferrable: bool = True
    timeout: str = ""
    """``execution``, ``dagrun`` or ``deferral``: who ends it is a clock."""
    retries: int = 0
    is_kill: bool = True
    """False: Airflow does as if it killed, and every job must live on."""
    bound: str = "<= 10 s"
    bound_seconds: float | None = GOAL_SECONDS
    """What p99 must not exceed; None where nobody may be killed."""
    pause: float = 0.0
    """Seconds between two kills: each worker ends its own job, and two cores have no more to give."""

    @property
    def dag_id(self):
        return f"kill_{self.name}"


PATHS = (
    Path("failed", "mark failed", "trigger"),
    Path("success", "mark success", "trigger"),
    Path("clear", "clear", "trigger", retries=1),
    Path("delete", "delete the running run (3.3: mark it failed, then delete)", "trigger"),
    Path(
        "execution_deferred",
        "`execution_timeout`, deferred",
        "trigger, by its own clock",
        timeout="execution",
    ),
    Path(
        "execution_worker",
        "`execution_timeout`, `deferrable=False`",
        "worker",
        deferrable=False,
        timeout="execution",
        pause=4.0,
    ),
    Path("dagrun", "`dagrun_timeout`", "trigger", timeout="dagrun"),
    Path(
        "deferral",
        "deferral timeout of a user's own operator",
        "trigger, by its own clock",
        timeout="deferral",
    ),
    Path(
        "sigterm", "SIGTERM to the worker, no retries left", "worker", deferrable=False, pause=4.0
    ),
    Path(
        "drain",
        "SIGTERM to the worker, retries left (drain)",
        "nobody: the retry adopts",
        deferrable=False,
        retries=3,
        is_kill=False,
        bound="never",
        bound_seconds=None,
    ),
    Path(
        "stalled",
        "triggerer stopped, adopted by another, goes on",
        "nobody",
        is_kill=False,
        bound="never",
        bound_seconds=None,
    ),
    Path(
        "down",
        "mark failed while every triggerer is down",
        "reaper, at its second sighting",
        bound="two periods of the reaper",
        bound_seconds=2 * REAP_SECONDS + GOAL_SECONDS,
    ),
)

"""What Airflow's context says about a run, on every supported version."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.identity import TaskIdentity

PLACE_KEY = "ephemeral_ec2"
"""XCom that the operator writes before it waits: where the attempt's things are."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def find_identity(context: Any) -> TaskIdentity:  # noqa: ANN401 - Airflow's Context differs per version
    ti = context["ti"]
    return TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)


def find_epoch(context: Any) -> str:  # noqa: ANN401
    """
    Name what all retries of one run of the task share.

    Clearing a task sets its ``max_tries`` to the tries made plus the retries it has now; deleting
    a run and making it again gives it another start date (``airflow/models/taskinstance.py``).
    """
    run, ti = context["dag_run"], context["ti"]
    started = getattr(run, "start_date", None)
    retries = getattr(context.get("task"), "retries", "")
    return f"{started.isoformat() if started else ''}|{ti.max_tries}|{retries}"


def has_tries_left(context: Any) -> bool:  # noqa: ANN401
    """Say whether Airflow would try the task again (``TaskInstance.is_eligible_to_retry``)."""
    ti = context["ti"]
    return bool(ti.try_number <= ti.max_tries)


def find_deadline(
    context: Any,  # noqa: ANN401
    execution_timeout: timedelta | None,
    now: float,
) -> float | None:
    """
    Say when a task's ``execution_timeout`` is over, by the clock that reads ``now``.

    It counts from the start of the try, as Airflow 2 does for deferred tasks
    (``airflow/models/taskinstance.py``, ``_defer_task``). None: the task has none.
    """
    if execution_timeout is None:
        return None
    started = getattr(context["ti"], "start_date", None)
    passed = datetime.now(UTC) - started if started else timedelta()
    return now + (execution_timeout - passed).total_seconds()


def is_backfill(context: Any) -> bool:  # noqa: ANN401
    """
    Say whether a backfill runs this.

    A run that a backfill of Airflow 3 reprocesses keeps its ``scheduled__`` id and becomes of type
    ``backfill`` (``airflow/models/backfill.py``); Airflow 2 names its runs ``backfill__...``.
    """
    run = context["dag_run"]
    kind = getattr(run, "run_type", None)
    run_id = getattr(run, "run_id", None) or getattr(context.get("ti"), "run_id", "")
    return str(getattr(kind, "value", kind)) == "backfill" or str(run_id).startswith("backfill__")


def is_made_by_backfill(context: Any) -> bool:  # noqa: ANN401
    """Say whether a backfill has made this run; one that it reprocesses keeps its id."""
    return str(getattr(context["dag_run"], "run_id", "")).startswith("backfill__")


def is_new_in_backfill(context: Any) -> bool:  # noqa: ANN401
    """
    Say whether a backfill has made this run, and nobody has cleared or reprocessed the task since.

    Clearing raises ``max_tries`` above the task's retries (``find_epoch``).
    """
    ti, task = context["ti"], context.get("task")
    return is_made_by_backfill(context) and ti.max_tries <= getattr(task, "retries", 0)


def find_business_date(given: str | None, context: Any) -> str:  # noqa: ANN401
    """
    Find the business date of a run.

    Argument, params, partition key, the updates of assets that started the run, logical date,
    run_after: the first that exists. ``logical_date`` is None for a run that was started by hand in Airflow 3.

    :raises ConfigurationError: what was given is not a date, or one date for all runs of a
        backfill, or the updates are about several
    """
    if given:
        return parse_business_date(given)
    asked = (context.get("params") or {}).get("business_date")
    if asked and is_backfill(context):
        msg = (
            f"parameter business_date {asked!r}: in a backfill each run is for its own date, and "
            "with this all would be for the same; leave it out, or trigger one run with it"
        )
        raise ConfigurationError(msg)
    if asked:
        return parse_business_date(asked)
    run = context["dag_run"]
    found = _DATE.search(getattr(run, "partition_key", None) or "")
    if found:
        return parse_business_date(found.group())
    updated = _find_updated_dates(context)
    if len(updated) > 1:
        msg = (
            f"business_date: started by updates of assets for {', '.join(updated)}; trigger one "
            "run for each, with the parameter business_date, or backfill these days"
        )
        raise ConfigurationError(msg)
    if updated:
        return parse_business_date(updated[0])
    moment = getattr(run, "logical_date", None) or context.get("logical_date")
    moment = moment or getattr(run, "run_after", None)
    if moment is None:
        msg = "business_date: the run has no date; trigger it with the parameter business_date"
        raise ConfigurationError(msg)
    zone = getattr(context.get("dag"), "timezone", None)
    return str((moment.astimezone(zone) if zone else moment).date())


def _find_updated_dates(context: Any) -> list[str]:  # noqa: ANN401
    """List the business dates that asset updates name in their ``extra``, as our own do."""
    updates = context.get("triggering_asset_events") or context.get("triggering_dataset_events")
    found = {
        str(event.extra["business_date"])
        for events in (updates or {}).values()
        for event in events
        if (event.extra or {}).get("business_date")
    }
    return sorted(found)


def parse_business_date(text: object) -> str:
    """
    Check a date and write it as ``2026-03-01``.

    :raises ConfigurationError: it is not a date
    """
    if isinstance(text, datetime):
        return str(text.date())
    try:
        return str(date.fromisoformat(str(text)))
    except ValueError as error:
        msg = f"business_date {text!r}: not a date; write it like 2026-03-01"
        raise ConfigurationError(msg) from error


def resolve_table(path: str, context: Any) -> str:  # noqa: ANN401
    """Find a relative table beside the DAG's file."""
    if path.startswith("s3://") or Path(path).is_absolute():
        return path
    fileloc = getattr(context.get("dag"), "fileloc", None)
    return str(Path(fileloc).parent / path) if fileloc else path

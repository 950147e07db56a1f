"""A payer's schedule -> what ``DAG(schedule=...)`` takes, with one business date on Airflow 2 and 3."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_ephemeral_ec2.model.schedule import AssetSchedule, parse_schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

try:
    from airflow.sdk import CronTriggerTimetable
except ImportError:
    from airflow.timetables.trigger import (  # type: ignore[assignment]  # Airflow 2, the same name
        CronTriggerTimetable,
    )


class Timing:
    """
    The schedules of one DAG file.

    A cron string alone means two things: Airflow 2 runs at the end of the interval before and dates
    the run by its begin, Airflow 3 dates it by the moment that cron names. Here it is always the
    latter, as an explicit timetable; that is periodic, so Airflow can backfill it.

    :param arguments: those of the DAGs; ``start_date`` says in which time zone cron is read
    :param default_args: the tasks'; may hold ``start_date`` too
    """

    def __init__(self, arguments: Mapping[str, Any], default_args: Mapping[str, Any]) -> None:
        start = arguments.get("start_date") or default_args.get("start_date")
        # Airflow's own rules, whatever form the date has.
        self._timezone = DAG("timezone", schedule=None, start_date=start).timezone
        self._timetables: dict[str, Any] = {}

    def schedule(self, text: str | None) -> Any:  # noqa: ANN401 - timetable, assets or None
        """Make what a DAG takes; DAGs with the same cron expression share a timetable."""
        if text is None:
            return None
        found = parse_schedule(text)
        if isinstance(found, AssetSchedule):
            assets = [Asset(uri) for uri in found.uris]
            return reduce(or_, assets) if found.when == "any" and len(assets) > 1 else assets
        if found not in self._timetables:
            self._timetables[found] = CronTriggerTimetable(found, timezone=self._timezone)
        return self._timetables[found]

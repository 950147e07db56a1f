"""A payer's schedule -> what ``DAG(schedule=...)`` takes, with one business date on Airflow 2 and 3."""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_ephemeral_ec2.model.schedule import AssetSchedule, parse_schedule
from airflow_ephemeral_ec2.timetables.on_request import OnRequestTimetable

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

    Without cron, runs start on request, by assets or by files; Airflow would backfill none of
    them, so that such a payer has a timetable of ours.

    :param arguments: those of the DAGs; ``start_date`` says in which time zone cron is read
    :param default_args: the tasks'; may hold ``start_date`` too
    :param has_daily_backfills: payers without cron can be backfilled, a run for each day
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        default_args: Mapping[str, Any],
        has_daily_backfills: bool,
    ) -> None:
        start = arguments.get("start_date") or default_args.get("start_date")
        # Airflow's own rules, whatever form the date has.
        self._timezone = DAG("timezone", schedule=None, start_date=start).timezone
        self._on_request = OnRequestTimetable(self._timezone) if has_daily_backfills else None
        self._timetables: dict[str, Any] = {}

    def schedule(self, text: str | None) -> Any:  # noqa: ANN401 - timetable, assets or None
        """Make what a DAG takes; DAGs with the same cron expression share a timetable."""
        found = parse_schedule(text) if text else None
        if found is None:
            return self._on_request
        if isinstance(found, AssetSchedule):
            return self._by_assets(found)
        if found not in self._timetables:
            self._timetables[found] = CronTriggerTimetable(found, timezone=self._timezone)
        return self._timetables[found]

    def arguments(self, text: str | None) -> dict[str, Any]:
        """Name further arguments of a DAG with this schedule."""
        is_cron = text is not None and isinstance(parse_schedule(text), str)
        # Without cron there is nothing to catch up with (timetables/on_request.py).
        return {} if is_cron else {"catchup": False}

    def _by_assets(self, wanted: AssetSchedule) -> Any:  # noqa: ANN401 - a timetable or assets
        assets = [Asset(uri) for uri in wanted.uris]
        by_assets = reduce(or_, assets) if wanted.when == "any" and len(assets) > 1 else assets
        if self._on_request is None:
            return by_assets
        return _by_assets_or_on_request(self._on_request, by_assets)


def _by_assets_or_on_request(timetable: OnRequestTimetable, assets: Any) -> Any:  # noqa: ANN401 - Airflow's timetable
    try:
        sdk = import_module("airflow.sdk")
    except ImportError:
        places = import_module("airflow.timetables.datasets")
        return places.DatasetOrTimeSchedule(timetable=timetable, datasets=assets)
    return sdk.AssetOrTimeSchedule(timetable=timetable, assets=assets)

"""The timetable of a payer without cron: nothing by the clock, every day of a range for a backfill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.timetables.base import DataInterval, Timetable
from airflow.timetables.trigger import CronTriggerTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import DagRunInfo, TimeRestriction
    from pendulum import DateTime
    from pendulum.tz.timezone import FixedTimezone, Timezone

EVERY_MIDNIGHT = "0 0 * * *"


class OnRequestTimetable(Timetable):
    """
    Starts no run of its own accord; gives a backfill one run for each day of its range.

    Airflow refuses to backfill a DAG whose timetable is not ``periodic``
    (``airflow/models/backfill.py``, ``DagNonPeriodicScheduleException``), as ``schedule=None`` and
    a schedule of assets are. It asks a backfill's dates of the timetable with a last date and
    ``catchup`` (``iter_dagrun_infos_between``), and the next run of the scheduler with those of the
    DAG: so a DAG with this must not have ``catchup``.

    :param timezone: whose midnights are the runs' logical dates
    """

    description = "On request; a backfill has a run for each day"
    periodic = True
    can_be_scheduled = False

    def __init__(self, timezone: str | Timezone | FixedTimezone) -> None:
        self._daily = CronTriggerTimetable(EVERY_MIDNIGHT, timezone=timezone)

    @property
    def summary(self) -> str:
        return "on request"

    def serialize(self) -> dict[str, Any]:
        return {"daily": self._daily.serialize()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> OnRequestTimetable:
        made = cls("UTC")
        # Airflow's own form, which differs per version.
        made._daily = CronTriggerTimetable.deserialize(data["daily"])  # type: ignore[assignment]
        return made

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        if not restriction.catchup or restriction.earliest is None or restriction.latest is None:
            return None
        return self._daily.next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )

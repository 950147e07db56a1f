"""EphemeralEC2ReapOperator: ends what nobody awaits, and tells who waits too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_ephemeral_ec2.exceptions import AwsError, EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.abandoned import find_abandoned
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.hooks.ec2 import connect, open_fleet, open_store
from airflow_ephemeral_ec2.hooks.reaper import Reaper, ReapResult, describe_pass
from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.retention import find_retention_problems
from airflow_ephemeral_ec2.notifications.alerts import tell
from airflow_ephemeral_ec2.operators.reap_news import News
from airflow_ephemeral_ec2.settings import Settings, settings_from_airflow
from airflow_ephemeral_ec2.triggers.task_state import list_task_states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import BaseNotifier

    from airflow_ephemeral_ec2.hooks.job_store import JobStore


class EphemeralEC2ReapOperator(BaseOperator):
    """
    One pass of the reaper; schedule it every few minutes.

    Ends machines of this environment that outlived their limits or their attempts, volumes and
    network interfaces that nothing uses, and attempts whose task is over in Airflow. Nothing is
    ended that was not seen twice. Never depends on the queue, nor on a readable bucket.

    :param regions: regions to look at; empty: the bucket's region
    :param aws_conn_id: Airflow connection; empty: that of ``[ephemeral_ec2]``
    :param dry_run: only say what would be ended
    :param waiting_longer_than: tell of attempts that wait for their launch longer than this
    :param on_waiting: notifiers for them, each told once per attempt
    :param on_orphan: notifiers for orphans, each told once per orphan
    :param on_quota: notifiers for a quota of the account that holds launches up, told once a day
    """

    template_fields: Sequence[str] = ("regions", "aws_conn_id")
    ui_color = "#d9d9d9"

    def __init__(
        self,
        *,
        regions: Sequence[str] = (),
        aws_conn_id: str | None = None,
        dry_run: bool = False,
        waiting_longer_than: timedelta | None = None,
        on_waiting: Sequence[BaseNotifier] = (),
        on_orphan: Sequence[BaseNotifier] = (),
        on_quota: Sequence[BaseNotifier] = (),
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.regions = regions
        self.aws_conn_id = aws_conn_id
        self.only_look = dry_run
        self.waiting_longer_than = waiting_longer_than
        self.on_waiting = on_waiting
        self.on_orphan = on_orphan
        self.on_quota = on_quota

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's Context differs per version
        """
        Make one pass.

        :raises EphemeralEC2Error: EC2 could not be asked in some region; the others were done
        """
        settings = settings_from_airflow()
        store = open_store(settings)
        results: list[ReapResult] = []
        failures = []
        for region in self.regions or (settings.region,):
            try:
                results += self._reap(settings, store, region, context)
            except AwsError as error:
                failures.append(error)
        abandoned = self._end_abandoned(settings, store)
        retention = self._check_retention(store)
        try:
            self._tell_news(settings, store, context)
        except EphemeralEC2Error as error:
            self.log.warning("cannot look for long waits and quotas: %s", error)
        if failures:
            raise failures[0]
        ended = [one.resource_id for result in results for one in result.plan.orphans]
        last = {result.region: result for result in results}.values()
        return {
            "machines": sum(result.machines for result in last),
            "orphans": ended,
            "suspects": [one.resource_id for result in last for one in result.plan.suspects],
            "problems": {one: why for result in last for one, why in result.problems.items()},
            "alarms": [alarm for result in last for alarm in result.alarms],
            "abandoned": abandoned,
            "retention": retention,
        }

    def _reap(
        self,
        settings: Settings,
        store: JobStore,
        region: str,
        context: Any,  # noqa: ANN401
    ) -> list[ReapResult]:
        clients = connect(self.aws_conn_id or settings.aws_conn_id, region)
        fleet = ReaperFleet(clients.ec2, settings.environment, region)
        results = Reaper(fleet, store).reap(is_dry_run=self.only_look)
        for result in results:
            for line in describe_pass(result):
                self.log.info(line)
            for one in () if self.only_look else result.new_orphans:
                payload = News(store, settings.region).of_orphan(one, region)
                self._tell(self.on_orphan, payload, context)
        return results

    def _tell(
        self,
        notifiers: Sequence[BaseNotifier],
        payload: dict[str, Any],
        context: Any,  # noqa: ANN401
    ) -> None:
        link = getattr(context["ti"], "log_url", None)
        for notifier in notifiers:
            try:
                tell(notifier, payload | {"link": link}, context)
            except Exception:
                # A template with a mistake must not keep machines alive.
                self.log.exception("cannot tell of %s", payload["reason"])

    def _end_abandoned(self, settings: Settings, store: JobStore) -> list[str]:
        """End attempts whose task was over on two passes; the first is remembered in the bucket."""
        notes = ReaperStore(store, store.environment)
        try:
            found = find_abandoned(store, self._states_of)
            known = notes.read_abandoned()
            if not self.only_look:
                notes.write_abandoned(tuple(sorted(found)))
        except EphemeralEC2Error as error:
            self.log.warning("cannot look for abandoned attempts: %s", error)
            return []
        ended = []
        for name, state in found.items():
            if name not in known or self.only_look:
                self.log.info(
                    "%s: its task is %s, and it is still open; looked at again", name, state
                )
                continue
            try:
                if self._end_attempt(settings, store, name, state):
                    ended.append(name)
            except EphemeralEC2Error as error:
                self.log.error("cannot end %s, whose task is %s: %s", name, state, error)  # noqa: TRY400 - the error says all
        return ended

    def _end_attempt(self, settings: Settings, store: JobStore, name: str, state: str) -> bool:
        jobkey, _, number = name.rpartition("-a")
        spec = store.read_launch(jobkey, int(number)).spec
        fleet = open_fleet(settings, spec.aws_conn_id, spec.region)
        kill = Kill("cancelled", by=f"the reaper (task {state})")
        is_ended = kill_attempt(store, fleet, jobkey, int(number), kill)
        if is_ended:
            self.log.warning("%s: its task is %s; ended", name, state)
        return is_ended

    def _states_of(self, dag_id: str, task_id: str) -> dict[tuple[str, int], str] | None:
        try:
            return list_task_states(dag_id, task_id)
        except Exception:
            # Unknown is no reason to end anything.
            self.log.exception("cannot ask Airflow for the tasks %s.%s", dag_id, task_id)
            return None

    def _check_retention(self, store: JobStore) -> list[str]:
        try:
            rules = ReaperStore(store, store.environment).read_lifecycle()
        except AwsError as error:
            self.log.warning("cannot read the bucket's lifecycle rules: %s", error)
            return []
        problems = find_retention_problems(rules, store.environment)
        for problem in problems:
            self.log.error("retention: %s", problem)
        return problems

    def _tell_news(self, settings: Settings, store: JobStore, context: Any) -> None:  # noqa: ANN401
        news = News(store, settings.region)
        for payload in news.of_quotas():
            self.log.warning("%s", payload["reason"])
            self._tell(self.on_quota, payload, context)
        if self.waiting_longer_than is not None:
            limit = self.waiting_longer_than.total_seconds()
            for title, payload in news.of_long_waits(limit):
                self.log.warning("%s %s", title, payload["reason"])
                self._tell(self.on_waiting, payload, context)

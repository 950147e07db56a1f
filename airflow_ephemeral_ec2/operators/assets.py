"""The assets that a payer's run updates, and the task that updates one after several jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
)

from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.run_request import has_form, parse_run_request
from airflow_ephemeral_ec2.model.schedule import find_payer
from airflow_ephemeral_ec2.model.task_context import find_business_date

if TYPE_CHECKING:
    from collections.abc import Sequence


def note_business_date(context: Any, outlets: Sequence[Any], payer: str, date: str) -> None:  # noqa: ANN401 - Airflow's Context differs per version
    """Tell who is scheduled by our assets which payer and business date an update is about."""
    events = context.get("outlet_events")
    for asset in outlets:
        if events is not None and find_payer(getattr(asset, "uri", "")) is not None:
            events[asset].extra = {"payer": payer, "business_date": date}


class EphemeralEC2AssetOperator(BaseOperator):
    """
    Update an asset when all of some jobs have succeeded.

    One task alone can have the asset as its outlet; several, or the parts of a mapped one, would
    update it several times.

    :param payer: payer, for the update's text
    :param jobs: all jobs of the payer
    :param after: the jobs that the asset stands for
    """

    ui_color = "#ffe0b3"

    def __init__(
        self,
        *,
        payer: str,
        jobs: Sequence[str],
        after: Sequence[str],
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.payer = payer
        self.jobs = tuple(jobs)
        self.after = tuple(after)

    def execute(self, context: Any) -> None:  # noqa: ANN401
        """
        Name the business date; the outlet does the rest.

        :raises AirflowSkipException: the run leaves out a job that the asset stands for
        """
        params = dict(context.get("params") or {})
        try:
            date = find_business_date(None, context)
            left_out = []
            if has_form(params):
                request = parse_run_request(params, self.jobs)
                left_out = [job for job in self.after if not request.wants(job)]
        except ConfigurationError as error:
            raise AirflowFailException(str(error)) from None
        if left_out:
            msg = f"{self.payer} {date}: this run leaves out {', '.join(left_out)}"
            raise AirflowSkipException(msg)
        note_business_date(context, self.outlets, self.payer, date)

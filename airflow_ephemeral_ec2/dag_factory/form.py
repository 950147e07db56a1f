"""The trigger form of a payer DAG, for Airflow 2 and 3, their REST API and backfills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Param

from airflow_ephemeral_ec2.model.run_request import PRIORITY_LIMIT, REASON_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

_OVERRIDES = "Overrides of the table, for this run only"


def run_form(jobs: Sequence[str]) -> dict[str, Param]:
    """
    Make the parameters of a payer DAG; ``model/run_request.py`` checks what is filled in.

    The types are those that both forms can draw: the one of Airflow 2 cannot show None as the
    default of a list (``trigger.html``), the one of Airflow 3 draws an object as JSON.
    """
    return {
        "business_date": _param(
            None,
            "Business date",
            "The day whose data is processed, like 2026-03-01. Empty: the date of the run. "
            "Not in a backfill: each of its runs has its own.",
            type=["null", "string"],
            format="date",
        ),
        "jobs": _param(
            [],
            "Jobs to run",
            "Only these jobs; the others are skipped. Empty: all jobs of the payer.",
            type=["array", "null"],
            items={"type": "string"},
            examples=list(jobs),
        ),
        "dry_run": _param(
            False,
            "Dry run",
            "Each task writes its plan into its log and is skipped. Nothing is launched.",
            type="boolean",
        ),
        **_overrides(),
    }


def _overrides() -> dict[str, Param]:
    return {
        "instance_types": _param(
            {},
            "Instance types",
            'Another machine for some jobs: job and instance type, like {"claims": "m7i.4xlarge"}, '
            "or a list of them, best first.",
            type=["object", "null"],
            section=_OVERRIDES,
        ),
        "priority": _param(
            None,
            "Priority",
            f"For all jobs of this run, 0 to {PRIORITY_LIMIT:,}; higher wins. Needs a reason.",
            type=["null", "integer"],
            minimum=0,
            maximum=PRIORITY_LIMIT,
            section=_OVERRIDES,
        ),
        "ignore_order": _param(
            False,
            "Ignore order across runs",
            "Start although what a job depends on has no recorded success for this business date. "
            "Needs a reason.",
            type="boolean",
            section=_OVERRIDES,
        ),
        "reason": _param(
            None,
            "Reason",
            "Why priority or order are overridden; it is recorded with every launch. No PHI.",
            type=["null", "string"],
            maxLength=REASON_LIMIT,
            section=_OVERRIDES,
        ),
    }


def _param(default: object, title: str, description: str, **schema: Any) -> Param:  # noqa: ANN401 - JSON schema
    return Param(default, description, title=title, **schema)

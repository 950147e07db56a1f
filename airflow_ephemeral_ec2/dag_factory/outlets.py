"""Which task of a payer DAG updates which asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from airflow.providers.common.compat.sdk import Asset

from airflow_ephemeral_ec2.model.schedule import name_job_asset, name_payer_asset
from airflow_ephemeral_ec2.operators.assets import EphemeralEC2AssetOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_ephemeral_ec2.model.spec import JobSpec

AssetMode: TypeAlias = Literal["payer", "job"]
_PREFIX = "_asset"
"""No job's name begins with ``_``, so no task of ours can have the id of a job."""


class Outlets:
    """
    The assets of the payer DAGs.

    A task that is alone for its asset has it as its outlet. Of several tasks, or of the parts of
    a mapped one, each would update the asset; there a task of its own does it, after all of them.

    :param mode: ``payer``: one asset per payer run; ``job``: one per job; None: none
    :raises ValueError: another mode
    """

    def __init__(self, mode: AssetMode | None) -> None:
        if mode not in ("payer", "job", None):
            msg = f"payer_dags(assets={mode!r}): must be 'payer', 'job' or None"
            raise ValueError(msg)
        self._mode = mode

    def of_task(self, spec: JobSpec, specs: Sequence[JobSpec]) -> list[Any]:
        """List the outlets of a job's own task."""
        return [
            Asset(uri)
            for uri, jobs in self._assets(specs).values()
            if jobs == [spec.job] and spec.array_size == 1
        ]

    def add_tasks(self, specs: Sequence[JobSpec], tasks: Mapping[str, Any]) -> None:
        """Add the tasks that update an asset after several; inside the DAG's ``with``."""
        arrays = {spec.job for spec in specs if spec.array_size > 1}
        for task_id, (uri, jobs) in self._assets(specs).items():
            if len(jobs) > 1 or arrays.intersection(jobs):
                task = EphemeralEC2AssetOperator(
                    task_id=task_id,
                    payer=specs[0].payer,
                    jobs=[spec.job for spec in specs],
                    after=jobs,
                    outlets=[Asset(uri)],
                    trigger_rule="none_failed_min_one_success",
                )
                for job in jobs:
                    tasks[job] >> task

    def _assets(self, specs: Sequence[JobSpec]) -> dict[str, tuple[str, list[str]]]:
        """Return id of the task that may be needed -> (URI, jobs that it stands for)."""
        if self._mode == "payer":
            needed = {before for spec in specs for before in spec.depends_on}
            leaves = [spec.job for spec in specs if spec.job not in needed]
            return {_PREFIX: (name_payer_asset(specs[0].payer), leaves)}
        if self._mode == "job":
            return {
                f"{_PREFIX}_{spec.job}": (name_job_asset(spec.payer, spec.job), [spec.job])
                for spec in specs
            }
        return {}

"""The trigger form of a run, as each of its tasks follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_ephemeral_ec2.config_table.checks import limits_of
from airflow_ephemeral_ec2.config_table.instance_types import find_vcpus
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.hooks.preview import preview_launch
from airflow_ephemeral_ec2.model.plan_text import Standing, describe_dry_run
from airflow_ephemeral_ec2.model.run_request import (
    ALL_FIELDS,
    RunRequest,
    find_deciding_jobs,
    has_form,
    is_skipped,
    parse_run_request,
)
from airflow_ephemeral_ec2.triggers.task_state import list_part_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder
    from airflow_ephemeral_ec2.model.spec import JobSpec
    from airflow_ephemeral_ec2.operators.done_before import DoneBefore
    from airflow_ephemeral_ec2.settings import Settings


def read_request(context: Any, specs: Sequence[JobSpec]) -> RunRequest | None:  # noqa: ANN401 - Airflow's Context differs per version
    """
    Read the form of this run; None in a DAG that has no such form.

    :param specs: the payer's jobs
    :raises ConfigurationError: the form is filled in wrongly; nothing was launched
    """
    params = dict(context.get("params") or {})
    if not has_form(params):
        return None
    conf = getattr(context["dag_run"], "conf", None) or {}
    ignored = [name for name in ALL_FIELDS if name in conf and conf[name] != params[name]]
    if ignored:
        # Otherwise a dry run would launch.
        msg = (
            f"parameter {ignored[0]}: Airflow ignores what was filled in; set "
            "[core] dag_run_conf_overrides_params = True"
        )
        raise ConfigurationError(msg)
    return parse_run_request(params, [spec.job for spec in specs])


def follow_request(
    request: RunRequest,
    order: LaunchOrder,
    table: ConfigTable,
    settings: Settings,
    tell: Callable[[str], None],
    done: DoneBefore | None = None,
) -> None:
    """
    Decide whether this task launches; return when it does.

    :param tell: writes a line into the task log
    :param done: what other runs have done for the date, in a run that a backfill has made
    :raises AirflowSkipException: the run leaves the job out, another one has done it, it is a dry
        run, or what the job depends on was skipped
    :raises ConfigurationError: the machine that the run asks for could never start
    """
    name = f"{order.spec.payer}/{order.spec.job} {order.business_date}"
    if not request.wants(order.spec.job):
        msg = f"{name}: not among the jobs of this run ({', '.join(request.jobs)})"
        raise AirflowSkipException(msg)
    _check_limits(request, order, table)
    before = done.find_own() if done else None
    if before:
        msg = (
            f"{name}: has succeeded before ({before}); a new run of a backfill does nothing twice. "
            "Clear this task to run it again"
        )
        raise AirflowSkipException(msg)
    if request.dry_run:
        for line in _plan(request, order, table, settings):
            tell(line)
        msg = f"{name}: dry run; nothing was launched and nothing was written"
        raise AirflowSkipException(msg)
    skipped = _find_skipped(request.wants, order, table)
    if skipped and done:
        # Who was left out because it is done says nothing; those before it do.
        specs = {spec.job: spec for spec in table.jobs(order.spec.payer)}
        skipped = _find_skipped(
            lambda job: request.wants(job) and not done.is_left_out(specs[job]), order, table
        )
    if skipped:
        msg = f"{name}: skipped, because {skipped} was skipped in this run"
        raise AirflowSkipException(msg)


def _check_limits(request: RunRequest, order: LaunchOrder, table: ConfigTable) -> None:
    """Refuse machines that a limit never lets start: in each task, also of jobs that come later."""
    for spec in table.jobs(order.spec.payer):
        for one in request.instance_types.get(spec.job, ()):
            vcpus = find_vcpus(one, order.lock) or 0
            over = [
                f"limits.{n} is {most}" for n, most in limits_of(spec, table.limits) if vcpus > most
            ]
            if over:
                msg = (
                    f"parameter instance_types: {spec.job}: {one} has {vcpus} vCPUs, in the table "
                    f"{', '.join(over)}: it could never start; choose a smaller type"
                )
                raise ConfigurationError(msg)


def _plan(
    request: RunRequest, order: LaunchOrder, table: ConfigTable, settings: Settings
) -> list[str]:
    spec = order.spec
    facts = order.lock.code.get(spec.code) if spec.code else None
    preview = preview_launch(
        spec,
        order.lock,
        environment=settings.environment,
        bucket=settings.bucket,
        business_date=order.business_date,
        code_sha256=facts.sha256 if facts else None,
        table_version=order.table_version,
        array_index=order.array_index,
    )
    word = "none" if spec.code is None else "pushed" if facts else "not pushed"
    code = Standing(spec.code, facts.sha256 if facts else None, word)
    limit = table.limits.vcpus
    return describe_dry_run(preview.record, code, limit, preview.placeholders, request)


def _find_skipped(
    wants: Callable[[str], bool], order: LaunchOrder, table: ConfigTable
) -> str | None:
    """
    Name a job before this one that was skipped in this run; None: there is none.

    Tasks start whatever was skipped before them (``none_failed``), since a run may leave out
    jobs; a job that skipped itself takes with it what depends on it, as Airflow does otherwise.
    """
    depends_on = {spec.job: spec.depends_on for spec in table.jobs(order.spec.payer)}
    for job in find_deciding_jobs(order.spec.job, depends_on, wants):
        states = list_part_states(order.identity.dag_id, order.identity.run_id, job)
        if is_skipped(states):
            return job
    return None

"""``ephemeral-ec2 plan TABLE PAYER JOB``: what would be launched, or what was."""

from __future__ import annotations

import base64
import gzip
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.given import Given, known_setting
from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.contract import refused_key
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.hooks.preview import (
    check_user_data,
    code_folder,
    placeholder,
    preview_launch,
)
from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_jobkey
from airflow_ephemeral_ec2.model.launch_request import render_request
from airflow_ephemeral_ec2.model.plan_text import Standing, describe_plan
from airflow_ephemeral_ec2.model.task_context import parse_business_date
from airflow_ephemeral_ec2.model.user_data import USER_DATA_LIMIT

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.spec import JobSpec

CLI_DAG_ID = "cli"
"""The dag id of runs that ``ephemeral-ec2 run`` makes."""


@dataclass(frozen=True)
class Plan:
    """A launch record, one of its placements, and what is not what EC2 will get."""

    record: LaunchRecord
    placement: int
    placeholders: tuple[str, ...]
    code: Standing
    limit_vcpus: int | None
    is_recorded: bool


def plan(options: argparse.Namespace, terminal: Terminal) -> int:
    table = load_table(options.table, extra_checks=[check_user_data])
    spec = table.find(options.payer, options.job)
    if options.run_id is None:
        shown = _plan_preview(options, table, spec)
    else:
        shown = _plan_recorded(options, table, spec)
    if options.user_data:
        _write_user_data(shown.record, terminal)
        return ExitCode.OK
    terminal.show_json(plan_as_json(shown))
    for line in describe_plan(
        shown.record, shown.code, shown.limit_vcpus, shown.placeholders, shown.placement
    ):
        terminal.show(line)
    return ExitCode.OK


def _plan_preview(options: argparse.Namespace, table: ConfigTable, spec: JobSpec) -> Plan:
    given = Given(options.environment, options.bucket, options.region)
    date = parse_business_date(options.date or str(datetime.now(UTC).date()))
    code = find_code_standing(table, spec)
    preview = preview_launch(
        spec,
        table.lock,
        environment=known_setting(given, "environment") or placeholder("environment", 8),
        bucket=known_setting(given, "bucket") or placeholder("bucket", 20),
        business_date=date,
        code_sha256=code.sha256,
        table_version=table.sha256,
    )
    unset = tuple(n for n in ("environment", "bucket") if known_setting(given, n) is None)
    return Plan(
        preview.record,
        _check_placement(preview.record, options.placement or 1),
        (*preview.placeholders, *unset),
        code,
        table.limits.vcpus,
        is_recorded=False,
    )


def _plan_recorded(options: argparse.Namespace, table: ConfigTable, spec: JobSpec) -> Plan:
    # Loaded late: a preview asks nobody, and boto3 takes as long to load as all the rest.
    from airflow_ephemeral_ec2.cli.access import open_access  # noqa: PLC0415

    access = open_access(
        Given(options.environment, options.bucket, options.region, options.endpoint_url)
    )
    dag_id = options.dag_id or f"payer_{spec.payer}"
    task_id = options.task_id or (name_cli_task(spec) if dag_id == CLI_DAG_ID else spec.job)
    identity = TaskIdentity(dag_id, options.run_id, task_id, options.map_index)
    record = find_record(access.store, identity, options.attempt)
    if options.placement:
        placement = _check_placement(record, options.placement)
    else:
        placement = _find_placement(access.store, record)
    code = Standing(record.spec.code, record.code_sha256, "recorded")
    return Plan(record, placement, (), code, table.limits.vcpus, is_recorded=True)


def name_cli_task(spec: JobSpec) -> str:
    """Name the task of a run on the command line, where one run id may serve many payers."""
    return f"{spec.payer}.{spec.job}"


def find_record(store: JobStore, identity: TaskIdentity, attempt: int | None) -> LaunchRecord:
    """
    Read the launch record of a task instance; of its last attempt when none is named.

    :raises ConfigurationError: nothing was recorded for it
    """
    # read_secret would make the environment; a look must not.
    if not store.exists(f"{store.environment}/environment.json"):
        msg = (
            f"s3://{store.bucket} has no environment {store.environment!r}: nothing was ever "
            "launched in it. Correct --environment or --bucket."
        )
        raise ConfigurationError(msg)
    jobkey = name_jobkey(store.read_secret(), store.environment, identity)
    last = store.last_attempt(jobkey)
    if last is None:
        msg = (
            f"no launch record of {identity} in environment {store.environment!r}. "
            "Correct --run-id, --dag-id, --task-id or --map-index."
        )
        raise ConfigurationError(msg)
    if attempt is not None and not 1 <= attempt <= last.attempt:
        msg = f"{identity}: no attempt {attempt}; there are 1 to {last.attempt}"
        raise ConfigurationError(msg)
    return store.read_launch(jobkey, attempt or last.attempt)


def _find_placement(store: JobStore, record: LaunchRecord) -> int:
    """Find the placement that was asked last: the first that was not refused."""
    last = len(record.placements) - 1
    for index in range(last):
        key = refused_key(record.environment, record.jobkey, record.attempt, index)
        if not store.exists(key):
            return index
    return last


def _check_placement(record: LaunchRecord, number: int) -> int:
    if not 1 <= number <= len(record.placements):
        msg = f"--placement {number}: the row has 1 to {len(record.placements)}"
        raise ConfigurationError(msg)
    return number - 1


def find_code_standing(table: ConfigTable, spec: JobSpec) -> Standing:
    """Compare the code folder with what was pushed."""
    # Loaded late: a row without code needs no archive.
    from airflow_ephemeral_ec2.hooks.code_push import pack_code  # noqa: PLC0415

    folder = code_folder(table.path, spec)
    if folder is None or spec.code is None:
        return Standing(None, None, "none")
    here = pack_code(folder).facts.sha256
    pushed = table.lock.code.get(spec.code)
    if pushed is None:
        return Standing(spec.code, here, "not pushed")
    if pushed.sha256 != here:
        return Standing(spec.code, pushed.sha256, "changed since it was pushed")
    return Standing(spec.code, here, "pushed")


def plan_as_json(shown: Plan) -> dict[str, object]:
    """Write a plan for programs; ``request`` is RunInstances with user data as EC2's API takes it."""
    record = shown.record
    spec = record.spec
    request = render_request(record, shown.placement) | {"UserData": record.user_data}
    return {
        "payer": spec.payer,
        "job": spec.job,
        "business_date": record.business_date,
        "recorded": shown.is_recorded,
        "run": {
            "dag_id": record.dag_id,
            "task_id": record.task_id,
            "map_index": record.map_index,
            "attempt": record.attempt,
            "jobkey": record.jobkey,
        }
        if shown.is_recorded
        else None,
        "depends_on": list(spec.depends_on),
        "priority": spec.priority,
        "placements": [
            placement.model_dump(exclude={"client_token"}) for placement in record.placements
        ],
        "placement": shown.placement + 1,
        "vcpus": record.vcpus,
        "limit_vcpus": shown.limit_vcpus,
        "ami": {"asked": spec.ami, "id": record.image_id},
        "max_runtime_seconds": spec.max_runtime,
        "boot_timeout_seconds": spec.boot_timeout,
        "max_lifetime_seconds": spec.max_lifetime_seconds,
        "user_data_bytes": len(base64.b64decode(record.user_data)),
        "user_data_limit": USER_DATA_LIMIT,
        "user_data_sha256": record.user_data_sha256,
        "code": {
            "folder": shown.code.folder,
            "sha256": shown.code.sha256,
            "standing": shown.code.word,
        },
        "placeholders": list(shown.placeholders),
        "request": request,
    }


def _write_user_data(record: LaunchRecord, terminal: Terminal) -> None:
    raw = base64.b64decode(record.user_data)
    if terminal.is_piped:
        sys.stdout.buffer.write(raw)
    else:
        sys.stdout.write(gzip.decompress(raw).decode())

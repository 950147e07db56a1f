"""``ephemeral-ec2 run TABLE PAYER JOB``: one job, on the local EC2 or on AWS, without an Airflow."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.access import Access, open_access
from airflow_ephemeral_ec2.cli.attempt import CLI_EPOCH, Attempt, make_run_id
from airflow_ephemeral_ec2.cli.data_files import download, upload
from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.given import Given
from airflow_ephemeral_ec2.cli.local_cloud import LocalCloud, local_cloud, use_only
from airflow_ephemeral_ec2.cli.plan import CLI_DAG_ID, name_cli_task
from airflow_ephemeral_ec2.cli.seeds import (
    DATA_BUCKET,
    LOCAL_AMI,
    find_data_bucket,
    find_secret_values,
    localize,
    plan_seeds,
)
from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call
from airflow_ephemeral_ec2.hooks.clients import clients_from_environment
from airflow_ephemeral_ec2.hooks.code_push import push_code
from airflow_ephemeral_ec2.hooks.preview import check_user_data, code_folder
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.record import (
    OutcomeRecord,
    describe_ending,
    describe_story,
    xcom_of,
)
from airflow_ephemeral_ec2.model.spec import LockFile
from airflow_ephemeral_ec2.model.task_context import parse_business_date
from airflow_ephemeral_ec2.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.spec import JobSpec

LOCAL_ENVIRONMENT, LOCAL_BUCKET = "local", "ephemeral-ec2-state"
LOCAL_POLL_SECONDS = 0.3


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    table = load_table(options.table, extra_checks=[check_user_data])
    spec = table.find(options.payer, options.job)
    options.date = parse_business_date(options.date)
    if options.local and options.ignore_order is None:
        options.ignore_order = "one job alone, on a local EC2 of its own"
    if not 0 <= options.array_index < spec.array_size:
        msg = f"--array-index {options.array_index}: array_size is {spec.array_size}; from 0"
        raise ConfigurationError(msg)
    if options.local:
        return _run_locally(options, terminal, table, spec)
    if options.input or options.output or options.keep:
        msg = "--input, --output and --keep are for --local"
        raise ConfigurationError(msg)
    access = open_access(
        Given(options.environment, options.bucket, options.region, options.endpoint_url)
    )
    return _run(terminal, access, _order(options, table, spec, table.lock))


def _run(terminal: Terminal, access: Access, order: LaunchOrder) -> int:
    outcome = Attempt(access, order, terminal).run()
    exit_code = find_exit_code(outcome)
    for line in describe_story(outcome):
        terminal.tell(line)
    style = "green" if outcome.outcome is Outcome.SUCCEEDED else "bold red"
    terminal.tell(f"{outcome.title}: {describe_ending(outcome)}", style)
    run_id = {"dag_id": CLI_DAG_ID, "run_id": order.identity.run_id}
    terminal.show_json(xcom_of(outcome) | run_id | {"exit_status": exit_code})
    return exit_code


def find_exit_code(outcome: OutcomeRecord) -> int:
    """Return 0 for success, otherwise the job's own exit code, or 1 where it has none."""
    if outcome.outcome is Outcome.SUCCEEDED:
        return ExitCode.OK
    return outcome.exit_code or ExitCode.NOT_SUCCEEDED


def _order(
    options: argparse.Namespace, table: ConfigTable, spec: JobSpec, lock: LockFile
) -> LaunchOrder:
    run_id = options.run_id or make_run_id()
    map_index = options.array_index if spec.array_size > 1 else -1
    return LaunchOrder(
        spec=spec,
        lock=lock,
        table=table.path,
        table_version=table.sha256,
        limits=table.limits,
        dependents=table.dependents(spec.payer, spec.job),
        identity=TaskIdentity(CLI_DAG_ID, run_id, name_cli_task(spec), map_index),
        epoch=CLI_EPOCH,
        business_date=options.date,
        array_index=options.array_index,
        order_override=options.ignore_order or "",
        is_awaited=False,  # by no task of Airflow, so that the reaper looks for none
    )


def _run_locally(
    options: argparse.Namespace, terminal: Terminal, table: ConfigTable, asked: JobSpec
) -> int:
    values = find_secret_values(asked, os.environ)
    data = options.data_bucket or find_data_bucket(asked)
    if (options.input or options.output) and data is None:
        msg = f"--input and --output need a bucket: set env.{DATA_BUCKET} in the row, or --data-bucket"
        raise ConfigurationError(msg)
    if options.input and not options.input.is_dir():
        msg = f"--input {options.input}: no such folder"
        raise ConfigurationError(msg)
    spec = localize(asked)
    seeds = plan_seeds(
        [spec], table.lock, environment=LOCAL_ENVIRONMENT, bucket=LOCAL_BUCKET, data_bucket=data
    )
    with _home(options) as home, local_cloud(home, seeds) as cloud:
        terminal.tell(f"local EC2 at {cloud.url}, its files in {cloud.home}", "dim")
        use_only(cloud, spec.region)
        access = _local_access(spec.region)
        _put_secrets(values, spec.region)
        return _run_in_cloud(options, terminal, access, table, spec, data, cloud)


def _run_in_cloud(
    options: argparse.Namespace,
    terminal: Terminal,
    access: Access,
    table: ConfigTable,
    spec: JobSpec,
    data: str | None,
    cloud: LocalCloud,
) -> int:
    folder = code_folder(table.path, spec)
    lock = LockFile()
    if folder is not None and spec.code is not None:
        lock = LockFile(code={spec.code: push_code(access.store, spec.code, folder).facts})
    files = _open_data(access, data, spec.region)
    if files and options.input:
        count = upload(files, options.input, f"incoming/{spec.payer}/{options.date}/")
        terminal.tell(f"{count} files of {options.input} uploaded to s3://{data}/incoming/", "dim")
    order = _order(options, table, _with_known_image(access, spec), lock)
    exit_code = _run(terminal, access, order)
    if files and options.output:
        count = download(files, f"payers/{spec.payer}/", options.output)
        terminal.tell(f"{count} files written to {options.output}", "dim")
    if options.keep:
        _keep(terminal, access, cloud)
    return exit_code


def _open_data(access: Access, data: str | None, region: str) -> JobStore | None:
    if data is None:
        return None
    clients = clients_from_environment(region)
    return type(access.store)(clients.s3, data, access.store.environment)


def _with_known_image(access: Access, spec: JobSpec) -> JobSpec:
    """Take the seeded image where the local EC2 does not have the row's SSM parameter."""
    try:
        access.fleet_for(spec.aws_conn_id, spec.region).resolve_image(spec.ami)
    except ConfigurationError:
        return spec.model_copy(update={"ami": LOCAL_AMI})
    return spec


def _local_access(region: str) -> Access:
    settings = Settings(
        environment=LOCAL_ENVIRONMENT,
        bucket=LOCAL_BUCKET,
        region=region,
        aws_conn_id="aws_default",
        poll_seconds=LOCAL_POLL_SECONDS,
    )
    return Access(settings, lambda _, place: clients_from_environment(place))


def _put_secrets(values: dict[str, str], region: str) -> None:
    if not values:
        return
    import boto3  # noqa: PLC0415 - only rows with secrets

    for reference, value in values.items():
        service, _, name = reference.partition(":")
        client = boto3.client(service, region_name=region)
        with aws_call(f"make {reference} in the local EC2"):
            if service == "ssm":
                client.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
            else:
                client.create_secret(Name=name, SecretString=value)


@contextmanager
def _home(options: argparse.Namespace) -> Iterator[Path]:
    """Use the given folder, or one that is deleted afterwards."""
    if options.home:
        yield options.home.absolute()
        return
    with tempfile.TemporaryDirectory(
        prefix="ephemeral-ec2-run-", ignore_cleanup_errors=True
    ) as scratch:
        yield Path(scratch)


def _keep(terminal: Terminal, access: Access, cloud: LocalCloud) -> None:
    terminal.tell("the local EC2 stays until Ctrl-C; in another terminal:")
    for line in exports(cloud, access.settings):
        terminal.tell(line)
    try:
        signal.pause()
    except KeyboardInterrupt:
        terminal.tell("stopping the local EC2")


def environ_of(cloud: LocalCloud, settings: Settings) -> dict[str, str]:
    """Name what a program needs to use a local EC2 and its bucket of record."""
    prefix = "AIRFLOW__EPHEMERAL_EC2__"
    return cloud.environ(settings.region) | {
        f"{prefix}ENVIRONMENT": settings.environment,
        f"{prefix}BUCKET": settings.bucket,
        f"{prefix}REGION": settings.region,
    }


def exports(cloud: LocalCloud, settings: Settings) -> list[str]:
    """Write it as lines for a shell."""
    named = environ_of(cloud, settings).items()
    return [f"export {name}={shlex.quote(value)}" for name, value in named]

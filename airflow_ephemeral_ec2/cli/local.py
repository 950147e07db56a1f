"""``ephemeral-ec2 local``: the local EC2 in the foreground, with what a shell must export."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.local_cloud import LocalCloud, local_cloud
from airflow_ephemeral_ec2.cli.run import environ_of, exports
from airflow_ephemeral_ec2.cli.seeds import plan_seeds
from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.settings import Settings

if TYPE_CHECKING:
    import argparse
    import subprocess
    from collections.abc import Mapping

    from airflow_ephemeral_ec2.cli.terminal import Terminal

ENVIRONMENT, BUCKET, REGION = "demo", "ephemeral-ec2-state", "us-east-1"


def local(options: argparse.Namespace, terminal: Terminal) -> int:
    settings = Settings(
        environment=options.environment or ENVIRONMENT,
        bucket=options.bucket or BUCKET,
        region=options.region or REGION,
        aws_conn_id="aws_default",
        poll_seconds=1.0,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell's background job is started with Ctrl-C ignored; told to stop by it, this one stops.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(
        prefix="ephemeral-ec2-local-", ignore_cleanup_errors=True
    ) as scratch:
        home = options.home.absolute() if options.home else Path(scratch)
        try:
            seeds = _seeds(options, settings)
            with local_cloud(home, seeds, options.port, options.faults) as cloud:
                _announce(cloud, settings, terminal)
                return _wait(cloud.process, terminal)
        except KeyboardInterrupt:
            # Stopping a server is its usual end.
            return ExitCode.OK


def _seeds(options: argparse.Namespace, settings: Settings) -> list[Mapping[str, object]]:
    basics: dict[str, object] = {
        "region": settings.region,
        "environment": settings.environment,
        "state_bucket": settings.bucket,
    }
    if options.seed_from is None:
        return [basics]
    table = load_table(options.seed_from)
    seeds = plan_seeds(
        table.specs, table.lock, environment=settings.environment, bucket=settings.bucket
    )
    # The bucket of record lies in the region of the settings, so that one is made first.
    return [basics, *seeds]


def _announce(cloud: LocalCloud, settings: Settings, terminal: Terminal) -> None:
    terminal.show_json(
        {
            "url": cloud.url,
            "home": cloud.home,
            "api_log": cloud.api_log,
            "environ": environ_of(cloud, settings),
        }
    )
    for line in exports(cloud, settings):
        terminal.show(line)
    terminal.tell(f"API log: {cloud.api_log}; Ctrl-C stops it", "dim")


def _wait(process: subprocess.Popen[str], terminal: Terminal) -> int:
    code = process.wait()
    terminal.tell(f"the local EC2 ended with exit code {code}")
    return ExitCode.NOT_SUCCEEDED if code else ExitCode.OK

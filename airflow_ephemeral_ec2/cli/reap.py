"""``ephemeral-ec2 reap``: the reaper outside Airflow, for cron or a second account."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.access import open_access
from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.given import Given
from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.reaper import Reaper, ReapResult, describe_pass
from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.retention import find_retention_problems

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.access import Access
    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.model.reap import Finding


def reap(options: argparse.Namespace, terminal: Terminal) -> int:
    given = Given(options.environment, options.bucket, options.region, options.endpoint_url)
    access = open_access(given)
    regions = options.look_in or [access.settings.region]
    reapers = {region: _reaper(access, region) for region in regions}
    failed = False
    results: list[ReapResult] = []
    for number in range(options.passes):
        if number:
            time.sleep(options.interval)
        for region, reaper in reapers.items():
            try:
                result = reaper.make_pass(is_dry_run=options.dry_run)
            except AwsError as error:
                terminal.tell(f"ephemeral-ec2: {region}: {error}", "red")
                failed = True
                continue
            results.append(result)
            failed = failed or bool(result.problems)
            for line in describe_pass(result):
                terminal.show(line)
    problems = _check_retention(access, terminal)
    terminal.show_json({"passes": [_as_json(result) for result in results], "retention": problems})
    return ExitCode.AWS if failed else ExitCode.OK


def _reaper(access: Access, region: str) -> Reaper:
    clients = access.clients_for(access.settings.aws_conn_id, region)
    return Reaper(ReaperFleet(clients.ec2, access.settings.environment, region), access.store)


def _check_retention(access: Access, terminal: Terminal) -> list[str]:
    environment = access.settings.environment
    try:
        rules = ReaperStore(access.store, environment).read_lifecycle()
    except AwsError as error:
        terminal.tell(f"cannot read the bucket's lifecycle rules: {error}", "yellow")
        return []
    problems = find_retention_problems(rules, environment)
    for problem in problems:
        terminal.tell(f"retention: {problem}", "red")
    return problems


def _as_json(result: ReapResult) -> dict[str, object]:
    def listed(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
        return [
            {"id": one.resource_id, "label": one.label, "reason": one.reason, "detail": one.detail}
            for one in findings
        ]

    return {
        "region": result.region,
        "machines": result.machines,
        "orphans": listed(result.plan.orphans),
        "suspects": listed(result.plan.suspects),
        "problems": result.problems,
        "alarms": list(result.plan.alarms),
        "dry_run": result.is_dry_run,
        "bucket_readable": result.is_bucket_readable,
    }

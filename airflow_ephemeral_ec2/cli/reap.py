"""``ephemeral-ec2 reap``: the reaper outside Airflow, for cron or a second account."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.access import open_access
from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.given import Given, find_settings
from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.reaper import Reaper, ReapResult, describe_pass
from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.retention import find_retention_problems, recommended_rules

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.access import Access
    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.model.reap import Finding


def reap(options: argparse.Namespace, terminal: Terminal) -> int:
    if options.print_lifecycle:
        return _print_lifecycle(options, terminal)
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
                found = _reap_once(reaper, options)
            except AwsError as error:
                terminal.tell(f"ephemeral-ec2: {region}: {error}", "red")
                failed = True
                continue
            results += found
            failed = failed or bool(found[-1].problems)
            for result in found:
                for line in describe_pass(result):
                    terminal.show(line)
    problems = _check_retention(access, terminal)
    terminal.show_json({"passes": [_as_json(result) for result in results], "retention": problems})
    return ExitCode.AWS if failed else ExitCode.OK


def _reap_once(reaper: Reaper, options: argparse.Namespace) -> list[ReapResult]:
    if options.passes > 1:
        return [reaper.make_pass(is_dry_run=options.dry_run)]
    return reaper.reap(is_dry_run=options.dry_run)


def _reaper(access: Access, region: str) -> Reaper:
    clients = access.clients_for(access.settings.aws_conn_id, region)
    return Reaper(ReaperFleet(clients.ec2, access.settings.environment, region), access.store)


def _print_lifecycle(options: argparse.Namespace, terminal: Terminal) -> int:
    settings = find_settings(Given(options.environment, options.bucket, options.region, None))
    document = {"Rules": recommended_rules(settings.environment)}
    terminal.show(json.dumps(document, indent=2))
    terminal.show_json(document)
    return ExitCode.OK


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
        "alarms": list(result.alarms),
        "dry_run": result.is_dry_run,
        "bucket_readable": result.is_bucket_readable,
    }

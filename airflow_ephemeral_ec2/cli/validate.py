"""``ephemeral-ec2 validate TABLE``: every error of a table at once, and no AWS call."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.config_table import check_table, format_problems
from airflow_ephemeral_ec2.hooks.preview import check_user_data

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.config_table import ConfigTable, TableCheck


def validate(options: argparse.Namespace, terminal: Terminal) -> int:
    found = check_table(options.table, extra_checks=[check_user_data])
    terminal.show_json(_as_json(found))
    if found.table is None:
        terminal.show(format_problems(found.problems, checked=found.jobs))
        return ExitCode.USAGE
    for line in summarize(found.table):
        terminal.show(line)
    return ExitCode.OK


def summarize(table: ConfigTable) -> list[str]:
    """Say in a few lines what a table without errors holds."""
    disabled = len(table.rows) - len(table.specs)
    limit = f"{table.limits.vcpus} vCPU" if table.limits.vcpus else "none but EC2's own"
    lines = [
        f"{table.path}: no errors; no AWS call made",
        f"payers   {len(table.payers)}: {_few(table.payers)}",
        f"jobs     {len(table.specs)}" + (f", and {disabled} disabled" if disabled else ""),
        f"limits   {limit}",
    ]
    codes = sorted({spec.code for spec in table.specs if spec.code})
    missing = [code for code in codes if code not in table.lock.code]
    if missing:
        lines.append(
            f"code     not pushed: {', '.join(missing)}; run: ephemeral-ec2 push {table.path}"
        )
    return lines


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _as_json(found: TableCheck) -> dict[str, object]:
    table = found.table
    return {
        "valid": table is not None,
        "jobs": found.jobs,
        "payers": list(table.payers) if table else None,
        "limits": table.limits.model_dump() if table else None,
        "problems": [asdict(problem) for problem in found.problems],
    }

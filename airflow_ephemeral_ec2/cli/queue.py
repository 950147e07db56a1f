"""``ephemeral-ec2 queue``: who waits, for what, behind whom; holds and promotions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.access import open_access
from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.given import Given
from airflow_ephemeral_ec2.cli.queue_explain import explain
from airflow_ephemeral_ec2.cli.queue_orders import give_order
from airflow_ephemeral_ec2.cli.queue_text import describe_view
from airflow_ephemeral_ec2.exceptions import AwsError, ConfigurationError
from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
from airflow_ephemeral_ec2.model.queue_view import view_queue

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.model.queue_view import PoolTable, QueueRow, QueueView


def queue(options: argparse.Namespace, terminal: Terminal) -> int:
    given = Given(options.environment, options.bucket, options.region, options.endpoint_url)
    action = options.queue_action
    if action is None and options.date and not options.explain:
        raise ConfigurationError("--date: only with --explain, hold, release or promote")
    if options.watch and (action or options.explain):
        raise ConfigurationError("--watch: only for the table of the queue")
    reader = QueueReader(open_access(given).store)
    if action is not None:
        return give_order(options, reader, terminal)
    if options.explain:
        return explain(options, reader, terminal)
    if options.watch:
        _watch(reader, options, terminal)
    view = view_queue(reader.read())
    terminal.show_json(view_as_json(view))
    for line in describe_view(view, options.rows):
        terminal.show(line)
    return ExitCode.OK


def _watch(reader: QueueReader, options: argparse.Namespace, terminal: Terminal) -> None:
    """Show the queue again and again, until Ctrl-C."""
    with terminal.live() as show:
        while True:
            try:
                view = view_queue(reader.read())
            except AwsError as error:
                if not error.retryable:
                    raise
                terminal.tell(f"ephemeral-ec2: {error} Will ask again.", "yellow")
            else:
                show(describe_view(view, options.rows), view_as_json(view))
            time.sleep(options.interval)


def view_as_json(view: QueueView) -> dict[str, object]:
    return {
        "now": view.snapshot.now,
        "warnings": list(view.warnings),
        "pools": [_pool_as_json(table) for table in view.pools],
    }


def _pool_as_json(table: PoolTable) -> dict[str, object]:
    return {
        "pool": table.pool,
        "limit_vcpus": table.limits.vcpus,
        "running": table.running,
        "launching": table.launching,
        "terminating": table.terminating,
        "free": table.free,
        "limits": {
            name: {"taken": taken, "limit": limit}
            for name, (taken, limit) in table.own_limits.items()
        },
        "waiting": [row_as_json(row) for row in table.rows],
    }


def row_as_json(row: QueueRow) -> dict[str, object]:
    entry, wait = row.entry, row.wait
    return {
        "name": entry.name,
        "place": row.place,
        "payer": entry.payer,
        "job": entry.job,
        "business_date": entry.business_date,
        "attempt": entry.attempt,
        "array_index": entry.array_index,
        "array_size": entry.array_size,
        "priority": entry.priority,
        "vcpus": entry.vcpus,
        "is_backfill": entry.is_backfill,
        "held": row.is_held,
        "waiting_seconds": round(row.seconds, 1),
        "why": row.why,
        "because": wait.because.value if wait else "fits",
        "behind": wait.behind if wait else None,
        "reserved_at": wait.reserved_at if wait else None,
    }

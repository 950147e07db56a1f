"""The queue as text: one table per account and region."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.plain_text import printable

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.model.queue_view import PoolTable, QueueRow, QueueView

_HEAD = ("#", "payer/job", "date", "prio", "vCPU", "for", "why")
_RIGHT = frozenset({"vCPU", "for"})


def describe_view(view: QueueView, most: int) -> list[str]:
    """
    Write all tables.

    :param most: rows per table; 0: all
    """
    lines = [f"warning: {warning}" for warning in view.warnings]
    years = {row.entry.business_date[:4] for table in view.pools for row in table.rows}
    for table in view.pools:
        lines += describe_pool(table, most, has_year=len(years) > 1)
    return [printable(line) for line in lines] or ["the queue is empty"]


def describe_pool(table: PoolTable, most: int, *, has_year: bool) -> list[str]:
    lines = [_describe_room(table)]
    used = [f"{name} {taken} of {limit}" for name, (taken, limit) in table.own_limits.items()]
    if used:
        lines.append(f"  {'; '.join(used)}")
    if not table.rows:
        return [*lines, "nobody waits"]
    shown = table.rows[:most] if most else table.rows
    lines += _align([_HEAD, *(_cells(row, has_year=has_year) for row in shown)])
    if len(shown) < len(table.rows):
        lines.append(f"and {len(table.rows) - len(shown)} more; --rows 0 shows all")
    return lines


def _describe_room(table: PoolTable) -> str:
    launching = f" ({table.launching} launching)" if table.launching else ""
    out = f"{table.running} running{launching}, {table.terminating} terminating"
    if table.free is None:
        return f"{table.pool}  no limit: {out}"
    return f"{table.pool}  {table.limits.vcpus} vCPU: {out}, {table.free} free"


def _cells(row: QueueRow, *, has_year: bool) -> tuple[str, ...]:
    entry = row.entry
    part = f"[{entry.array_index}]" if entry.array_size > 1 else ""
    date = entry.business_date if has_year else entry.business_date[5:]
    return (
        "-" if row.place is None else str(row.place),
        f"{entry.payer}/{entry.job}{part}",
        date,
        "held" if row.is_held else str(entry.priority),
        "" if row.is_held else str(entry.vcpus),
        short_duration(row.seconds),
        row.why,
    )


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEAD))]
    return ["  ".join(map(_pad, row, widths, _HEAD)).rstrip() for row in rows]


def _pad(text: str, width: int, column: str) -> str:
    return text.rjust(width) if column in _RIGHT else text.ljust(width)


def short_duration(seconds: float) -> str:
    """Write seconds in their largest unit: ``38s``, ``12m``, ``2h``, ``3d``."""
    whole = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def describe_until(at: float, now: float) -> str:
    """``in at most 12m 00s (01:24Z)``."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"in at most {format_duration(max(at - now, 0.0))} ({moment:%H:%MZ})"

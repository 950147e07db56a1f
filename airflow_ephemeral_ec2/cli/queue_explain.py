"""``ephemeral-ec2 queue --explain PAYER JOB``: all that is known about why it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.cli.queue_orders import read_target, say_nearest
from airflow_ephemeral_ec2.cli.queue_text import describe_until, short_duration
from airflow_ephemeral_ec2.exceptions import AwsError, ConfigurationError
from airflow_ephemeral_ec2.hooks.order_book import OrderBook
from airflow_ephemeral_ec2.hooks.parallel import in_threads
from airflow_ephemeral_ec2.model.limit_names import limits_of
from airflow_ephemeral_ec2.model.order import DatedKey, dependencies_of
from airflow_ephemeral_ec2.model.plain_text import printable
from airflow_ephemeral_ec2.model.queue import Stage, describe_launch
from airflow_ephemeral_ec2.model.queue_orders import OrderAction
from airflow_ephemeral_ec2.model.queue_view import explain_ahead, view_queue

if TYPE_CHECKING:
    import argparse

    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
    from airflow_ephemeral_ec2.model.queue import QueueEntry
    from airflow_ephemeral_ec2.model.queue_orders import OrderTarget
    from airflow_ephemeral_ec2.model.queue_view import PoolTable, QueueRow, QueueView
    from airflow_ephemeral_ec2.model.spec import Limits

Facts = dict[str, list[str]]
AHEAD = 10
"""So many of those ahead are named."""


def explain(options: argparse.Namespace, reader: QueueReader, terminal: Terminal) -> int:
    """Explain each open attempt of a job, or what has come of it where none is open."""
    payer, job = options.explain
    target = read_target(payer, job, options.date)
    view = view_queue(reader.read())
    entries = [entry for entry in view.snapshot.entries if target.matches(entry)]
    entries.sort(key=lambda entry: (entry.business_date, entry.array_index, entry.attempt))
    found = {entry.name: explain_entry(view, entry, reader) for entry in entries}
    if not entries:
        found[str(target)] = explain_absent(view, target, reader)
    terminal.show_json({"warnings": list(view.warnings), "entries": list(found.values())})
    for warning in view.warnings:
        terminal.show(printable(f"warning: {warning}"))
    for facts in found.values():
        for word, lines in facts.items():
            for number, line in enumerate(lines):
                terminal.show(printable(f"{word if not number else '':<9} {line}"))
    return ExitCode.OK


def explain_entry(view: QueueView, entry: QueueEntry, reader: QueueReader) -> Facts:
    """Collect all that decides about one open attempt, by topic."""
    table = next(t for t in view.pools if t.pool == view.queue.pools[entry.name])
    row = next((row for row in table.rows if row.entry.name == entry.name), None)
    facts: Facts = {"job": [f"{entry.title}, asked for {_ago(view, entry.requested_at)}"]}
    facts["now"] = [_say_now(view, entry, row)]
    facts["rank"] = [_say_rank(view, entry)]
    facts["limits"] = _say_limits(entry, table)
    facts["ahead"] = _say_ahead(view, entry, table, row)
    facts["after"] = _say_dependencies(view, entry, reader)
    facts["orders"] = _say_orders(view, entry, reader)
    facts["table"] = [_say_table(view, entry)]
    facts["offers"] = _say_offers(view, entry, reader)
    facts["attempts"] = _say_attempts(DatedKey(entry.payer, entry.job, entry.business_date), reader)
    return {word: lines for word, lines in facts.items() if lines}


def explain_absent(view: QueueView, target: OrderTarget, reader: QueueReader) -> Facts:
    """
    Say what has come of a job of which no attempt is open.

    :raises ConfigurationError: nobody has ever asked for it
    """
    known = reader.list_known()
    if target.job not in known.get(target.payer, ()):
        nearby = say_nearest(target, view.snapshot.entries)
        msg = f"--explain: nobody has asked for {target.payer}/{target.job}.{nearby}"
        raise ConfigurationError(msg)
    facts: Facts = {"job": [f"{target}: no attempt is open"]}
    dates = reader.store.list_dates(target.payer, target.job)
    date = target.business_date or max(dates, default="")
    if date not in dates:
        facts["dates"] = [f"asked for: {', '.join(sorted(dates)[-8:])}"]
        return facts
    facts["attempts"] = _say_attempts(DatedKey(target.payer, target.job, date), reader)
    return facts


def _ago(view: QueueView, at: float) -> str:
    return f"{short_duration(max(view.snapshot.now - at, 0.0))} ago"


def _say_now(view: QueueView, entry: QueueEntry, row: QueueRow | None) -> str:
    state = view.queue.states[entry.name]
    if state.stage is Stage.ADMITTED and (row is None or row.wait is None):
        return f"admitted {_ago(view, state.admitted_at or 0.0)}, {describe_launch(state)}"
    if row is None:
        ending = ", shutting down" if state.is_ending else ""
        since = _ago(view, state.launched_at or 0.0)
        return f"launched {since}: {state.instance_id}, {state.vcpus} vCPU{ending}"
    place = "not in line" if row.place is None else f"#{row.place} in line"
    text = f"{place}: {row.wait.reason if row.wait and not row.is_held else row.why}"
    if row.wait is not None and row.wait.reserved_at is not None:
        text += (
            f"; room is reserved, free {describe_until(row.wait.reserved_at, view.snapshot.now)}"
        )
    return text


def _say_rank(view: QueueView, entry: QueueEntry) -> str:
    parts = [f"priority {entry.priority}", f"business date {entry.business_date}"]
    if entry.priority_reason:
        parts[0] += f' (not the table\'s: "{entry.priority_reason}")'
    parts.append(f"arrival {view.queue.states[entry.name].sequence}")
    if entry.is_backfill:
        parts.insert(0, "backfill: after all that is none")
    if entry.name in view.queue.promoted:
        parts.insert(0, "promoted: before everybody else")
    return ", ".join(parts)


def _say_limits(entry: QueueEntry, table: PoolTable) -> list[str]:
    own = limits_of(entry, table.limits)
    if not own:
        return [f"{table.pool}: no limit"]
    taken = table.taken
    return [
        f"{table.pool}: {entry.vcpus} vCPU wanted; {name}: {taken.get(name, 0)} of {most} taken"
        for name, most in own.items()
    ]


def _say_ahead(
    view: QueueView, entry: QueueEntry, table: PoolTable, row: QueueRow | None
) -> list[str]:
    if row is None or row.place is None:
        return []
    ahead = [r for r in table.rows if r.place is not None and r.place < row.place]
    lines = [
        f"#{one.place} {one.entry.title}: {explain_ahead(view, one.entry, entry)}; {one.why}"
        for one in ahead[:AHEAD]
    ]
    return [*lines, f"and {len(ahead) - AHEAD} more"] if len(ahead) > AHEAD else lines


def _say_dependencies(view: QueueView, entry: QueueEntry, reader: QueueReader) -> list[str]:
    if entry.order_override:
        return [f'does not wait for what it depends on: "{entry.order_override}"']
    book = OrderBook(reader.store, in_threads)
    dates = [d for d in _dates(entry, reader) if d < entry.business_date]
    keys = list(dependencies_of(entry))
    if entry.in_order_by_date and dates:
        keys.append(DatedKey(entry.payer, entry.job, max(dates)))
    open_now = {DatedKey(e.payer, e.job, e.business_date) for e in view.snapshot.entries}
    lines = []
    for key, recorded in zip(keys, in_threads(book.read, keys), strict=True):
        text = "has succeeded" if recorded.has_succeeded else recorded.text
        if recorded.is_stale:
            text += ", but is stale: what it depends on has run again since"
        if key in open_now:
            text += "; an attempt is open"
        lines.append(f"{key}: {text}")
    return lines


def _dates(entry: QueueEntry, reader: QueueReader) -> tuple[str, ...]:
    return reader.store.list_dates(entry.payer, entry.job) if entry.in_order_by_date else ()


def _say_orders(view: QueueView, entry: QueueEntry, reader: QueueReader) -> list[str]:
    key = DatedKey(entry.payer, entry.job, entry.business_date)
    in_force = [o for o in view.snapshot.orders if o.target.matches(entry)]
    lines = [f"in force: {order.sentence}" for order in in_force]
    for order in reader.read_past_orders(key)[-5:]:
        known = any(order == other for other in in_force)
        if not known:
            word = "released" if order.action is OrderAction.RELEASE else f"{order.action}, over"
            lines.append(f"before: {word}: {order.sentence.partition(' ')[2]}")
    return lines


def _say_table(view: QueueView, entry: QueueEntry) -> str:
    found = view.snapshot.state.tables.get(entry.table)
    name = entry.table or "(no table)"
    if found is None:
        return f"{name}: version {entry.table_version[:12]}; none is in force yet"
    text = f"{name}: version {found.version[:12]} is in force"
    if entry.table_version != found.version:
        text += f"; this entry came with {entry.table_version[:12]}"
    if found.flapped_at is not None:
        text += f"; {found.flapped_with[:12]} came again {_ago(view, found.flapped_at)}: two copies"
    return f"{text}; limits {_say_limit(found.limits)}"


def _say_limit(limits: Limits) -> str:
    given = limits.model_dump(exclude_defaults=True)
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "none"


def _say_offers(view: QueueView, entry: QueueEntry, reader: QueueReader) -> list[str]:
    """Name what EC2 has refused of what the row asks for, as the launch record says."""
    try:
        refused = reader.read_refused(entry, view.snapshot)
    except AwsError as error:
        return [f"the launch record cannot be read: {error}"]
    return [
        f"unavailable: {what} ({found.code}), asked again "
        f"{describe_until(found.until, view.snapshot.now)}"
        for what, found in refused.items()
    ]


def _say_attempts(key: DatedKey, reader: QueueReader) -> list[str]:
    finished, stale = reader.read_attempts(key)
    return [
        f"{key}, attempt {one.attempt}: {one.outcome.replace('_', ' ')}"
        + (" (stale: what it depends on has run again)" if one.name in stale else "")
        for one in finished[-10:]
    ]

"""Why an attempt waits and behind whom, for somebody who does not see the table of the queue."""

from collections.abc import Sequence

from airflow_ephemeral_ec2.model.admission import Because
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.limit_names import limits_of
from airflow_ephemeral_ec2.model.plain_text import printable
from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry, Stage, describe_launch
from airflow_ephemeral_ec2.model.queue_view import (
    PoolTable,
    QueueRow,
    QueueView,
    describe_order,
    explain_ahead,
    find_held,
    has_controller,
)

NAMED = 3
"""So many of those who have the room are named."""
LONGEST = 600
"""Characters; a subject line or a pager takes no more."""


def explain_wait(view: QueueView, name: str, refused: Sequence[str] = ()) -> str:
    """
    Say in one line what an open attempt waits for, and behind whom.

    :param name: of its queue entry
    :param refused: what EC2 has refused of what its row asks for; told where no limit holds it up
    """
    text = _explain(view, name)
    if name not in view.admission.waiting and refused:
        text += f"; EC2 has refused {', '.join(refused)}"
    state = view.queue.states.get(name)
    waits = state is not None and state.stage is not Stage.LAUNCHED
    if waits and not has_controller(view.snapshot):
        text += "; no controller acts now: nobody is admitted until a triggerer runs"
    return printable(text)[:LONGEST]


def _explain(view: QueueView, name: str) -> str:
    state = view.queue.states.get(name)
    is_admitted = state is not None and state.stage is Stage.ADMITTED
    for table in view.pools:
        for row in table.rows:
            if row.entry.name == name and not (is_admitted and row.wait is None):
                return _explain_row(view, table, row)
    if name in view.snapshot.unreadable:
        return "its queue entry cannot be read any more"
    if state is None:
        return "it has left the queue meanwhile"
    if state.stage is Stage.LAUNCHED:
        return "it was launched meanwhile"
    return f"admitted {_since(view, state.admitted_at)}, {describe_launch(state)}"


def _explain_row(view: QueueView, table: PoolTable, row: QueueRow) -> str:
    held = find_held(view.snapshot, row.entry)
    if held is not None:
        return f"held {describe_order(held, view.snapshot.now)}"
    wait = row.wait
    if wait is None or wait.because in (Because.BLOCKED, Because.NEVER):
        return row.why
    place = f"#{row.place} in line"
    if wait.because is Because.BEHIND:
        place += f", behind {_name_ahead(view, table, row)}"
    return f"{place}: {wait.shortage}{_name_holders(view, table, wait.resource)}"


def _name_ahead(view: QueueView, table: PoolTable, row: QueueRow) -> str:
    """``#1 zeta/member 2026-03-01 (priority 900)``: the first in line, and why it comes first."""
    ahead = next(one for one in table.rows if row.wait and one.entry.name == row.wait.behind)
    why = explain_ahead(view, ahead.entry, row.entry)
    return f"#{ahead.place} {_label(ahead.entry)} ({why})"


def _name_holders(view: QueueView, table: PoolTable, resource: str) -> str:
    """``; taken by acme/run 2026-03-01 (launched 12m 03s ago)``: who has what is missing."""
    holders = [
        (state.launched_at or state.admitted_at or 0.0, entry, state)
        for entry in view.snapshot.entries
        if view.queue.pools[entry.name] == table.pool
        and (state := view.queue.states[entry.name]).stage is not Stage.WAITING
        # Who is admitted and not asked for yet may have to wait again: it holds nothing then.
        and entry.name not in view.admission.waiting
        and resource in limits_of(entry, table.limits, state.market)
    ]
    holders.sort(key=lambda found: found[0])
    named = [_describe_holder(view, entry, state) for _, entry, state in holders[:NAMED]]
    if len(holders) > NAMED:
        named.append(f"and {len(holders) - NAMED} more")
    return f"; taken by {', '.join(named)}" if named else ""


def _describe_holder(view: QueueView, entry: QueueEntry, state: EntryState) -> str:
    if state.is_ending:
        return f"{_label(entry)} (shutting down)"
    if state.stage is Stage.ADMITTED:
        return f"{_label(entry)} (admitted {_since(view, state.admitted_at)})"
    return f"{_label(entry)} (launched {_since(view, state.launched_at)})"


def _label(entry: QueueEntry) -> str:
    part = f"[{entry.array_index}]" if entry.array_size > 1 else ""
    return f"{entry.payer}/{entry.job}{part} {entry.business_date}"


def _since(view: QueueView, at: float | None) -> str:
    if at is None:
        return "some time ago"
    return f"{format_duration(max(view.snapshot.now - at, 0.0))} ago"

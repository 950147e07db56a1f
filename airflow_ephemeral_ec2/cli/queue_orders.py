"""``ephemeral-ec2 queue hold|release|promote PAYER JOB``: who ordered what, when and why."""

from __future__ import annotations

import getpass
import re
import socket
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.exceptions import ConfigurationError, nearest
from airflow_ephemeral_ec2.model.plain_text import printable
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, OrderTarget, QueueOrder
from airflow_ephemeral_ec2.model.spec import FORMS, NAME
from airflow_ephemeral_ec2.model.task_context import parse_business_date

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from airflow_ephemeral_ec2.cli.terminal import Terminal
    from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
    from airflow_ephemeral_ec2.model.queue import QueueEntry
    from airflow_ephemeral_ec2.model.queue_view import QueueSnapshot

LONGEST_TEXT = 300


def give_order(options: argparse.Namespace, reader: QueueReader, terminal: Terminal) -> int:
    """Hold, release or promote; says what follows from it."""
    target = read_target(options.payer, options.job, options.date)
    by = _check_text("--by", options.by or find_caller())
    reason = _check_text("--reason", options.reason)
    snapshot = reader.read()
    order = QueueOrder(
        action=OrderAction(options.queue_action),
        target=target,
        by=by,
        reason=reason,
        at=snapshot.now,
    )
    give = {"hold": _hold, "release": _release, "promote": _promote}[options.queue_action]
    lines, changed = give(order, snapshot, reader, terminal)
    terminal.show_json(
        {"order": order.model_dump(mode="json"), "changed": changed, "message": lines}
    )
    for line in lines:
        terminal.show(printable(line))
    return ExitCode.OK


def read_target(payer: str, job: str, date: str | None) -> OrderTarget:
    """
    Read payer, job and date of a call.

    :raises ConfigurationError: one of them is not written like one
    """
    for argument, found in (("PAYER", payer), ("JOB", job)):
        if not re.fullmatch(NAME, found):
            raise ConfigurationError(f"{argument}: {found!r}: {FORMS[NAME]}")
    day = parse_business_date(date) if date else ""
    return OrderTarget(payer=payer, job=job, business_date=day)


def find_caller() -> str:
    """Name who calls: the login name and the host, as this machine knows them."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _check_text(argument: str, found: str) -> str:
    text = found.strip()
    if not text or len(text) > LONGEST_TEXT or not text.isprintable():
        msg = (
            f"{argument}: {found[:40]!r}: write 1 to {LONGEST_TEXT} printable characters, one line"
        )
        raise ConfigurationError(msg)
    return text


def _hold(
    order: QueueOrder, snapshot: QueueSnapshot, reader: QueueReader, terminal: Terminal
) -> tuple[list[str], bool]:
    found = matching(order.target, snapshot)
    if not found:
        _warn_unknown(order.target, snapshot, reader, terminal)
    if not reader.store.write_order(order):
        before = reader.store.read_order(order.key)
        return [f"{order.target} is held already: {before.sentence if before else ''}"], False
    lines = [f"{order.target}: {order.sentence}"]
    running = [entry for entry in found if not is_waiting(entry, snapshot)]
    lines += [f"{entry.title} was admitted before; it goes on" for entry in running]
    return lines, True


def _release(
    order: QueueOrder, snapshot: QueueSnapshot, reader: QueueReader, _terminal: Terminal
) -> tuple[list[str], bool]:
    target = order.target
    same_job = [
        known
        for known in snapshot.orders
        if (known.target.payer, known.target.job) == (target.payer, target.job)
    ]
    dates = ("",) if not target.business_date else (target.business_date,)
    ended = [k for k in same_job if not target.business_date or k.target.business_date in dates]
    rest = [known for known in same_job if known not in ended]
    if not ended:
        there = "; ".join(str(known.target) + ": " + known.sentence for known in rest)
        raise ConfigurationError(
            f"release {target}: neither held nor promoted. "
            + (f"In force: {there}." if there else _orders_in_force(snapshot, target))
        )
    for known in ended:
        reader.store.withdraw_order(known.key)
    reader.store.record_order(order)
    lines = [f"{k.target}: no longer {k.sentence}" for k in ended]
    holds = [k for k in rest if k.action is OrderAction.HOLD and not k.target.business_date]
    lines += [f"still {k.sentence} for all dates; release it without --date" for k in holds]
    return lines, True


def _orders_in_force(snapshot: QueueSnapshot, target: OrderTarget) -> str:
    words = sorted({f"{o.target.payer}/{o.target.job}" for o in snapshot.orders})
    near = nearest(f"{target.payer}/{target.job}", words)
    hint = f"Did you mean {near!r}? " if near else ""
    return f"{hint}Held or promoted: {', '.join(words[:8]) or 'nobody'}."


def _promote(
    order: QueueOrder, snapshot: QueueSnapshot, reader: QueueReader, _terminal: Terminal
) -> tuple[list[str], bool]:
    found = matching(order.target, snapshot)
    waiting = [entry for entry in found if is_waiting(entry, snapshot)]
    if not waiting:
        raise ConfigurationError(f"promote {order.target}: {_say_there(order.target, snapshot)}")
    lines, changed = [], False
    # By date, so that each promotion ends with its job.
    for date in sorted({entry.business_date for entry in waiting}):
        target = order.target.model_copy(update={"business_date": date})
        dated = order.model_copy(update={"target": target})
        is_new = reader.store.write_order(dated)
        before = None if is_new else reader.store.read_order(dated.key)
        changed = changed or is_new
        said = dated.sentence if before is None else f"{before.sentence} already"
        lines.append(f"{target}: {said}; first in line of its pool until it has ended")
    held = [o for o in snapshot.orders if o.action is OrderAction.HOLD]
    lines += [
        f"but {entry.title} is {hold.sentence}: release it"
        for entry in waiting
        for hold in held
        if hold.target.matches(entry)
    ]
    return lines, changed


def matching(target: OrderTarget, snapshot: QueueSnapshot) -> list[QueueEntry]:
    return [entry for entry in snapshot.entries if target.matches(entry)]


def is_waiting(entry: QueueEntry, snapshot: QueueSnapshot) -> bool:
    return snapshot.state.entries[entry.name].stage is Stage.WAITING


def _say_there(target: OrderTarget, snapshot: QueueSnapshot) -> str:
    if found := matching(target, snapshot):
        names = ", ".join(sorted({entry.title for entry in found}))
        return f"nothing of it waits; admitted already: {names}."
    same = [e for e in snapshot.entries if (e.payer, e.job) == (target.payer, target.job)]
    if same:
        dates = ", ".join(sorted({entry.business_date for entry in same}))
        return f"not in the queue for this date; it is for {dates}."
    waiting = [entry for entry in snapshot.entries if is_waiting(entry, snapshot)]
    return f"not in the queue.{say_nearest(target, waiting)}"


def say_nearest(target: OrderTarget, entries: Iterable[QueueEntry]) -> str:
    """Name the nearest that is there, and some of the others."""
    words = sorted({f"{entry.payer}/{entry.job}" for entry in entries})
    near = nearest(f"{target.payer}/{target.job}", words)
    hint = f" Did you mean {near!r}?" if near else ""
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return f"{hint} In the queue: {', '.join(words[:8]) or 'nobody'}{more}."


def _warn_unknown(
    target: OrderTarget, snapshot: QueueSnapshot, reader: QueueReader, terminal: Terminal
) -> None:
    """Warn where nobody has ever asked for this job: the name may be wrong."""
    known = reader.list_known()
    if target.job in known.get(target.payer, ()):
        return
    if any((e.payer, e.job) == (target.payer, target.job) for e in snapshot.entries):
        return
    words = [f"{payer}/{job}" for payer, jobs in known.items() for job in jobs]
    near = nearest(f"{target.payer}/{target.job}", words)
    hint = f"; did you mean {near!r}?" if near else ""
    text = f"nobody has ever asked for {target.payer}/{target.job}{hint} Held all the same."
    terminal.tell(f"ephemeral-ec2: {text}", "yellow")

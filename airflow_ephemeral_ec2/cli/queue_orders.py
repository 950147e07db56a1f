"""``ephemeral-ec2 queue hold|release|promote PAYER JOB``: who ordered what, when and why."""

from __future__ import annotations

import getpass
import re
import socket
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.exceptions import ConfigurationError, nearest
from airflow_ephemeral_ec2.hooks.parallel import in_threads
from airflow_ephemeral_ec2.model.plain_text import printable
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.queue_orders import (
    OrderAction,
    OrderTarget,
    QueueOrder,
    may_be_held,
    may_be_promoted,
)
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
    running = [e for e in found if not may_be_held(snapshot.state.entries[e.name])]
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
        there = "; ".join(dict.fromkeys(f"{known.target}: {known.sentence}" for known in rest))
        raise ConfigurationError(
            f"release {target}: neither held nor promoted. "
            + (f"In force: {there}." if there else _orders_in_force(snapshot, target))
        )
    in_threads(lambda known: reader.store.withdraw_order(known.key), ended)
    reader.store.record_order(order)
    lines = [*dict.fromkeys(f"{k.target}: no longer {k.sentence}" for k in ended)]
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
    states = snapshot.state.entries
    waiting = [e for e in matching(order.target, snapshot) if may_be_promoted(states[e.name])]
    if not waiting:
        raise ConfigurationError(f"promote {order.target}: {_say_there(order.target, snapshot)}")
    waiting.sort(key=lambda entry: (entry.business_date, entry.title))
    # One for each attempt, so that each ends with its own: parts of an array do not end together.
    orders = [order.model_copy(update={"target": OrderTarget.of(entry)}) for entry in waiting]
    known = in_threads(lambda one: _write_or_read(one, reader), orders)
    said = dict.fromkeys(
        f"{one.target}: {one.sentence if before is None else f'{before.sentence} already'}; "
        "first in line of its pool until this attempt has ended"
        for one, before in zip(orders, known, strict=True)
    )
    return [*said, *_say_besides(waiting, snapshot)], None in known


def _write_or_read(order: QueueOrder, reader: QueueReader) -> QueueOrder | None:
    """Write an order; None: it is new. Else the one that was there before."""
    if reader.store.write_order(order):
        return None
    return reader.store.read_order(order.key) or order


def _say_besides(promoted: list[QueueEntry], snapshot: QueueSnapshot) -> list[str]:
    """Say of whom only the launch is still to come, and whom a hold keeps out all the same."""
    states, orders = snapshot.state.entries, snapshot.orders
    lines = [
        f"{entry.title} is admitted already; it is launched before others that wait for EC2's pace"
        for entry in promoted
        if states[entry.name].stage is Stage.ADMITTED
    ]
    return lines + [
        f"but {entry.title} is {hold.sentence}: release it"
        for entry in promoted
        for hold in orders
        if hold.action is OrderAction.HOLD and hold.target.matches(entry)
    ]


def matching(target: OrderTarget, snapshot: QueueSnapshot) -> list[QueueEntry]:
    return [entry for entry in snapshot.entries if target.matches(entry)]


def _say_there(target: OrderTarget, snapshot: QueueSnapshot) -> str:
    if found := matching(target, snapshot):
        names = ", ".join(sorted({entry.title for entry in found}))
        return f"nothing of it waits; launched already: {names}."
    same = [e for e in snapshot.entries if (e.payer, e.job) == (target.payer, target.job)]
    if same:
        dates = ", ".join(sorted({entry.business_date for entry in same}))
        return f"not in the queue for this date; it is for {dates}."
    states = snapshot.state.entries
    waiting = [entry for entry in snapshot.entries if may_be_promoted(states[entry.name])]
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

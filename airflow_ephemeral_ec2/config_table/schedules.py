"""``schedule``: cron expressions, assets, and payers that would start each other for ever."""

import re
from collections.abc import Callable, Iterator

from airflow_ephemeral_ec2.config_table.dependencies import find_cycles
from airflow_ephemeral_ec2.config_table.messages import quote
from airflow_ephemeral_ec2.config_table.rows import Row
from airflow_ephemeral_ec2.exceptions import Problem, nearest
from airflow_ephemeral_ec2.model.schedule import (
    ASSET_PREFIX,
    AssetSchedule,
    find_payer,
    parse_schedule,
)

CRON_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
"""The presets of Airflow that are cron expressions."""
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+")
URI_LIMIT = 1_500
"""Characters of an asset's name and URI (``airflow/models/asset.py``)."""
_CRON_FORM = 'write five fields, like "0 2 * * *" (minute, hour, day, month, weekday)'
_ASSET_FORM = 'write "asset:" and a URI, like "asset:s3://bucket/folder"'
_ALMOST = ("asset", "assets", "dataset", "datasets")


def check_schedule(text: str) -> str | None:
    """Say what is wrong with a schedule, or None."""
    if text.startswith(ASSET_PREFIX):
        return _check_assets(text)
    if text.partition(":")[0].strip().lower() in _ALMOST or re.match(URI, text):
        return f"{quote(text)}: {_ASSET_FORM}"
    return _check_cron(text)


def _check_cron(text: str) -> str | None:
    if text in CRON_PRESETS:
        return None
    if text.startswith("@"):
        near = nearest(text, CRON_PRESETS)
        hint = f"; did you mean {quote(near)}?" if near else ""
        return f"{quote(text)}: must be one of {', '.join(CRON_PRESETS)}{hint}"
    if len(text.split()) != 5:
        return f"{quote(text)}: {len(text.split())} fields; {_CRON_FORM}"
    is_valid = _find_cron_parser()
    if is_valid is not None and not is_valid(text):
        return f"{quote(text)}: not a cron expression; {_CRON_FORM}"
    return None


def _find_cron_parser() -> Callable[[str], bool] | None:
    """Airflow's own parser; Airflow, and with it croniter, may be absent where tables are checked."""
    try:
        from croniter import croniter  # type: ignore[import-untyped] # noqa: PLC0415 - no stubs; 40 ms that few calls need
    except ImportError:
        return None
    return lambda text: bool(croniter.is_valid(text))


def _check_assets(text: str) -> str | None:
    if " & " in text and " | " in text:
        return f'{quote(text)}: both " & " (all) and " | " (any); write one of them'
    found = parse_schedule(text)
    for uri in found.uris if isinstance(found, AssetSchedule) else ():
        if not re.fullmatch(URI, uri):
            several = 'several with " & " (all of them) or " | " (any of them)'
            return f"{quote(uri)}: not a URI; {_ASSET_FORM}; {several}"
        if len(uri) > URI_LIMIT:
            return f"a URI of {len(uri):,} characters; at most {URI_LIMIT:,}"
        if uri.lower().startswith("airflow:"):
            return f"{quote(uri)}: the scheme airflow is Airflow's own"
    return None


def check_asset_loops(rows: tuple[Row, ...]) -> Iterator[Problem]:
    """Find payers whose runs would start themselves again, one machine after the other."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.spec.payer, row)
    starts = {payer: _find_payers_before(row) for payer, row in first.items()}
    for cycle in find_cycles({payer: before for payer, before in starts.items() if before}):
        message = f"{' -> '.join(cycle)}: would start itself again for ever"
        yield first[cycle[0]].problem("schedule", message)


def _find_payers_before(row: Row) -> tuple[str, ...]:
    text = row.spec.schedule
    if not isinstance(text, str) or not text.startswith(ASSET_PREFIX):
        return ()
    found = parse_schedule(text)
    uris = found.uris if isinstance(found, AssetSchedule) else ()
    return tuple(payer for uri in uris if (payer := find_payer(uri)) is not None)

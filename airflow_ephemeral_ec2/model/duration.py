"""Durations as people write them: ``90s``, ``30m``, ``1h30m``, ``2d``; whole seconds inside."""

import re

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+)([dhms])")


def parse_duration(text: object) -> int:
    """
    Turn ``1h30m`` into 5400 (seconds).

    :raises ValueError: no unit, an unknown unit, zero or not a duration at all.
    """
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        msg = f"{text!r}: not a duration; write 30m or 1h30m"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a table error
    found = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", found):
        msg = f"{found}: no unit; write {found}m or {found}s"
        raise ValueError(msg)
    parts = _PART.findall(found)
    if not parts or "".join(number + unit for number, unit in parts) != found:
        msg = f"{found!r}: not a duration; write whole numbers with d, h, m or s, like 30m or 1h30m"
        raise ValueError(msg)
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if seconds == 0:
        msg = f"{found}: must be longer than 0s"
        raise ValueError(msg)
    return seconds


def format_duration(seconds: float) -> str:
    """Write seconds as people read them: ``1.4s``, ``38s``, ``2m 11s``, ``1h 05m``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3_600}h {whole % 3_600 // 60:02d}m"


def compact_duration(seconds: int) -> str:
    """Write seconds as a table has them: the inverse of :func:`parse_duration`."""
    text = ""
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"

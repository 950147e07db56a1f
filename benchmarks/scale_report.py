"""Numbers of ``--scale`` -> the table in docs/benchmarks.md and its plot."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from benchmarks.endpoint_process import REPOSITORY
from benchmarks.environment import peers_python

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = REPOSITORY / "docs" / "benchmarks.md"
PLOT = REPOSITORY / "docs" / "images" / "benchmark-waiting.svg"
BEGIN, END = "<!-- waiting: begin -->", "<!-- waiting: end -->"
COLUMNS = {
    "calls_per_min": "API calls a minute",
    "cpu_s_per_min": "CPU s a minute",
    "rss_mb": "memory MB",
    "detect_p50_s": "detection p50 s",
    "detect_p99_s": "p99 s",
    "longest_block_s": "loop blocked at most s",
    "longest_block_at_start_s": "at start s",
    "watchdog_lines": "watchdog lines",
    "start_s": "start s",
    "failed": "failed",
    "throttled_calls": "refused calls",
    "load_before": "load",
    "cpu": "processor",
}
RESULTS = REPOSITORY / "benchmarks" / "results" / "waiting.json"
SAME = ("cores", "python", "apache-airflow")
"""What must be equal for two numbers to stand in one table; each row names its processor."""


def keep_rows(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put rows beside those of earlier runs on machines as large, or in their place."""
    kept: list[Mapping[str, Any]] = []
    rows = [{"cpu": machine["cpu"], **row} for row in rows]
    if RESULTS.exists():
        known = json.loads(RESULTS.read_text())
        if all(known["machine"][name] == machine[name] for name in SAME):
            new = {(row["subject"], row.get("jobs")) for row in rows}
            kept = [
                {"cpu": known["machine"]["cpu"], **row}
                for row in known["rows"]
                if (row["subject"], row.get("jobs")) not in new
            ]
    found = {"machine": machine, "rows": sorted([*kept, *rows], key=_place)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _place(row: Mapping[str, Any]) -> tuple[bool, int, bool, str]:
    is_special = "," in row["subject"]
    return is_special, row.get("jobs", 0), row["subject"] != "ours", row["subject"]


def write_report(found: Mapping[str, Any]) -> None:
    """Write the table between its marks, and the plot; the words around them are people's."""
    rows = found["rows"]
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    middle = f"{BEGIN}\n\n{describe(found['machine'])}\n\n{render_table(rows)}\n\n{END}"
    PAGE.write_text(head + middle + tail)
    # matplotlib is in the benchmark's environment only.
    command = [str(peers_python()), "-m", "benchmarks.scale_plot", str(RESULTS), str(PLOT)]
    subprocess.run(command, check=True, cwd=REPOSITORY)


def describe(machine: Mapping[str, Any]) -> str:
    return (
        f"Measured on {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, Airflow {machine['apache-airflow']}, "
        f"amazon provider {machine['apache-airflow-providers-amazon']}, boto3 {machine['boto3']}. "
        "Load: how many processes wanted a core when the measurement began."
    )


def render_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| waiting | trigger | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for row in rows:
        cells = [_cell(row.get(name)) for name in COLUMNS]
        lines.append(f"| {_cell(row.get('jobs'))} | {row['subject']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)

"""Draw calls, CPU, memory and detection over the number of waiting jobs.

python -m benchmarks.scale_plot RESULTS.json PLOT.svg      # in .venv-bench, which has matplotlib
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

PANELS = {
    "calls_per_min": "API calls a minute",
    "cpu_s_per_min": "CPU seconds a minute",
    "rss_mb": "memory of the runner, MB",
    "detect_p99_s": "a death is seen after, s (p99)",
}
HELD = {"calls_per_min": 24, "cpu_s_per_min": 3, "rss_mb": 250, "detect_p99_s": 6}
"""What is to be held at 1,000 awaited."""
LINEAR = {"detect_p99_s"}


def main() -> None:
    rows: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())["rows"]
    mpl.use("svg")
    # The same bytes for the same numbers.
    mpl.rcParams["svg.hashsalt"] = "benchmark"
    figure, panels = plt.subplots(1, len(PANELS), figsize=(15, 4))
    names = list(dict.fromkeys(row["subject"] for row in rows if "," not in row["subject"]))
    for panel, (field, title) in zip(panels, PANELS.items(), strict=True):
        for number, name in enumerate(names):
            points = sorted(
                (row["jobs"], row[field])
                for row in rows
                if row["subject"] == name and row.get(field) is not None
            )
            if points:
                style = {"marker": "o", "label": name, "color": f"C{number}"}
                panel.plot(*zip(*points, strict=True), **style)
        panel.plot(1_000, HELD[field], marker="_", markersize=16, color="black", linestyle="")
        panel.set(title=title, xscale="log", xlabel="waiting jobs")
        panel.set_yscale("linear" if field in LINEAR else "log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:,.6g}")
            axis.set_minor_formatter("")
        panel.grid(visible=True, which="major", alpha=0.3)
    panels[1].legend(fontsize="small")
    figure.tight_layout()
    Path(sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()

"""The benchmark of parsing answers with one JSON line; its numbers are not tested here."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_last_line_has_ours_and_each_peer():
    command = [
        sys.executable,
        "-m",
        "benchmarks.parsing",
        "--json",
        "--payers",
        "3",
        "--rounds",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["payers"], found["jobs"]) == (3, 12)
    for name in ("ours", "hand_written"):
        assert found[name]["cpu_s"] > 0
    assert found["ours"]["one_task_cpu_s"] > 0
    assert found["ours"]["ratio_to_hand_written"] > 0
    # Without a package index there is no peer, and the output says so.
    assert "cpu_s" in found["dag_factory"] or "cannot install" in found["dag_factory"]["error"]

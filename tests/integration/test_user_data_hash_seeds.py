"""User data is the same in every process, whatever the order of its sets and dicts."""

import os
import subprocess
import sys

CONFIG = {"v": 1, "command": ["python3", "claims.py"], "environ": {"A": "1"}, "max_lifetime": 2720}
PRINT_HASH = f"""
from hashlib import sha256
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.model.user_data import render_user_data
print(sha256(render_user_data({CONFIG!r}, agent=agent_source())).hexdigest())
"""


def test_L25_equal_input_gives_equal_bytes_in_processes_with_other_hash_seeds():
    """Processes with other hash seeds."""
    found = {
        subprocess.run(
            [sys.executable, "-c", PRINT_HASH],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4711")
    }

    assert len(found) == 1

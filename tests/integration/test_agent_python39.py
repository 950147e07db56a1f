"""The agent under Python 3.9, the oldest that images bring."""

import shutil
import subprocess
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from tests.integration.agent_machine import config, endpoint, machine, tarball

__all__ = ["endpoint", "machine"]


def python39() -> str:
    """Return a Python 3.9 of this host."""
    kept = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python3"))
    for candidate in (*map(str, kept), shutil.which("python3.9") or ""):
        if candidate:
            return candidate
    pytest.skip("no Python 3.9 on this host")


def test_the_bundle_compiles(tmp_path):
    file = tmp_path / "agent.py"
    file.write_text(agent_source())

    subprocess.run([python39(), "-W", "error", "-m", "py_compile", str(file)], check=True)


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_a_bundle_made_by_a_newer_python_compiles(tmp_path, version):
    made_by = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    if not made_by:
        pytest.skip(f"no Python {version} on this host")
    root = Path(__file__).parents[2]
    script = "from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source as a; print(a())"

    made = subprocess.run(
        [made_by[-1], "-c", script], cwd=root, capture_output=True, text=True, check=True
    ).stdout

    file = tmp_path / "agent.py"
    file.write_text(made)
    subprocess.run([python39(), "-W", "error", "-m", "py_compile", str(file)], check=True)


def test_a_job_runs_end_to_end(machine):
    machine.python = python39()
    code = machine.push(tarball(job__py="import sys; print(sys.version[:4]); sys.exit(7)"))

    report = machine.run(config("python3", "job.py", code=code, job_role="acme-data"))

    assert (report["phase"], report["exit_code"]) == ("job", 7)
    assert machine.log() == "3.9.\n"
    assert machine.is_off

"""The shape of the code: layers, sizes, names, and what may run on the instance."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_ephemeral_ec2"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
ON_THE_INSTANCE = [PACKAGE / "contract.py", *sorted((PACKAGE / "agent").glob("*.py"))]
BANNED = {"utils", "helpers", "common", "base", "core", "constants", "types", "misc"}
BROAD_EXCEPTS_ALLOWED = {
    # Unknown states of tasks end nothing; a notifier's mistake keeps no machine alive.
    "operators/reap.py": 2,
    # An alert goes out whatever keeps us from its details.
    "notifications/alerts.py": 1,
    # A fault in one attempt must not stop the others.
    "hooks/open_attempts.py": 1,
    # Whatever keeps us from asking Airflow is no reason to kill.
    "triggers/task_state.py": 1,
    "triggers/kills.py": 1,
    # Whatever keeps Airflow from finding a connection, the clients that are there are good.
    "hooks/ec2.py": 1,
    # Whatever keeps Airflow from reading its settings, who waits for them waits on.
    "settings.py": 1,
    # A line that cannot be shown fails no task.
    "triggers/state_line.py": 1,
    # A fault of our own must reach all who wait, not only the log.
    "triggers/waiting.py": 1,
    # Whatever happens on the machine, it reports and powers off.
    "agent/supervisor.py": 2,
    # A server answers one wrong request and goes on with the next.
    "local/authorization.py": 2,
    "local/clock.py": 1,
    "local/ec2_api.py": 1,
    "local/gateway.py": 1,
    "local/supervisor.py": 1,
}


def _name(path):
    return str(path.relative_to(PACKAGE))


def test_a_file_fits_in_one_reading():
    lengths = {_name(path): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_a_file_states_its_duty():
    assert [_name(p) for p in MODULES if not ast.get_docstring(TREES[p])] == []


def test_a_file_has_a_name_of_its_own():
    assert [_name(path) for path in MODULES if path.stem in BANNED] == []


@pytest.mark.parametrize("path", ON_THE_INSTANCE, ids=_name)
def test_what_runs_on_the_instance_is_written_in_python_3_9(path):
    ast.parse(path.read_text(), feature_version=(3, 9))


def test_functions_are_short():
    lengths = {
        f"{_name(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: size for name, size in lengths.items() if size > 60} == {}
    assert sum(size > 30 for size in lengths.values()) < len(lengths) * 0.06


def test_broad_excepts_are_few_and_known():
    found = {}
    for path in MODULES:
        count = len(re.findall(r"except (?:Base)?Exception\b", path.read_text()))
        if count:
            found[_name(path)] = count

    assert {k: v for k, v in found.items() if v > BROAD_EXCEPTS_ALLOWED.get(k, 0)} == {}


def test_imports_point_down():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_importing_the_package_imports_nothing():
    code = "import sys, airflow_ephemeral_ec2; print([m for m in sys.modules if m in ('airflow', 'boto3', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

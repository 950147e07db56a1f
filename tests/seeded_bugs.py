"""
Takes the handling behind each guard away, one at a time, and shows which test turns red.

Run: ``python -m tests.seeded_bugs [WORD ...]``. The package and its tests are copied to a
temporary folder; the working tree is never touched. Fails when a bug survives, when its text is not
found exactly once, or when a test that should catch it is red without it. A test that runs out of
time shows nothing: it is run again, and is reported apart when it does so again.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.seeded_bugs_list import SEEDED_BUGS, SeededBug

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_ephemeral_ec2"
PARALLEL = 2
SECONDS = 240
RAN_OUT_OF_TIME = "ran out of time, twice"
# Refuses to test anything but the copy, wherever the package is installed from.
GUARD = f"""\
import {PACKAGE}
from pathlib import Path
assert Path({PACKAGE}.__file__).is_relative_to(Path(__file__).parent), {PACKAGE}.__file__
"""


@dataclass(frozen=True)
class Result:
    """What the tests said about one bug."""

    bug: SeededBug
    red: str
    """The first red test; empty when the bug survived."""
    problem: str
    seconds: float


def make_copy(folder: Path) -> Path:
    """Copy what the tests need; the guard makes sure that the copy is what is tested."""
    ignored = shutil.ignore_patterns("__pycache__", "system", "images")
    for name in (PACKAGE, "tests", "dags", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "seeded_bugs_guard.py").write_text(GUARD)
    return folder


def run_tests(copy: Path, tests: tuple[str, ...]) -> tuple[int | None, str]:
    """
    Run tests of a copy up to the first red one.

    :return: pytest's exit code, None when it had none within the time; and its output
    """
    environ = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "-p", "seeded_bugs_guard",
        *tests,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def read_answer(code: int | None, output: str) -> tuple[str, str]:
    """
    Say which test turned red, or what else came of the tests.

    :param code: of pytest; None when it did not end in time
    :return: name of the red test, "" without any; and the problem, "" with one
    """
    red = re.search(r"^FAILED (\S+)(.*)", output, re.MULTILINE)
    if code is None or (red and "Timeout (>" in red.group(2)):
        return "", RAN_OUT_OF_TIME
    if code == 1 and red:
        return red.group(1).rpartition("::")[2], ""
    tail = output.strip().splitlines()[-1:]
    return "", "SURVIVED" if code == 0 else f"tests could not run: {tail}"


def try_bug(copy: Path, bug: SeededBug) -> Result:
    path, began = copy / PACKAGE / bug.file, time.monotonic()
    sound = path.read_text()
    found = sound.count(bug.old)
    if found != 1:
        return Result(bug, "", f"its text is in {bug.file} {found} times, not once", 0.0)
    try:
        path.write_text(sound.replace(bug.old, bug.new))
        red, problem = read_answer(*run_tests(copy, bug.tests))
        if problem == RAN_OUT_OF_TIME:
            # Beside other work a sound test is slow, too: only what a test says counts.
            red, problem = read_answer(*run_tests(copy, bug.tests))
    finally:
        path.write_text(sound)
    return Result(bug, red, problem, time.monotonic() - began)


def run(bugs: list[SeededBug]) -> list[Result]:
    """Try all bugs, two at a time, each in a copy that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="seeded-bugs-") as name:
        copies: Queue[Path] = Queue()
        for number in range(PARALLEL):
            copies.put(make_copy(Path(name) / str(number)))

        def borrow(work):
            copy = copies.get()
            try:
                return work(copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(PARALLEL) as pool:
            tests = sorted({test for bug in bugs for test in bug.tests})
            # Without a name pytest would run everything: an empty half is left out.
            halves = filter(None, (tuple(tests[i::PARALLEL]) for i in range(PARALLEL)))
            sound = pool.map(lambda half: borrow(lambda copy: run_tests(copy, half)), halves)
            for code, output in sound:
                if code not in (0, 5):
                    sys.exit(f"red without any bug:\n{output[-3000:]}")
            return list(pool.map(lambda bug: borrow(lambda copy: try_bug(copy, bug)), bugs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="words of the bugs to try; all without any")
    asked = parser.parse_args().names
    bugs = [b for b in SEEDED_BUGS if not asked or any(word in b.name for word in asked)]
    began, results = time.monotonic(), run(bugs)
    width = max(len(bug.name) for bug in bugs)
    for result in results:
        said = result.red or f"!! {result.problem}"
        sys.stdout.write(f"{result.bug.name:<{width}}  {said}  ({result.seconds:.1f} s)\n")
    missed = [result for result in results if not result.red]
    late = sum(result.problem == RAN_OUT_OF_TIME for result in missed)
    sys.stdout.write(
        f"{len(results) - len(missed)} of {len(results)} seeded bugs found, "
        f"{late} without an answer in time, {time.monotonic() - began:.0f} s\n"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

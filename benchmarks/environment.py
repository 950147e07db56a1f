"""The peers' own virtual environment: aiobotocore pins a botocore that is not the product's.

python -m benchmarks.environment        # makes .venv-bench (some minutes, needs a package index)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from benchmarks.endpoint_process import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = REPOSITORY / ".venv-bench"
PYTHON = FOLDER / "bin" / "python"
CONSTRAINTS = REPOSITORY / ".ci"


def peers_python() -> Path:
    """
    Return the interpreter that has the peers' dependencies; make its environment when missing.

    :raises subprocess.CalledProcessError: it cannot be made (no package index?)
    """
    ready = FOLDER / "ready"
    if ready.exists():
        return PYTHON
    print(f"installing into {FOLDER.name} (some minutes, once)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write(merge_pins())
        pins.flush()
        install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-e", f"{REPOSITORY}[bench]", "-c", pins.name], check=True)
    ready.touch()
    return PYTHON


def merge_pins() -> str:
    """Take the product's pins, but for what ``constraints-bench.txt`` pins otherwise."""
    own = (CONSTRAINTS / "constraints-bench.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in own}
    product = (CONSTRAINTS / "constraints.txt").read_text().splitlines()
    kept = [line for line in product if line.partition("==")[0] not in names]
    return "\n".join([*kept, *own]) + "\n"


if __name__ == "__main__":
    print(peers_python())

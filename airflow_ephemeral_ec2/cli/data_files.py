"""Files of a folder into a bucket, and back."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.job_store import JobStore


def upload(store: JobStore, folder: Path, prefix: str) -> int:
    """Copy all files of a folder below a prefix; return how many."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        name = prefix + path.relative_to(folder).as_posix()
        store.write_new(name, path.read_bytes(), "application/octet-stream")
    return len(files)


def download(store: JobStore, prefix: str, folder: Path) -> int:
    """
    Copy all objects below a prefix into a folder; return how many.

    :raises ConfigurationError: an object's name leads out of the folder
    """
    count = 0
    for key in store.list_keys(prefix):
        name = PurePosixPath(key.removeprefix(prefix))
        if name.is_absolute() or ".." in name.parts or not name.parts:
            msg = f"--output: s3://{store.bucket}/{key} cannot be a file below {folder}"
            raise ConfigurationError(msg)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(key) or b"")
        count += 1
    return count

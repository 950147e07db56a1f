"""The job's code: a gzipped tarball, proven by its sha256, unpacked with distrust."""

# Pathlib costs bytes and 10 ms at start.
# ruff: noqa: PTH101, PTH103, PTH108, PTH113, PTH114, PTH117, PTH118, PTH120, PTH123, PTH211

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.contract import ERROR_CODE_UNSAFE

if TYPE_CHECKING:
    from typing import BinaryIO


def unpack(archive: BinaryIO, folder: str) -> None:
    """Unpack files, folders and links that stay below ``folder``; nothing else.

    The real path is asked for at each member, since an earlier one may be a link.

    Raises:
        Failure: a member points out of the folder, is a device, or the archive is broken.

    """
    root = os.path.realpath(folder)
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            for member in tar:
                _place(tar, member, root)
    except (tarfile.TarError, zlib.error, EOFError) as e:
        raise Failure(ERROR_CODE_UNSAFE, f"broken archive: {e}") from e


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, root: str) -> None:
    name = os.path.normpath(member.name)
    if name == ".":
        return
    path = os.path.join(root, name)
    folder = os.path.dirname(path)
    if os.path.isabs(member.name) or ".." in member.name.split("/") or not _inside(folder, root):
        raise Failure(ERROR_CODE_UNSAFE, f"{member.name!r} leaves the work folder")
    os.makedirs(folder, exist_ok=True)
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    if member.isdir():
        os.makedirs(path, exist_ok=True)
    elif member.isreg():
        source = tar.extractfile(member)
        with open(path, "wb") as file:
            shutil.copyfileobj(source, file)  # type: ignore[arg-type]  # a file always has one
        os.chmod(path, member.mode & 0o755 | 0o600)
    else:
        _link(member, path, root)


def _link(member: tarfile.TarInfo, path: str, root: str) -> None:
    target = os.path.join(os.path.dirname(path) if member.issym() else root, member.linkname)
    kind = member.issym() or member.islnk()
    if not kind or os.path.isabs(member.linkname) or not _inside(target, root):
        raise Failure(ERROR_CODE_UNSAFE, f"{member.name!r} is a device or leaves the work folder")
    if member.issym():
        os.symlink(member.linkname, path)
    else:
        os.link(os.path.realpath(target), path)


def _inside(path: str, root: str) -> bool:
    return (os.path.realpath(path) + "/").startswith(root.rstrip("/") + "/")

"""Code folders -> tarballs by hash in the bucket; instance types and images -> the lock file."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import code_key
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.spec import CodeFacts, ImageFacts, InstanceFacts, LockFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.spec import JobSpec

IGNORE_FILE = ".ephemeralignore"
IGNORED = ("__pycache__", ".*", "*.pyc", "*.lock.json", "*~")
"""Names that never travel; ``.ephemeralignore`` in the folder adds to them."""
MAX_BYTES = 256 * 1024**2
MAX_TYPES_PER_CALL = 100
"""EC2 API reference, DescribeInstanceTypes: at most 100 types by name."""


@dataclass(frozen=True)
class CodeArchive:
    """One code folder, packed: the same files give the same bytes."""

    body: bytes
    files: int

    @property
    def facts(self) -> CodeFacts:
        return CodeFacts(sha256=hashlib.sha256(self.body).hexdigest(), size_bytes=len(self.body))


@dataclass(frozen=True)
class CodeUpload:
    """What happened to one code folder."""

    code: str
    facts: CodeFacts
    files: int
    is_new: bool
    """False when the bucket had these bytes already."""


@dataclass(frozen=True)
class Push:
    """What a push found out, and uploaded."""

    uploads: tuple[CodeUpload, ...]
    lock: LockFile


def pack_code(folder: Path) -> CodeArchive:
    """
    Pack a folder reproducibly: sorted names, no times, no owners, two modes.

    Symbolic links to files travel as the files they name.

    :raises ConfigurationError: the folder is missing, empty, too large, or has a file that cannot
        be read
    """
    if not folder.is_dir():
        msg = f"code: no such folder: {folder}"
        raise ConfigurationError(msg)
    try:
        return _pack(folder)
    except OSError as error:
        msg = f"code: {error.filename or folder} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error


def _pack(folder: Path) -> CodeArchive:
    files = sorted(_travelling(folder, _read_ignored(folder)))
    if not files:
        msg = f"code: {folder} has no files to push"
        raise ConfigurationError(msg)
    _refuse_too_large(folder, files)
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in files:
            path = folder / name
            body = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            entry.mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
            tar.addfile(entry, io.BytesIO(body))
    return CodeArchive(buffer.getvalue(), len(files))


def _read_ignored(folder: Path) -> tuple[str, ...]:
    path = folder / IGNORE_FILE
    if not path.is_file():
        return IGNORED
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return (*IGNORED, *(line.rstrip("/") for line in lines if line and line[0] != "#"))


def _travelling(folder: Path, ignored: tuple[str, ...]) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        folders[:] = [n for n in folders if not _is_ignored(inside / n, ignored)]
        for name in names:
            path = inside / name
            # Sockets and pipes are nothing to run; a link to nowhere is an error later on.
            if not _is_ignored(path, ignored) and _is_regular(folder / path):
                yield path.as_posix()


def _is_regular(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_ignored(path: Path, ignored: tuple[str, ...]) -> bool:
    return any(
        fnmatch.fnmatchcase(path.name, one) or fnmatch.fnmatchcase(path.as_posix(), one)
        for one in ignored
    )


def _refuse_too_large(folder: Path, files: list[str]) -> None:
    sizes = {name: (folder / name).stat().st_size for name in files}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        msg = (
            f"code: {folder} has {sum(sizes.values()) // 1024**2} MiB, at most "
            f"{MAX_BYTES // 1024**2} travel; the largest file is {largest}. "
            f"Name data in {folder / IGNORE_FILE} and read it from a bucket instead."
        )
        raise ConfigurationError(msg)


def push_code(store: JobStore, code: str, folder: Path, *, is_dry_run: bool = False) -> CodeUpload:
    """
    Upload a code folder under its hash, unless the bucket has it.

    :raises ConfigurationError: the folder cannot be packed
    :raises AwsError: the bucket cannot be asked, or refuses
    """
    archive = pack_code(folder)
    key = code_key(store.environment, archive.facts.sha256)
    # A listing, not a look at the object: only it tells a missing bucket from a missing object.
    is_new = key not in store.list_keys(key)
    if is_new and not is_dry_run:
        store.write_new(key, archive.body, "application/gzip")
    return CodeUpload(code, archive.facts, archive.files, is_new)


def push_table(
    table: ConfigTable,
    store: JobStore,
    fleet_for: Callable[[str, str], Fleet],
    *,
    is_dry_run: bool = False,
) -> Push:
    """
    Upload every code folder of a table, and look up what its rows name.

    :param fleet_for: a fleet by Airflow connection and region
    :raises ConfigurationError: a folder, AMI or instance type of the table does not exist
    :raises AwsError: AWS cannot be asked, or refuses
    """
    folder = Path(table.path).parent
    codes = sorted({spec.code for spec in table.specs if spec.code})
    uploads = tuple(push_code(store, code, folder / code, is_dry_run=is_dry_run) for code in codes)
    types, images = find_facts(table.specs, fleet_for)
    code_facts = {upload.code: upload.facts for upload in uploads}
    return Push(uploads, LockFile(code=code_facts, instance_types=types, images=images))


def find_facts(
    specs: Iterable[JobSpec], fleet_for: Callable[[str, str], Fleet]
) -> tuple[dict[str, InstanceFacts], dict[str, ImageFacts]]:
    """Ask EC2 once per connection and region for all instance types and images of the rows."""
    by_place: dict[tuple[str, str], list[JobSpec]] = defaultdict(list)
    for spec in specs:
        by_place[spec.aws_conn_id, spec.region].append(spec)
    types: dict[str, InstanceFacts] = {}
    images: dict[str, ImageFacts] = {}
    for place, rows in by_place.items():
        fleet = fleet_for(*place)
        names = sorted({name for spec in rows for name in spec.instance_types} - types.keys())
        for start in range(0, len(names), MAX_TYPES_PER_CALL):
            types |= fleet.instance_facts(names[start : start + MAX_TYPES_PER_CALL])
        for ami in sorted({spec.ami for spec in rows} - images.keys()):
            images[ami] = fleet.image_facts(fleet.resolve_image(ami))
    return types, images


def render_lock(lock: LockFile) -> str:
    """Write a lock file's text: sorted, a line per fact, so that a diff shows what changed."""
    return json.dumps(lock.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


def write_lock(path: Path, lock: LockFile) -> bool:
    """
    Replace the lock file atomically; False when it said the same already.

    :raises ConfigurationError: it cannot be written
    """
    text = render_lock(lock)
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        handle, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(fresh).chmod(mode)
        Path(fresh).replace(path)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error
    return True


def describe_changes(old: LockFile, new: LockFile) -> list[str]:
    """Say what differs between two lock files, a line per fact: ``+`` new, ``-`` gone, ``~`` other."""
    lines = []
    for title in ("code", "images", "instance_types"):
        before, after = getattr(old, title), getattr(new, title)
        for name in sorted(before.keys() | after.keys()):
            if name not in before:
                lines.append(f"+ {title} {name}: {_say(after[name])}")
            elif name not in after:
                lines.append(f"- {title} {name}")
            elif before[name] != after[name]:
                lines.append(f"~ {title} {name}: {_say(before[name])} -> {_say(after[name])}")
    return lines


def _say(facts: CodeFacts | ImageFacts | InstanceFacts) -> str:
    match facts:
        case CodeFacts():
            return f"sha256 {facts.sha256[:12]}..., {facts.size_bytes:,} bytes"
        case ImageFacts():
            further = f", volumes {', '.join(facts.data_devices)}" if facts.data_devices else ""
            return f"{facts.image_id} {facts.architecture}, root {facts.root_device}{further}"
        case InstanceFacts():
            return f"{facts.vcpus} vCPU, {facts.memory_mib / 1024:g} GiB, {facts.architecture}"

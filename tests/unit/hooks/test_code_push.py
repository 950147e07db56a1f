import io
import os
import tarfile

import pytest

from airflow_ephemeral_ec2.contract import code_key
from airflow_ephemeral_ec2.exceptions import BucketError, ConfigurationError
from airflow_ephemeral_ec2.hooks.code_push import (
    describe_changes,
    pack_code,
    push_code,
    write_lock,
)
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.model.spec import CodeFacts, LockFile


@pytest.fixture
def jobs(tmp_path):
    folder = tmp_path / "jobs"
    (folder / "parts").mkdir(parents=True)
    (folder / "claims.py").write_text("print('claims')\n")
    (folder / "parts" / "rules.py").write_text("RULES = ()\n")
    return folder


def names_in(archive):
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
        return [member.name for member in tar]


def test_the_same_files_give_the_same_bytes_whenever_and_by_whomever_they_were_written(
    jobs, tmp_path
):
    first = pack_code(jobs)
    other = tmp_path / "other"
    (other / "parts").mkdir(parents=True)
    (other / "parts" / "rules.py").write_text("RULES = ()\n")
    (other / "claims.py").write_text("print('claims')\n")
    os.utime(other / "claims.py", (1, 1))
    (other / "claims.py").chmod(0o600)

    assert pack_code(other).body == first.body


def test_a_changed_file_gives_another_hash(jobs):
    before = pack_code(jobs).facts.sha256
    (jobs / "claims.py").write_text("print('other')\n")

    assert pack_code(jobs).facts.sha256 != before


def test_an_executable_stays_executable(jobs):
    (jobs / "start").write_text("#!/bin/sh\n")
    (jobs / "start").chmod(0o700)

    with tarfile.open(fileobj=io.BytesIO(pack_code(jobs).body)) as tar:
        modes = {member.name: member.mode for member in tar}

    assert modes == {"claims.py": 0o644, "parts/rules.py": 0o644, "start": 0o755}


def test_what_is_made_by_tools_does_not_travel(jobs):
    (jobs / "__pycache__").mkdir()
    (jobs / "__pycache__" / "claims.cpython-311.pyc").write_bytes(b"x")
    (jobs / ".git").mkdir()
    (jobs / ".git" / "HEAD").write_text("x")
    (jobs / "old.pyc").write_bytes(b"x")
    (jobs / "payers.lock.json").write_text("{}")

    assert names_in(pack_code(jobs)) == ["claims.py", "parts/rules.py"]


def test_the_ignore_file_names_what_else_stays_here(jobs):
    (jobs / "data").mkdir()
    (jobs / "data" / "big.csv").write_text("x")
    (jobs / ".ephemeralignore").write_text("# samples\ndata/\nparts/*.py\n")

    assert names_in(pack_code(jobs)) == ["claims.py"]


@pytest.mark.parametrize(("make", "message"), [(False, "no such folder"), (True, "no files")])
def test_a_folder_without_code_is_named(tmp_path, make, message):
    folder = tmp_path / "none"
    if make:
        folder.mkdir()

    with pytest.raises(ConfigurationError, match=f"{message}|{folder}.*{message}"):
        pack_code(folder)


def test_a_link_to_nowhere_is_named(jobs):
    (jobs / "lost.py").symlink_to("nowhere.py")

    with pytest.raises(ConfigurationError, match=r"lost\.py cannot be read"):
        pack_code(jobs)


def test_code_is_uploaded_once(store, jobs):
    first = push_code(store, "jobs/", jobs)
    second = push_code(store, "jobs/", jobs)

    assert (first.is_new, second.is_new) == (True, False)
    assert store.read(code_key("test", first.facts.sha256)) == pack_code(jobs).body


def test_a_dry_run_uploads_nothing(store, jobs):
    found = push_code(store, "jobs/", jobs, is_dry_run=True)

    assert found.is_new
    assert not store.exists(code_key("test", found.facts.sha256))


def test_a_missing_bucket_is_named_even_by_a_dry_run(s3, jobs):
    with pytest.raises(BucketError, match="no-such-bucket"):
        push_code(JobStore(s3, "no-such-bucket", "test"), "jobs/", jobs, is_dry_run=True)


def test_a_lock_file_that_says_the_same_is_left_alone(tmp_path):
    path = tmp_path / "payers.lock.json"
    lock = LockFile(code={"jobs/": CodeFacts(sha256="a" * 64, size_bytes=1)})

    assert write_lock(path, lock)
    assert not write_lock(path, lock)
    assert [entry.name for entry in tmp_path.iterdir()] == ["payers.lock.json"]


def test_changes_are_a_line_each():
    old = LockFile(code={"jobs/": CodeFacts(sha256="a" * 64, size_bytes=1)})
    new = LockFile(
        code={
            "jobs/": CodeFacts(sha256="b" * 64, size_bytes=2),
            "more/": CodeFacts(sha256="c" * 64, size_bytes=3),
        }
    )

    assert [line.partition(":")[0] for line in describe_changes(old, new)] == [
        "~ code jobs/",
        "+ code more/",
    ]
    assert describe_changes(new, new) == []

"""A table version is parsed once per process, and an edit always counts."""

import os
import shutil
import threading
import time

import pytest

from airflow_ephemeral_ec2.config_table.cache import KEPT, TableCache
from airflow_ephemeral_ec2.exceptions import TableError

OLD = time.time() - 3600


@pytest.fixture
def cache():
    return TableCache()


@pytest.fixture
def table(write):
    path = write()
    os.utime(path, (OLD, OLD))
    return path


def test_a_version_is_parsed_once(cache, table):
    assert cache.load(table) is cache.load(str(table))


@pytest.mark.parametrize("seconds", [0, 1], ids=["same time", "a second later"])
def test_an_edit_counts_whatever_its_time_stamp(cache, table, seconds):
    first = cache.load(table)

    table.write_text(table.read_text().replace("vcpus: 96", "vcpus: 128"))
    os.utime(table, (OLD + seconds, OLD + seconds))

    assert (first.limits.vcpus, cache.load(table).limits.vcpus) == (96, 128)


def test_an_edit_of_the_same_size_within_one_tick_of_the_clock_counts(cache, table):
    """Only versions that have settled are kept."""
    table.write_text(table.read_text())
    stamp = table.stat().st_mtime_ns
    cache.load(table)

    table.write_text(table.read_text().replace("vcpus: 96", "vcpus: 97"))
    os.utime(table, ns=(stamp, stamp))

    assert cache.load(table).limits.vcpus == 97


def test_a_file_put_in_its_place_counts_though_size_and_time_are_the_same(cache, table):
    cache.load(table)
    other = table.with_name("other.yaml")
    other.write_text(table.read_text().replace("vcpus: 96", "vcpus: 95"))
    os.utime(other, (OLD, OLD))

    other.replace(table)

    assert cache.load(table).limits.vcpus == 95


def test_what_push_writes_counts(cache, table):
    cache.load(table)
    lock = table.with_name("payers.lock.json")
    lock.write_text(
        '{"version": 1, "instance_types": {"m7i.large": {"vcpus": 2, "memory_mib": 8192, "architecture": "x86_64"}}}'
    )
    os.utime(lock, (OLD, OLD))

    found = cache.load(table)
    assert found.lock.instance_types["m7i.large"].vcpus == 2

    lock.unlink()
    assert cache.load(table).lock.instance_types == {}


def test_the_limits_beside_a_csv_count(cache, folder):
    path = folder / "payers.csv"
    path.write_text(
        "payer,job,instance_types,command,ami,subnets,security_groups,instance_profile,region\n"
        "acme,member,m7i.large,true,ami-1,subnet-1,sg-1,p,us-east-1\n"
    )
    os.utime(path, (OLD, OLD))
    assert cache.load(path).limits.vcpus is None
    beside = folder / "payers.limits.yaml"
    beside.write_text("limits: {vcpus: 8}\n")
    os.utime(beside, (OLD, OLD))

    assert cache.load(path).limits.vcpus == 8


def test_a_wrong_table_is_read_again_each_time(cache, table):
    shutil.rmtree(table.with_name("jobs"))
    with pytest.raises(TableError, match="no such folder"):
        cache.load(table)

    table.with_name("jobs").mkdir()

    assert cache.load(table).payers == ("acme", "pea")


def test_a_table_that_became_wrong_is_not_served_from_memory(cache, table):
    cache.load(table)
    table.unlink()

    with pytest.raises(TableError, match="no such file"):
        cache.load(table)


@pytest.mark.parametrize("path", ["", "/", "payers.txt", "s3://b/payers.yaml", "nul\0.yaml"])
def test_what_is_no_table_is_said_as_ever(cache, path):
    with pytest.raises(TableError):
        cache.load(path)


def test_threads_share_one_parse(cache, table):
    found = []
    threads = [threading.Thread(target=lambda: found.append(cache.load(table))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len({id(one) for one in found}) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_parses_can_parse(cache, table):
    cache._lock.acquire()  # as another thread would hold it
    child = os.fork()
    if child == 0:
        found = cache._lock.acquire(blocking=False)
        os._exit(0 if found else 1)
    cache._lock.release()

    assert os.waitpid(child, 0)[1] == 0


def test_only_some_tables_are_kept(cache, table):
    copies = [table.with_name(f"copy{n}.yaml") for n in range(KEPT + 1)]
    for copy in copies:
        shutil.copy2(table, copy)
    first = cache.load(copies[0])
    for copy in copies[1:]:
        cache.load(copy)

    assert cache.load(copies[0]) is not first
    assert cache.load(copies[-1]) is cache.load(copies[-1])

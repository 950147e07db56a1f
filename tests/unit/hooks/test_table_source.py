"""A table may lie in S3, with its lock file beside it."""

import pytest

from airflow_ephemeral_ec2.exceptions import ConfigurationError, TableError
from airflow_ephemeral_ec2.hooks.table_source import read_table


@pytest.fixture
def store(moto_store):
    """The bucket that the client of the table sees."""
    return moto_store


def put(store, key, body):
    store.write_new(key, body.encode())
    return f"s3://{store.bucket}/{key}"


def test_a_table_in_s3_is_read_with_its_lock_file(store, s3, table):
    uri = put(store, "tables/payers.yaml", table.read_text())
    put(store, "tables/payers.lock.json", table.with_suffix(".lock.json").read_text())

    found = read_table(uri, lambda: s3)

    assert found.payers == ("acme",)
    assert found.lock.instance_types["m7i.large"].vcpus == 2


def test_an_edited_object_counts_at_once(store, s3, table):
    uri = put(store, "payers.yaml", table.read_text())
    before = read_table(uri, lambda: s3).sha256

    s3.put_object(Bucket=store.bucket, Key="payers.yaml", Body=table.read_text() + "\n# new\n")

    assert read_table(uri, lambda: s3).sha256 != before


def test_a_missing_object_is_named(store, s3):
    with pytest.raises(TableError, match=r"s3://.*/nope.yaml.*no such object"):
        read_table(f"s3://{store.bucket}/nope.yaml", lambda: s3)


def test_a_broken_lock_file_says_what_to_do(store, s3, table):
    uri = put(store, "payers.yaml", table.read_text())
    put(store, "payers.lock.json", "{")

    with pytest.raises(ConfigurationError, match=r"payers.lock.json: not a lock file. Run"):
        read_table(uri, lambda: s3)


def test_a_file_needs_no_client(table):
    def never():
        raise AssertionError

    assert read_table(str(table), never).payers == ("acme",)

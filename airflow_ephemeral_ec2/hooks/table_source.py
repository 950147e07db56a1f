"""Read a config table from a file or from an ``s3://`` object, with its lock file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.config_table import (
    ConfigTable,
    load_cached_table,
    load_table_text,
    name_companion,
)
from airflow_ephemeral_ec2.exceptions import ConfigurationError, Problem, TableError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, error_code
from airflow_ephemeral_ec2.model.spec import LockFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client


def read_table(path: str, s3: Callable[[], S3Client]) -> ConfigTable:
    """
    Read a table as it is now.

    :param path: a file's path, or ``s3://bucket/key.yaml``
    :param s3: makes the client; only called for an ``s3://`` table
    :raises TableError: with every problem
    :raises AwsError: S3 could not be asked
    """
    if not path.startswith("s3://"):
        return load_cached_table(path)
    client = s3()
    data = _read_object(client, path)
    if data is None:
        raise TableError((Problem(path, 0, "", "no such object"),))
    companion = _read_object(client, name_companion(path)) if path.endswith(".csv") else None
    lock_path = path.rsplit(".", 1)[0] + ".lock.json"
    lock = _read_object(client, lock_path)
    try:
        facts = LockFile.model_validate_json(lock) if lock else LockFile()
    except ValueError as error:
        msg = f"{lock_path}: not a lock file. Run: ephemeral-ec2 push, and upload it again."
        raise ConfigurationError(msg) from error
    return load_table_text(data, path, companion=companion, lock=facts)


def _read_object(s3: S3Client, uri: str) -> bytes | None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with aws_call(f"read {uri}", bucket=bucket):
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                return None
            raise

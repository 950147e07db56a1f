"""What the reaper remembers in the bucket, and what it reads of the bucket's own rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, error_code
from airflow_ephemeral_ec2.hooks.bucket import CHECKSUM
from airflow_ephemeral_ec2.model.reap import Sightings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_ephemeral_ec2.hooks.bucket import Bucket


class ReaperStore:
    """
    The reaper's own objects of one environment, below ``{env}/reaper/``.

    Rubbish in them counts as nothing seen: that costs one more pass and never ends anything.
    """

    def __init__(self, bucket: Bucket, environment: str) -> None:
        self._bucket = bucket
        self._prefix = f"{environment}/reaper/"

    def read_sightings(self, region: str) -> Sightings | None:
        """Return what the last pass over a region saw."""
        body = self._bucket.read(f"{self._prefix}{region}.json")
        try:
            return None if body is None else Sightings.model_validate_json(body)
        except ValidationError:
            return None

    def write_sightings(self, region: str, sightings: Sightings) -> None:
        """Remember what a pass saw; the last writer wins."""
        self._write(f"{region}.json", sightings.model_dump_json().encode())

    def read_abandoned(self) -> Collection[str]:
        """Return the names of the attempts whose task was over at the last pass."""
        body = self._bucket.read(f"{self._prefix}abandoned.json") or b"[]"
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return ()
        return [str(name) for name in found] if isinstance(found, list) else ()

    def write_abandoned(self, names: tuple[str, ...]) -> None:
        self._write("abandoned.json", json.dumps(names).encode())

    def tell_once(self, name: str) -> bool:
        """Say whether nobody was told yet that an attempt waits too long; the next call says no."""
        return self._bucket.write_new(f"{self._prefix}told/{name}", b"{}")

    def read_lifecycle(self) -> list[Mapping[str, Any]]:
        """
        Return the bucket's lifecycle rules, as S3 gives them.

        :raises AwsError: no permission (s3:GetLifecycleConfiguration), or S3 cannot be asked
        """
        with aws_call("s3:GetBucketLifecycleConfiguration", bucket=self._bucket.bucket):
            try:
                answer = self._bucket.s3.get_bucket_lifecycle_configuration(
                    Bucket=self._bucket.bucket
                )
            except ClientError as error:
                if error_code(error) == "NoSuchLifecycleConfiguration":
                    return []
                raise
        return list(answer["Rules"])

    def _write(self, name: str, body: bytes) -> None:
        key = self._prefix + name
        with aws_call(f"write s3://{self._bucket.bucket}/{key}", bucket=self._bucket.bucket):
            self._bucket.s3.put_object(
                Bucket=self._bucket.bucket, Key=key, Body=body, ChecksumAlgorithm=CHECKSUM
            )

"""Objects of one bucket: conditional writes, and the bucket's own clock."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import ClientError
from pydantic import ValidationError

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, error_code, http_status
from airflow_ephemeral_ec2.hooks.clock import BucketClock
from airflow_ephemeral_ec2.model.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

log = logging.getLogger(__name__)
_Model = TypeVar("_Model", bound=Spec)

MAX_DOCUMENT_BYTES = 16 << 20
"""Nothing that we write as JSON is nearly as large; what is larger is somebody else's."""
CHECKSUM: Final = "SHA256"
"""Asked for by name: buckets with Object Lock refuse a write without one, and boto3 leaves it out
where ``request_checksum_calculation`` says so (S3 user guide, "Object Lock considerations")."""


class Bucket:
    """
    One bucket.

    :raises AccessError: no permission
    :raises BucketError: no such bucket, or an object in it is not ours to read
    :raises AwsUnavailableError: S3 cannot be asked now
    """

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.clock = BucketClock()

    def read(self, key: str) -> bytes | None:
        """Read an object; None when there is none."""
        found = self.read_tagged(key)
        return None if found is None else found[0]

    def read_document(self, key: str) -> bytes | None:
        """Read an object that others may have written; one too large to be ours reads as empty."""
        found = self.read_tagged(key, MAX_DOCUMENT_BYTES)
        return None if found is None else found[0]

    def read_tagged(self, key: str, limit_bytes: int | None = None) -> tuple[bytes, str] | None:
        """Read an object and its ETag; the body of one over the limit is left where it is."""
        with aws_call(f"read s3://{self.bucket}/{key}", bucket=self.bucket):
            try:
                answer = self.s3.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if error_code(error) == "NoSuchKey":
                    # The first answer in a new environment: the host's clock must not date it.
                    self.observe(error.response)
                    return None
                raise
            self.observe(answer)
            if limit_bytes is not None and answer["ContentLength"] > limit_bytes:
                log.error("s3://%s/%s: %d bytes", self.bucket, key, answer["ContentLength"])
                answer["Body"].close()
                return b"", answer["ETag"]
            return answer["Body"].read(), answer["ETag"]

    def exists(self, key: str) -> bool:
        with aws_call(f"look for s3://{self.bucket}/{key}", bucket=self.bucket):
            try:
                self.observe(self.s3.head_object(Bucket=self.bucket, Key=key))
            except ClientError as error:
                if http_status(error) == 404:
                    return False
                raise
        return True

    def write_new(self, key: str, body: bytes, content_type: str = "application/json") -> bool:
        """Write an object that must not exist yet; False when it does (first writer wins)."""
        with aws_call(f"write s3://{self.bucket}/{key}", bucket=self.bucket):
            for tries_left in reversed(range(5)):
                try:
                    answer = self.s3.put_object(
                        Bucket=self.bucket,
                        Key=key,
                        Body=body,
                        IfNoneMatch="*",
                        ContentType=content_type,
                        ChecksumAlgorithm=CHECKSUM,
                    )
                except ClientError as error:
                    if http_status(error) == 412:
                        return False
                    # 409 is a race that nobody has won yet (S3: ConditionalRequestConflict).
                    if http_status(error) != 409 or not tries_left:
                        raise
                else:
                    self.observe(answer)
                    return True
        return False

    def list_keys(self, prefix: str) -> Iterator[str]:
        for item in self._list(prefix):
            yield item["Key"]

    def list_times(self, prefix: str) -> Iterator[tuple[str, float]]:
        """List keys, and when S3 got their objects (seconds since 1970, cut off)."""
        for item in self._list(prefix):
            yield item["Key"], item["LastModified"].timestamp()

    def _list(self, prefix: str) -> Iterator[ObjectTypeDef]:
        with aws_call(f"list s3://{self.bucket}/{prefix}", bucket=self.bucket):
            pages = self.s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
                self.observe(page)
                yield from page.get("Contents", ())

    def list_folders(self, prefix: str) -> Iterator[str]:
        """List the names between ``prefix`` and the next slash."""
        with aws_call(f"list s3://{self.bucket}/{prefix}", bucket=self.bucket):
            pages = self.s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
                self.observe(page)
                for item in page.get("CommonPrefixes", ()):
                    yield item["Prefix"].removeprefix(prefix).removesuffix("/")

    def observe(self, answer: Any) -> None:  # noqa: ANN401 - every S3 answer has it
        self.clock.observe(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date"))

    def read_model(self, key: str, model: type[_Model]) -> _Model | None:
        body = self.read_document(key)
        if body is None:
            return None
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            detail = f"not a {model.__name__} of this version: {error.error_count()} errors."
            raise TamperedObjectError(f"s3://{self.bucket}/{key}", detail) from error


def read_json(body: bytes | None) -> dict[str, Any]:
    """Read an object that others may have written: what is no JSON object says nothing."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

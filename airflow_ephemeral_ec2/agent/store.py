"""The bucket, as the machine sees it: write once, read, fetch into a file."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.contract import ERROR_CODE_MISSING, ERROR_INTERNAL

if TYPE_CHECKING:
    from typing import BinaryIO

    from airflow_ephemeral_ec2.agent.aws import Aws


class Store:
    """One bucket, through the machine's own role."""

    def __init__(self, aws: Aws, bucket: str) -> None:
        self.aws, self.bucket = aws, bucket

    def put_once(self, key: str, body: bytes, patience: float) -> bool:
        """Write unless the key exists; False says that it did (412).

        Raises:
            Failure: refused, or S3 could not be reached for ``patience`` seconds.

        """
        # A bucket with Object Lock takes nothing without a checksum and its name.
        headers = {
            "if-none-match": "*",
            "x-amz-checksum-sha256": b64encode(sha256(body).digest()).decode(),
            "x-amz-sdk-checksum-algorithm": "SHA256",
        }
        answer = self.aws.ask("s3", "PUT", self._url(key), headers, body, patience=patience)
        if answer.status == 404:
            raise Failure(ERROR_INTERNAL, f"there is no bucket {self.bucket}")
        return answer.status != 412

    def get(self, key: str, patience: float) -> bytes:
        """Return an object of at most 64 KiB; empty if it does not exist."""
        answer = self.aws.ask("s3", "GET", self._url(key), {}, patience=patience)
        return b"" if answer.status == 404 else answer.body

    def fetch(self, key: str, file: BinaryIO, patience: float) -> str:
        """Copy an object into a file; return its sha256.

        Raises:
            Failure: there is no such object, or as in ``put_once``.

        """
        answer = self.aws.ask("s3", "GET", self._url(key), {}, patience=patience, sink=file)
        if answer.status == 404:
            raise Failure(ERROR_CODE_MISSING, f"s3://{self.bucket}/{key} does not exist")
        file.seek(0)
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        file.seek(0)
        return digest.hexdigest()

    def _url(self, key: str) -> str:
        path = quote(key, safe="/-_.~")
        if self.aws.endpoint or "." in self.bucket:
            return "/".join((self.aws.url("s3"), self.bucket, path))
        return self.aws.url(self.bucket + ".s3") + "/" + path

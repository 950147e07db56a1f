"""The payer's part of the data bucket: what came in, and the datasets made of it.

Raw files lie under ``incoming/<payer>/<date>/``. Every dataset has one Parquet file per business
date, ``payers/<payer>/<dataset>/date=<date>/part-0.parquet``; a second run of a date overwrites
it with the same rows.
"""

import io
import os

import boto3
import polars as pl
from botocore.config import Config
from botocore.exceptions import ClientError
from endings import MissingInput


def s3_client():
    """Make the S3 client; ``AWS_ENDPOINT_URL`` may point at a local server (path-style keys)."""
    style = "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"
    return boto3.client(
        "s3",
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
        config=Config(
            s3={"addressing_style": style},
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 5},
        ),
    )


class DataBucket:
    """One payer's files in the bucket, seen from one business date."""

    def __init__(self, client, *, name, payer, date):
        self._client = client
        self._name = name
        self._payer = payer
        self.date = date

    def incoming(self, *suffixes):
        """Fetch the raw files of the business date by name, ``{file name: bytes}``, sorted."""
        prefix = f"incoming/{self._payer}/{self.date}/"
        keys = sorted(key for key in self._keys(prefix) if key.endswith(suffixes or ""))
        return {key.removeprefix(prefix): self._get(key) for key in keys}

    def anything_came_in(self):
        return any(True for _ in self._keys(f"incoming/{self._payer}/{self.date}/"))

    def dates(self, dataset):
        """List the business dates, oldest first, that have this dataset, up to this date."""
        prefix = f"payers/{self._payer}/{dataset}/date="
        found = {key.removeprefix(prefix).partition("/")[0] for key in self._keys(prefix)}
        return sorted(date for date in found if date <= self.date)

    def earlier(self, dataset):
        """List the business dates before this one that have the dataset, oldest first."""
        return [date for date in self.dates(dataset) if date < self.date]

    def read(self, dataset, date=None, columns=None):
        """Read one date of a dataset.

        Raises
        ------
        MissingInput
            The dataset was never written for that date: the job before this one did not run.
        """
        date = date or self.date
        key = self._part(dataset, date)
        try:
            body = self._get(key)
        except ClientError:
            # S3 says 403 for a key that is not there to a role that may list only by prefix.
            if date in self.dates(dataset):
                raise
            message = f"{key} does not exist; run the job that makes it first"
            raise MissingInput(message) from None
        return pl.read_parquet(io.BytesIO(body), columns=columns)

    def write(self, dataset, frame):
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", compression_level=1)
        self._client.put_object(
            Bucket=self._name, Key=self._part(dataset, self.date), Body=buffer.getvalue()
        )

    def _part(self, dataset, date):
        return f"payers/{self._payer}/{dataset}/date={date}/part-0.parquet"

    def _get(self, key):
        return self._client.get_object(Bucket=self._name, Key=key)["Body"].read()

    def _keys(self, prefix):
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._name, Prefix=prefix):
            yield from (item["Key"] for item in page.get("Contents", ()))

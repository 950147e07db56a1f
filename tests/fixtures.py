"""Fixtures that many tests share; each makes one thing."""

import functools
import os
import uuid

import boto3
import botocore.session
import pytest
from hypothesis import settings
from moto import mock_aws
from moto.core.base_backend import BaseBackend
from moto.s3.models import S3Backend

from airflow_ephemeral_ec2.hooks.ec2 import connect
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.plan import LaunchFacts, LaunchRecord, plan_launch
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts, JobSpec
from tests.example_row import SPEC

# To parse the models of AWS's services anew is nearly all that a new session's client takes.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# moto reads the file of S3's addresses twice for each request, should a setting have changed.
S3Backend._url_module = BaseBackend._url_module

# Laws are tried with few examples each time, and with many every night. ``-m hypothesis`` selects them.
settings.register_profile("ordinary", max_examples=15, deadline=None)
settings.register_profile("nightly", max_examples=1_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))


@pytest.fixture
def make_spec():
    def make(**changes) -> JobSpec:
        return JobSpec.model_validate(SPEC | changes)

    return make


@pytest.fixture
def make_record(make_spec):
    def make(
        *,
        attempt: int = 1,
        supersedes: int | None = None,
        jobkey: str = "0" * 40,
        run_key: str = "",
        epoch: str = "e1",
        architecture: str = "x86_64",
        may_retry: bool = True,
        array_index: int = 0,
        data_devices: tuple[str, ...] = (),
        **changes,
    ) -> LaunchRecord:
        spec = make_spec(**changes)
        sizes = {"large": 2, "xlarge": 4, "16xlarge": 64}
        facts = LaunchFacts(
            environment="test",
            bucket="records",
            jobkey=jobkey,
            run_key=run_key,
            attempt=attempt,
            supersedes=supersedes,
            nonce="ab" * 16,
            epoch=epoch,
            identity=TaskIdentity("payer_acme", "manual__1", "claims"),
            business_date="2026-03-01",
            requested_at=1000.0,
            image_id="ami-0123456789abcdef0",
            image=ImageFacts(
                architecture=architecture, root_device="/dev/xvda", data_devices=data_devices
            ),
            instance_types={
                name: InstanceFacts(
                    vcpus=sizes[name.split(".")[1]], memory_mib=8192, architecture="x86_64"
                )
                for name in spec.instance_types
            },
            code_sha256=None,
            agent="def main(blob, sha): pass\n",
            table_version="t1",
            may_retry=may_retry,
            array_index=array_index,
        )
        return plan_launch(spec, facts)

    return make


@pytest.fixture(scope="session")
def s3():
    """One S3 for all tests; making a client is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with mock_aws():
            yield boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def moto_store(s3):
    """An empty bucket of record; its conditional writes are moto's own."""
    bucket = f"records-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    return JobStore(s3, bucket, "test")


@pytest.fixture
def store(moto_store):
    return moto_store


@pytest.fixture(scope="session")
def connection(s3):
    """An Airflow connection to that AWS; making its clients is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://testkey:testsecret@/?region_name=us-east-1")
        yield connect("aws_default", "us-east-1")


@pytest.fixture
def deployment(connection, store, monkeypatch):
    """Airflow's settings for the bucket of this test."""
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__ENVIRONMENT", store.environment)
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__BUCKET", store.bucket)
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__REGION", "us-east-1")
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__POLL_INTERVAL", "0.2")
    return connection

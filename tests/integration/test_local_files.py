"""The local EC2 tells SQS of files that land in S3, as AWS does."""

import json

import pytest
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.hooks.file_queue import FileQueue
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.landing import read_events

LANDING = "landing"


@pytest.fixture(scope="module")
def cloud():
    queues = {"acme-files": f"{LANDING}/acme/", "pea-files": f"{LANDING}/pea/"}
    with local_ec2({"file_queues": queues}) as running:
        yield running


@pytest.fixture
def queue(cloud):
    sqs = cloud.client("sqs")
    url = sqs.get_queue_url(QueueName="acme-files")["QueueUrl"]
    assert url.startswith(cloud.url)
    made = FileQueue(sqs, url)
    made.delete(one.receipt for one in made.receive(0))  # S3's test event, and earlier tests'
    return made


def read_keys(queue, wait_seconds=0):
    messages = queue.receive(wait_seconds)
    queue.delete(one.receipt for one in messages)
    return [(event.key, event.size) for one in messages for event in read_events(one.body)]


def test_a_file_below_the_prefix_is_told_to_its_queue_alone(cloud, queue):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=LANDING, Key="pea/members.csv", Body=b"x")
    s3.put_object(Bucket=LANDING, Key="acme/new members+1.csv", Body=b"four")

    assert read_keys(queue) == [("acme/new members+1.csv", 4)]


def test_an_upload_in_parts_is_told_when_it_is_complete(cloud, queue):
    s3 = cloud.client("s3")
    key = {"Bucket": LANDING, "Key": "acme/large.csv"}
    upload = {**key, "UploadId": s3.create_multipart_upload(**key)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=b"part")

    assert read_keys(queue) == []

    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    # Twice in moto, once in S3; whoever reads must know duplicates anyway.
    assert set(read_keys(queue)) == {("acme/large.csv", 4)}


def test_what_is_received_stays_until_it_is_deleted(cloud, queue):
    cloud.client("s3").put_object(Bucket=LANDING, Key="acme/a.csv", Body=b"x")
    sqs = cloud.client("sqs")

    [message] = queue.receive(0)
    assert queue.receive(0) == ()
    sqs.change_message_visibility(
        QueueUrl=queue.url, ReceiptHandle=message.receipt, VisibilityTimeout=0
    )

    assert read_keys(queue) == [("acme/a.csv", 1)]


def test_a_machine_may_use_a_queue_only_if_its_role_says_so(cloud, queue):
    iam, sts = cloud.client("iam"), cloud.client("sts")
    everybody = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
    iam.create_role(
        RoleName="reader", AssumeRolePolicyDocument=json.dumps({"Statement": [everybody]})
    )
    allowed = {
        "Effect": "Allow",
        "Action": "sqs:ReceiveMessage",
        "Resource": f"arn:aws:sqs:us-east-1:{cloud.account}:acme-files",
    }
    iam.put_role_policy(
        RoleName="reader",
        PolicyName="read",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    role = f"arn:aws:iam::{cloud.account}:role/reader"
    keys = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    sqs = cloud.client(
        "sqs",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )

    sqs.receive_message(QueueUrl=queue.url)
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.receive_message(QueueUrl=queue.url.replace("acme", "pea"))


def test_seeding_again_keeps_the_queues_of_a_bucket(cloud, queue):
    cloud.seed(file_queues={"umbra-files": f"{LANDING}/umbra/"})
    cloud.client("s3").put_object(Bucket=LANDING, Key="acme/again.csv", Body=b"x")

    assert ("acme/again.csv", 1) in read_keys(queue)

"""The benchmarks' fake AWS answers boto3 as AWS does, or its numbers would mean nothing."""

import json
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.model.sweep import find_launch_minutes
from benchmarks.endpoint.throttle import EC2_BUCKETS
from benchmarks.endpoint_process import BUCKET, fake_aws

ONE_TRY = Config(retries={"total_max_attempts": 1})


@pytest.fixture(scope="module")
def shared():
    with fake_aws() as endpoint:
        yield endpoint


@pytest.fixture
def own():
    with fake_aws() as endpoint:
        yield endpoint


def client(endpoint, service):
    return boto3.client(
        service,
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="s",
        config=ONE_TRY,
    )


def launch(ec2, token, **tags):
    return ec2.run_instances(
        ImageId="ami-1",
        InstanceType="m7i.large",
        MinCount=1,
        MaxCount=1,
        ClientToken=token,
        SubnetId="subnet-1",
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )["Instances"][0]


def lay(endpoint, tmp_path, count, **more):
    endpoint.load(
        tmp_path / "load.jsonl",
        [
            {
                "instance_id": f"i-{number:017x}",
                "instance_type": "m7i.large",
                "subnet": "subnet-1",
                "token": f"t{number}",
                "tags": {"fleet": "a", "number": str(number)},
            }
            | more
            for number in range(count)
        ],
    )


def refusal_of(ec2, token):
    try:
        launch(ec2, token)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def code_of(refusal):
    return refusal.value.response["Error"]["Code"]


# -- S3 ------------------------------------------------------------------------------------


def test_first_writer_wins(shared):
    s3 = client(shared, "s3")
    etag = s3.put_object(Bucket=BUCKET, Key="first", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as refusal:
        s3.put_object(Bucket=BUCKET, Key="first", Body=b"2", IfNoneMatch="*")
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    answer = s3.get_object(Bucket=BUCKET, Key="first")
    assert (answer["Body"].read(), answer["ETag"]) == (b"1", etag)


def test_compare_and_set(shared):
    s3 = client(shared, "s3")
    old = s3.put_object(Bucket=BUCKET, Key="state", Body=b"1")["ETag"]
    new = s3.put_object(Bucket=BUCKET, Key="state", Body=b"2", IfMatch=old)["ETag"]
    with pytest.raises(ClientError) as refusal:
        s3.put_object(Bucket=BUCKET, Key="state", Body=b"3", IfMatch=old)
    assert code_of(refusal) == "PreconditionFailed"
    assert s3.head_object(Bucket=BUCKET, Key="state")["ETag"] == new
    assert s3.get_object(Bucket=BUCKET, Key="state")["Body"].read() == b"2"


def test_what_is_not_there(shared):
    s3 = client(shared, "s3")
    with pytest.raises(ClientError) as refusal:
        s3.get_object(Bucket=BUCKET, Key="nothing")
    assert code_of(refusal) == "NoSuchKey"
    with pytest.raises(ClientError) as refusal:
        s3.put_object(Bucket=BUCKET, Key="nothing", Body=b"", IfMatch='"0"')
    assert code_of(refusal) == "NoSuchKey"
    with pytest.raises(ClientError) as refusal:
        s3.head_object(Bucket=BUCKET, Key="nothing")
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    s3.delete_object(Bucket=BUCKET, Key="nothing")


def test_a_listing_has_pages_and_forgets_what_is_deleted(shared, tmp_path):
    keys = [f"many/{number:04d} +ü.json" for number in range(2_500)]
    shared.load(tmp_path / "load.jsonl", [{"key": key, "body": "x"} for key in keys])
    s3 = client(shared, "s3")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="many/"))
    assert [page["KeyCount"] for page in pages] == [1_000, 1_000, 500]
    assert [item["Key"] for page in pages for item in page["Contents"]] == keys
    for key in keys[5:]:
        s3.delete_object(Bucket=BUCKET, Key=key)
    left = s3.list_objects_v2(Bucket=BUCKET, Prefix="many/", MaxKeys=3)
    assert ([item["Key"] for item in left["Contents"]], left["IsTruncated"]) == (keys[:3], True)


def test_answers_carry_the_time(shared):
    answer = client(shared, "s3").list_objects_v2(Bucket=BUCKET, Prefix="none/")
    stamp = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    seen = time.mktime(time.strptime(stamp, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(seen - time.time()) < 3


# -- EC2 -----------------------------------------------------------------------------------


def test_the_same_token_gives_the_same_instance(shared):
    ec2 = client(shared, "ec2")
    first, again = launch(ec2, "token-1", job="x"), launch(ec2, "token-1", job="x")
    other = launch(ec2, "token-2", job="x")
    assert first["InstanceId"] == again["InstanceId"] != other["InstanceId"]
    assert first["Tags"] == [{"Key": "job", "Value": "x"}]
    by_token = [{"Name": "client-token", "Values": ["token-2"]}]
    found = ec2.describe_instances(Filters=by_token)["Reservations"]
    assert [r["Instances"][0]["InstanceId"] for r in found] == [other["InstanceId"]]


def test_instances_are_found_by_the_minute_of_their_launch(shared):
    ec2 = client(shared, "ec2")
    made = launch(ec2, "token-minute", job="y")

    for minutes, is_found in (
        (find_launch_minutes([made["LaunchTime"].timestamp()]), True),
        (find_launch_minutes([made["LaunchTime"].timestamp() - 3_600]), False),
    ):
        filters = [
            {"Name": "launch-time", "Values": minutes},
            {"Name": "client-token", "Values": ["token-minute"]},
        ]
        found = ec2.describe_instances(Filters=filters)["Reservations"]
        assert bool(found) is is_found


def test_pages_of_instances_hold_each_once(own, tmp_path):
    lay(own, tmp_path, 2_345)
    ec2 = client(own, "ec2")
    pages = list(
        ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1_000})
    )
    assert [len(page["Reservations"]) for page in pages] == [1_000, 1_000, 345]
    ids = {r["Instances"][0]["InstanceId"] for page in pages for r in page["Reservations"]}
    assert len(ids) == 2_345
    assert own.calls() == {"ec2:DescribeInstances": 3}


def test_filters(own, tmp_path):
    lay(own, tmp_path, 20)
    ec2 = client(own, "ec2")

    def find(**filters):
        listed = [{"Name": name, "Values": values} for name, values in filters.items()]
        found = ec2.describe_instances(Filters=listed)["Reservations"]
        return {r["Instances"][0]["InstanceId"] for r in found}

    assert find(**{"tag:number": ["3", "5"]}) == {f"i-{3:017x}", f"i-{5:017x}"}
    assert find(**{"tag:fleet": ["a"], "instance-id": [f"i-{7:017x}"]}) == {f"i-{7:017x}"}
    assert find(**{"tag:number": ["1?"]}) == {f"i-{number:017x}" for number in range(10, 20)}
    assert find(**{"tag:fleet": ["b"]}) == set()
    assert len(find(**{"instance-state-name": ["running"]})) == 20
    assert find(**{"instance-state-name": ["terminated"]}) == set()


def test_what_it_does_not_know_is_an_error_and_not_an_empty_answer(shared):
    ec2 = client(shared, "ec2")
    with pytest.raises(ClientError) as refusal:
        ec2.describe_instances(Filters=[{"Name": "vpc-id", "Values": ["x"]}])
    assert code_of(refusal) == "InvalidParameterValue"
    with pytest.raises(ClientError) as refusal:
        ec2.describe_instances(InstanceIds=["i-00000000000000000"])
    assert code_of(refusal) == "InvalidInstanceID.NotFound"
    with pytest.raises(ClientError) as refusal:
        ec2.describe_volumes()
    assert code_of(refusal) == "InvalidAction"


def test_an_instance_dies_in_steps_after_it_has_reported(own, tmp_path):
    own.ask("pace", shutting_down_seconds=0.3, pending_seconds=0)
    lay(own, tmp_path, 1)
    ec2, name = client(own, "ec2"), f"i-{0:017x}"
    own.ask("die", deaths=[{"after": 0, "name": name, "objects": {"report": "done"}}])

    def look():
        return ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]

    seen, until = [look()], time.monotonic() + 10
    assert client(own, "s3").get_object(Bucket=BUCKET, Key="report")["Body"].read() == b"done"
    while seen[-1]["State"]["Name"] != "terminated":
        assert time.monotonic() < until
        seen.append(look())
    assert {i["State"]["Name"] for i in seen} <= {"running", "shutting-down", "terminated"}
    assert seen[-1]["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert "SubnetId" not in seen[-1]
    assert 0 <= time.monotonic() - own.ask("deaths")["at"][name] < 10


def test_terminate_names_a_person_as_the_reason(own):
    own.ask("pace", shutting_down_seconds=0, pending_seconds=0)
    ec2 = client(own, "ec2")
    name = launch(ec2, "t")["InstanceId"]
    change = ec2.terminate_instances(InstanceIds=[name])["TerminatingInstances"][0]
    assert change["CurrentState"]["Name"] == "shutting-down"
    found = ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]
    assert found["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_launches_are_refused_beyond_ec2s_bucket(own):
    own.ask("throttle", buckets=EC2_BUCKETS)
    ec2, began = client(own, "ec2"), time.monotonic()
    codes = [refusal_of(ec2, f"t{number}") for number in range(12)]
    refused = codes.count("RequestLimitExceeded")
    assert refused == len(codes) - codes.count(None)
    most = 5 + 2 * (time.monotonic() - began) + 1
    assert 12 - most <= refused <= 7
    assert own.ask("counts")["refused"] == {"ec2:RunInstances": refused}
    ec2.describe_instances(MaxResults=5)


def test_a_look_at_everything_has_the_smaller_bucket(own):
    own.ask("throttle", buckets={"Describe": [100, 0], "unfiltered": [2, 0]})
    ec2 = client(own, "ec2")
    for _ in range(2):
        ec2.describe_instances()
    with pytest.raises(ClientError) as refusal:
        ec2.describe_instances()
    assert code_of(refusal) == "RequestLimitExceeded"
    ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])


# -- the peers' services -------------------------------------------------------------------


def test_tasks_and_jobs_run_until_they_end(own):
    ecs, batch = client(own, "ecs"), client(own, "batch")
    arn = "arn:aws:ecs:us-east-1:123456789012:task/bench/1"

    def look():
        task = ecs.describe_tasks(cluster="bench", tasks=[arn])["tasks"][0]
        job = batch.describe_jobs(jobs=["job-1"])["jobs"][0]
        return task["lastStatus"], job["status"]

    assert look() == ("RUNNING", "RUNNING")
    own.ask("die", deaths=[{"after": 0, "name": name} for name in (arn, "job-1")])
    until = time.monotonic() + 5
    while look() != ("STOPPED", "SUCCEEDED"):
        assert time.monotonic() < until


def test_other_services(shared):
    assert client(shared, "sts").get_caller_identity()["Account"] == "123456789012"
    parameter = client(shared, "ssm").get_parameter(Name="/ami")["Parameter"]
    assert parameter["Value"].startswith("ami-")


def test_every_action_is_counted_by_name(own):
    s3 = client(own, "s3")
    s3.put_object(Bucket=BUCKET, Key="a", Body=json.dumps({}).encode())
    s3.get_object(Bucket=BUCKET, Key="a")
    s3.head_object(Bucket=BUCKET, Key="a")
    s3.list_objects_v2(Bucket=BUCKET)
    s3.delete_object(Bucket=BUCKET, Key="a")
    client(own, "ec2").describe_instance_status(
        Filters=[{"Name": "system-status.status", "Values": ["impaired"]}]
    )
    actions = ("PutObject", "GetObject", "HeadObject", "ListObjectsV2", "DeleteObject")
    assert own.calls() == {
        **{f"s3:{action}": 1 for action in actions},
        "ec2:DescribeInstanceStatus": 1,
    }

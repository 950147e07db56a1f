"""Each kind of fault on a running local EC2, seen through plain boto3."""

import datetime as dt
import subprocess
import sys
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from airflow_ephemeral_ec2.local.testing import local_ec2

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"buckets": ["data"]}, pending=0.05, shutting_down=0.05) as cloud:
        yield cloud


@pytest.fixture
def ec2(cloud):
    yield cloud.client("ec2")
    cloud.clear_faults()
    for instance_id, state in cloud.instances().items():
        if state != "terminated":
            cloud.kill(instance_id, "host")
            cloud.wait_for_state(instance_id, "terminated")


@pytest.fixture
def launch(cloud, ec2):
    ami = cloud.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]

    def launch(**more):
        request = {
            "ImageId": ami, "InstanceType": "m7i.large", "MinCount": 1, "MaxCount": 1,
            "SubnetId": "subnet-0a1", "InstanceInitiatedShutdownBehavior": "terminate",
        }  # fmt: skip
        return ec2.run_instances(**(request | more))["Instances"]

    return launch


def code_of(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def test_capacity_by_type_and_zone(cloud, launch):
    cloud.add_fault(kind="capacity", instance_type="c7i.*", zone="us-east-1a", count=0)

    found = [
        code_of(launch, InstanceType=kind, SubnetId=subnet)
        for kind in ("c7i.large", "m7i.large")
        for subnet in ("subnet-0a1", "subnet-0b2")
    ]

    assert found == ["InsufficientInstanceCapacity", None, None, None]


def test_capacity_by_market(cloud, launch):
    cloud.add_fault(kind="capacity", market="spot", count=0)

    assert code_of(launch, InstanceMarketOptions={"MarketType": "spot"}) == (
        "InsufficientInstanceCapacity"
    )
    assert code_of(launch) is None


def test_a_quota_of_so_many_vcpus(cloud, launch, ec2):
    cloud.add_fault(limits={"vcpus": 4})
    [first], [_] = launch(), launch()

    assert code_of(launch) == "VcpuLimitExceeded"
    ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    cloud.wait_for_state(first["InstanceId"], "terminated")
    assert code_of(launch) is None


def test_a_replay_finds_its_instance_although_the_quota_is_reached(cloud, launch):
    cloud.add_fault(limits={"vcpus": 2})
    [first] = launch(ClientToken="mine")

    [again] = launch(ClientToken="mine")

    assert again["InstanceId"] == first["InstanceId"]


def test_throttling_by_ec2s_own_buckets(cloud, ec2):
    cloud.add_fault(limits={"is_throttled": True})

    codes = [code_of(ec2.reboot_instances, InstanceIds=["i-0123456789abcdef0"]) for _ in range(60)]

    assert "RequestLimitExceeded" in codes
    assert codes.index("RequestLimitExceeded") >= 50


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "throttle"}, "RequestLimitExceeded"),
        ({"kind": "quota"}, "VcpuLimitExceeded"),
        ({"kind": "quota", "market": "spot"}, "MaxSpotInstanceCountExceeded"),
        ({"kind": "error"}, "InternalError"),
        ({"kind": "expired"}, "RequestExpired"),
    ],
)
def test_a_launch_is_refused_once(cloud, launch, fault, code):
    cloud.add_fault(**fault)
    options = {"InstanceMarketOptions": {"MarketType": "spot"}} if "market" in fault else {}

    assert [code_of(launch, **options), code_of(launch, **options)] == [code, None]


def test_an_answer_that_is_lost_after_the_launch(cloud, launch):
    cloud.add_fault(kind="lost-response")
    before = len(cloud.instances())

    with pytest.raises(BotoCoreError):
        launch(ClientToken="lost")
    [again] = launch(ClientToken="lost")

    assert len(cloud.instances()) == before + 1
    assert again["InstanceId"] in cloud.instances()


def test_L35_a_request_that_is_delivered_twice_launches_one_machine_with_a_token(cloud, launch):
    """A proxy delivers RunInstances twice, with and without a client token."""
    cloud.add_fault(kind="duplicate", count=2)
    before = len(cloud.instances())

    launch(ClientToken="proxy")
    with_token = len(cloud.instances()) - before
    # boto3 makes a token of its own where none is given.
    launch()

    assert with_token == 1
    assert len(cloud.instances()) - before == 2


@pytest.mark.parametrize("kind", ["no-instances", "no-id", "two-instances", "truncated"])
def test_a_broken_answer(cloud, launch, kind):
    cloud.add_fault(kind="answer", **{"with": kind})

    if kind == "truncated":
        with pytest.raises((ResponseParserError, BotoCoreError)):
            launch()
        return
    found = launch()

    ids = [one.get("InstanceId") for one in found]
    assert {"no-instances": len(ids) == 0, "no-id": ids == [None], "two-instances": len(ids) == 2}[
        kind
    ]


def test_a_sweep_that_shows_nothing(cloud, launch, ec2):
    launch()
    cloud.add_fault(kind="answer", action="DescribeInstances", **{"with": "empty"})

    counts = [len(ec2.describe_instances()["Reservations"]) for _ in range(2)]

    assert counts[0] == 0 < counts[1]


def test_describe_fails_for_a_while(cloud, ec2):
    cloud.add_fault(kind="zone-down", count=0, lasts=0.5)

    assert code_of(ec2.describe_instances) == "InternalError"
    cloud.wait_for(lambda: code_of(ec2.describe_instances) is None, what="recovery")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (409, "ConditionalRequestConflict"),
        (412, "PreconditionFailed"),
        (503, "SlowDown"),
    ],
)
def test_s3_answers_with_an_error(cloud, ec2, status, code):
    s3 = cloud.client("s3")
    cloud.add_fault(kind="s3", status=status, key="^wanted", method="PUT")

    def put(key):
        return code_of(s3.put_object, Bucket="data", Key=key, Body=b"x")

    assert [put("other"), put("wanted"), put("wanted")] == [None, code, None]


def test_s3_takes_the_object_and_loses_the_answer(cloud, ec2):
    s3 = cloud.client("s3")
    cloud.add_fault(kind="s3-lost", key="^lost", method="PUT")
    with pytest.raises(BotoCoreError):
        s3.put_object(Bucket="data", Key="lost", Body=b"x", IfNoneMatch="*")

    assert code_of(s3.put_object, Bucket="data", Key="lost", Body=b"x", IfNoneMatch="*") == (
        "PreconditionFailed"
    )


def test_s3_is_slow(cloud, ec2):
    cloud.add_fault(kind="s3-slow", seconds=0.4)
    began = time.monotonic()

    cloud.client("s3").list_objects_v2(Bucket="data")

    assert time.monotonic() - began >= 0.4


def test_sts_refuses(cloud, ec2):
    cloud.add_fault(kind="sts")

    assert (
        code_of(
            cloud.client("sts").assume_role,
            RoleArn="arn:aws:iam::123456789012:role/any",
            RoleSessionName="me",
        )
        == "AccessDenied"
    )


def test_the_clock_of_the_answers_is_off(cloud, ec2):
    cloud.add_fault(kind="clock-skew", seconds=7_200)

    found = cloud.client("s3").list_objects_v2(Bucket="data")["ResponseMetadata"]["HTTPHeaders"]

    moment = dt.datetime.strptime(found["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=dt.UTC)
    assert moment - dt.datetime.now(dt.UTC) > dt.timedelta(hours=1)


def test_a_fault_that_hits_is_in_the_api_log(cloud, launch):
    cloud.add_fault(kind="throttle")
    code_of(launch)

    assert cloud.calls("RunInstances")[-1]["fault"]["code"] == "RequestLimitExceeded"


def test_a_file_holds_from_the_start(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text("- {kind: sts, count: 0}\n- {how: slow-boot, seconds: 3}\n")

    with local_ec2(faults=path) as cloud:
        assert [rule["action"] for rule in cloud.faults()] == ["sts:AssumeRole"]
        assert [harm["how"] for harm in cloud.harms()] == ["slow-boot"]


def test_a_wrong_file_keeps_the_server_from_starting(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text("- {kind: capcity}\n")

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "airflow_ephemeral_ec2.local",
            "--faults",
            str(path),
            "--home",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 2
    assert f"{path}: rule 1: kind: 'capcity' is not known; Did you mean 'capacity'?" in done.stderr

"""Who may do what in the local EC2: machines, jobs, and everybody else; and S3's conditions."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.contract import code_key, machine_prefix, report_key, start_lock_key
from airflow_ephemeral_ec2.local.testing import local_ec2

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
STATE, DATA = "state-bucket", "payer-data"
SEED = {
    "environment": "demo",
    "state_bucket": STATE,
    "job_roles": {
        "acme-data": {
            "bucket": DATA,
            "read": ["incoming/acme/*", "payers/acme/*"],
            "write": ["payers/acme/*"],
            "secrets": ["acme/db"],
            "parameters": ["/acme/x"],
        },
        "pea-data": {"bucket": DATA, "read": ["incoming/pea/*"], "write": ["payers/pea/*"]},
    },
}
_GIVE = """#!/usr/bin/env python3
import os, urllib.request
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "/latest/"
def ask(path, method="GET", **headers):
    request = urllib.request.Request(base + path, method=method, headers=headers)
    return urllib.request.urlopen(request).read().decode()
token = ask("api/token", "PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
path = "meta-data/iam/security-credentials/payer-machine"
print(ask(path, **{"X-aws-ec2-metadata-token": token}), flush=True)
import time; time.sleep(1000)
"""


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(SEED, pending=0) as running:
        admin = running.client("s3")
        for key in ("incoming/acme/a", "incoming/pea/b", "payers/acme/c"):
            admin.put_object(Bucket=DATA, Key=key, Body=b"x")
        admin.put_object(Bucket=STATE, Key=code_key("demo", "f" * 64), Body=b"code")
        yield running


@pytest.fixture(scope="module")
def machine(cloud):
    """Return an instance's ARN and its credentials, as its metadata service gave them."""
    ec2 = cloud.client("ec2")
    image = cloud.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
    instance_id = ec2.run_instances(
        ImageId=image, InstanceType="m7i.large", MinCount=1, MaxCount=1, UserData=_GIVE,
        IamInstanceProfile={"Name": "payer-machine"},
    )["Instances"][0]["InstanceId"]  # fmt: skip

    def console():
        return ec2.get_console_output(InstanceId=instance_id)["Output"]

    cloud.wait_for(lambda: "}" in console())
    found = json.loads(console())
    arn = f"arn:aws:ec2:us-east-1:{cloud.account}:instance/{instance_id}"
    return arn, {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["Token"],
    }


def _assume(cloud, credentials, role, seconds=900):
    sts = cloud.client("sts", **credentials)
    arn = f"arn:aws:iam::{cloud.account}:role/{role}"
    found = sts.assume_role(RoleArn=arn, RoleSessionName="job", DurationSeconds=seconds)
    given = found["Credentials"]
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }


@pytest.fixture(scope="module")
def job(cloud, machine):
    return cloud.client("s3", **_assume(cloud, machine[1], "acme-data"))


def _code(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "allowed"


# -- the machine ------------------------------------------------------------------------------


def test_a_machine_writes_its_own_report_once(cloud, machine):
    arn, keys = machine
    s3 = cloud.client("s3", **keys)
    given = {"Bucket": STATE, "Key": report_key("demo", arn), "Body": b"{}", "IfNoneMatch": "*"}

    assert _code(s3.put_object, **given) == "allowed"
    assert _code(s3.put_object, **given) == "PreconditionFailed"


@pytest.mark.parametrize(
    "key",
    [
        report_key("demo", "arn:aws:ec2:us-east-1:123456789012:instance/i-other"),
        report_key("other", "{arn}"),
        "demo/jobs/x/a1/outcome.json",
        "demo/queue/x-a1.json",
        "demo/code/x.tar.gz",
        machine_prefix("demo", "{arn}").rstrip("/") + "b/report.json",
    ],
)
def test_a_machine_writes_nowhere_else(cloud, machine, key):
    arn, keys = machine
    s3 = cloud.client("s3", **keys)

    place = key.replace("{arn}", arn)
    assert (
        _code(s3.put_object, Bucket=STATE, Key=place, Body=b"", IfNoneMatch="*") == "AccessDenied"
    )


def test_a_machine_takes_a_start_lock_once_and_reads_it(cloud, machine):
    s3 = cloud.client("s3", **machine[1])
    key = start_lock_key("demo", "abc", 1, "0" * 32)

    assert _code(s3.put_object, Bucket=STATE, Key=key, Body=b"1", IfNoneMatch="*") == "allowed"
    assert _code(s3.put_object, Bucket=STATE, Key=key, Body=b"2", IfNoneMatch="*") == (
        "PreconditionFailed"
    )
    assert _code(s3.put_object, Bucket=STATE, Key=key, Body=b"2") == "AccessDenied"
    assert s3.get_object(Bucket=STATE, Key=key)["Body"].read() == b"1"


def test_a_machine_reads_code_and_gets_403_for_code_that_is_missing(cloud, machine):
    s3 = cloud.client("s3", **machine[1])

    assert _code(s3.get_object, Bucket=STATE, Key=code_key("demo", "f" * 64)) == "allowed"
    assert _code(s3.get_object, Bucket=STATE, Key=code_key("demo", "0" * 64)) == "AccessDenied"


def test_a_machine_reads_no_payers_data_and_has_no_other_api(cloud, machine):
    _, keys = machine

    assert _code(cloud.client("s3", **keys).get_object, Bucket=DATA, Key="incoming/acme/a") == (
        "AccessDenied"
    )
    assert _code(cloud.client("ec2", **keys).describe_instances) == "UnauthorizedOperation"
    assert _code(cloud.client("iam", **keys).list_roles) == "AccessDenied"
    assert cloud.client("sts", **keys).get_caller_identity()["Account"] == cloud.account


# -- the job ----------------------------------------------------------------------------------


def test_a_job_reads_and_writes_its_own_payer(job):
    assert _code(job.get_object, Bucket=DATA, Key="incoming/acme/a") == "allowed"
    assert _code(job.put_object, Bucket=DATA, Key="payers/acme/out", Body=b"") == "allowed"
    assert _code(job.list_objects_v2, Bucket=DATA, Prefix="payers/acme/") == "allowed"


def test_a_job_sees_no_other_payer_and_not_the_state(job):
    assert _code(job.get_object, Bucket=DATA, Key="incoming/pea/b") == "AccessDenied"
    assert _code(job.put_object, Bucket=DATA, Key="payers/pea/x", Body=b"") == "AccessDenied"
    assert _code(job.put_object, Bucket=DATA, Key="incoming/acme/a", Body=b"") == "AccessDenied"
    assert _code(job.list_objects_v2, Bucket=DATA, Prefix="incoming/pea/") == "AccessDenied"
    assert _code(job.list_objects_v2, Bucket=DATA) == "AccessDenied"
    assert _code(job.get_object, Bucket=STATE, Key="demo/queue-state.json") == "AccessDenied"


def test_a_job_gets_404_for_its_own_missing_object(job):
    assert _code(job.get_object, Bucket=DATA, Key="payers/acme/nothing") == "NoSuchKey"


def test_a_job_reads_its_own_secrets_only(cloud, machine):
    keys = _assume(cloud, machine[1], "acme-data")
    for name in ("acme/db", "pea/db"):
        cloud.client("secretsmanager").create_secret(Name=name, SecretString="s")
    for name in ("/acme/x", "/pea/x"):
        cloud.client("ssm").put_parameter(Name=name, Value="v", Type="SecureString")
    secrets = cloud.client("secretsmanager", **keys)
    ssm = cloud.client("ssm", **keys)

    assert _code(secrets.get_secret_value, SecretId="acme/db") == "allowed"
    assert _code(secrets.get_secret_value, SecretId="pea/db") == "AccessDeniedException"
    assert _code(ssm.get_parameter, Name="/acme/x") == "allowed"
    assert _code(ssm.get_parameter, Name="/pea/x") == "AccessDeniedException"


def test_a_job_cannot_become_another_payer(cloud, machine):
    keys = _assume(cloud, machine[1], "acme-data")

    with pytest.raises(ClientError) as error:
        _assume(cloud, keys, "pea-data")

    assert error.value.response["Error"]["Code"] == "AccessDenied"


def test_a_role_that_does_not_exist_is_denied(cloud, machine):
    with pytest.raises(ClientError) as error:
        _assume(cloud, machine[1], "nobody")

    assert error.value.response["Error"]["Code"] == "AccessDenied"


def test_a_role_that_does_not_trust_machines_is_denied(cloud, machine):
    cloud.client("iam").create_role(
        RoleName="closed",
        AssumeRolePolicyDocument='{"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", '
        '"Principal": {"Service": "lambda.amazonaws.com"}}}',
    )

    with pytest.raises(ClientError) as error:
        _assume(cloud, machine[1], "closed")

    assert error.value.response["Error"]["Code"] == "AccessDenied"


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_session_token": "wrong"}, "InvalidToken"),
        ({"aws_access_key_id": "ASIAUNKNOWN"}, "InvalidAccessKeyId"),
    ],
)
def test_wrong_credentials_are_refused(cloud, machine, change, code):
    s3 = cloud.client("s3", **{**machine[1], **change})

    assert _code(s3.get_object, Bucket=STATE, Key=code_key("demo", "f" * 64)) == code


def test_unsigned_requests_are_refused(cloud):
    s3 = boto3.client(
        "s3",
        endpoint_url=cloud.url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )

    assert _code(s3.get_object, Bucket=STATE, Key="x") == "AccessDenied"


def test_a_cap_on_lifetimes_makes_credentials_expire():
    with local_ec2(SEED, pending=0, credential_lifetime=2) as cloud:
        role = f"arn:aws:iam::{cloud.account}:role/acme-data"
        given = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="job")["Credentials"]
        s3 = cloud.client(
            "s3",
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )
        first = _code(s3.list_objects_v2, Bucket=DATA, Prefix="payers/acme/")
        cloud.wait_for(
            lambda: _code(s3.list_objects_v2, Bucket=DATA, Prefix="payers/acme/") == "ExpiredToken"
        )

    assert first == "allowed"
    assert given["Expiration"].timestamp() - time.time() < 5


# -- S3's conditions --------------------------------------------------------------------------


def test_of_many_first_writers_exactly_one_wins(cloud):
    s3 = cloud.client("s3")

    def write(_):
        return _code(s3.put_object, Bucket=STATE, Key="demo/race", Body=b"x", IfNoneMatch="*")

    for _ in range(5):
        s3.delete_object(Bucket=STATE, Key="demo/race")
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(write, range(8)))
        assert sorted(set(codes)) == ["PreconditionFailed", "allowed"]
        assert codes.count("allowed") == 1


def test_compare_and_set_loses_no_update(cloud):
    s3 = cloud.client("s3")
    s3.put_object(Bucket=STATE, Key="demo/counter", Body=b"0")

    def add_one(_):
        while True:
            found = s3.get_object(Bucket=STATE, Key="demo/counter")
            body = b"%d" % (int(found["Body"].read()) + 1)
            given = {"Bucket": STATE, "Key": "demo/counter", "Body": body}
            if _code(s3.put_object, IfMatch=found["ETag"], **given) == "allowed":
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(16)))

    assert s3.get_object(Bucket=STATE, Key="demo/counter")["Body"].read() == b"16"


def test_every_answer_has_a_date(cloud):
    s3 = cloud.client("s3")
    given = {"Bucket": STATE, "Key": "demo/date"}

    answers = [s3.put_object(Body=b"", **given), s3.get_object(**given), s3.head_object(**given)]
    with pytest.raises(ClientError) as error:
        s3.put_object(Body=b"", IfNoneMatch="*", **given)
    answers.append(error.value.response)

    for one in answers:
        assert "GMT" in one["ResponseMetadata"]["HTTPHeaders"]["date"]


# -- seeding ----------------------------------------------------------------------------------


def test_more_can_be_seeded_while_it_runs(cloud, machine):
    cloud.seed(
        state_bucket=STATE,
        subnets=["subnet-late"],
        security_groups=["sg-late"],
        job_roles={"umbra-data": {"bucket": "late-bucket", "read": ["in/*"]}},
    )
    subnets = cloud.client("ec2").describe_subnets(
        SubnetIds=["subnet-0a1", "subnet-0b2", "subnet-late"]
    )["Subnets"]

    keys = _assume(cloud, machine[1], "umbra-data")

    assert len({one["AvailabilityZone"] for one in subnets}) == 3
    assert _code(cloud.client("s3", **keys).list_objects_v2, Bucket="late-bucket") == "AccessDenied"
    assert _code(cloud.client("s3", **keys).get_object, Bucket="late-bucket", Key="in/x") in {
        "AccessDenied", "NoSuchKey",
    }  # fmt: skip


def test_a_wrong_seed_is_explained(cloud):
    with pytest.raises(ValueError, match="allowed: bucket"):
        cloud.seed(bucket="x")
    with pytest.raises(ValueError, match=r"job_roles\.x: unknown: reed"):
        cloud.seed(job_roles={"x": {"reed": []}})

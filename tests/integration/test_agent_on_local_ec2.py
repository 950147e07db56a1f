"""The real user data on the local EC2: who may read what, and the whole life of a machine."""

import contextlib
import hashlib
import json
import sys

import pytest

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.user_data import render_user_data
from tests.integration.agent_machine import JOBKEY, NONCE, config, tarball

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="instances are Linux")
STATE, DATA, ENV = "ephemeral-ec2-state", "payer-data", "demo"
SEED = {
    "job_roles": {
        "acme-data": {"bucket": DATA, "read": ["incoming/acme/*"], "write": ["roster/acme/*"]},
        "pea-data": {"bucket": DATA, "read": ["incoming/pea/*"], "write": ["roster/pea/*"]},
    }
}
TRY = """
import sys, boto3
from botocore.exceptions import ClientError
s3 = boto3.client("s3")
for action, bucket, key in [line.split() for line in sys.argv[1:]]:
    try:
        if action == "get":
            print(key, s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())
        else:
            s3.put_object(Bucket=bucket, Key=key, Body=b"from the job")
            print(key, "written")
    except ClientError as e:
        print(key, e.response["Error"]["Code"])
"""


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed=SEED) as running:
        s3 = running.client("s3")
        for payer in ("acme", "pea"):
            s3.put_object(Bucket=DATA, Key=f"incoming/{payer}/x", Body=f"of {payer}".encode())
        s3.close()
        yield running


class Launch:
    """One instance and what it left in the bucket."""

    def __init__(self, cloud, settings: dict[str, object]) -> None:
        self.cloud, self.s3, ec2 = cloud, cloud.client("s3"), cloud.client("ec2")
        answer = ec2.run_instances(
            ImageId="ami-12c6146b", InstanceType="m7i.large", MinCount=1, MaxCount=1,
            SubnetId="subnet-0a1", InstanceInitiatedShutdownBehavior="terminate",
            IamInstanceProfile={"Name": "payer-machine"},
            MetadataOptions={"HttpTokens": "required"},
            UserData=render_user_data(settings, agent=agent_source()),
        )  # fmt: skip
        self.instance_id = answer["Instances"][0]["InstanceId"]
        cloud.wait_for_state(self.instance_id, "terminated", 60)
        arn = contract.instance_arn("us-east-1", cloud.account, self.instance_id)
        self.report = json.loads(self._read(contract.report_key(ENV, arn)) or "{}")
        self.log = self._read(contract.log_key(ENV, arn, 1))
        self.console = ec2.get_console_output(InstanceId=self.instance_id)["Output"]
        self.s3.close()
        ec2.close()

    def _read(self, key: str) -> str:
        with contextlib.suppress(self.s3.exceptions.NoSuchKey):
            return self.s3.get_object(Bucket=STATE, Key=key)["Body"].read().decode()
        return ""


def settings(number: int, *command: str, **changes: object) -> dict[str, object]:
    given = {"env": ENV, "bucket": STATE, "jobkey": f"{JOBKEY}{number}", "volume_bytes": 1 << 30}
    return config(*command, **{**given, **changes})


def test_a_machine_runs_its_job_once_reports_and_is_gone(cloud):
    archive = tarball(job__py="import sys; print('from the machine'); sys.exit(65)")
    digest = hashlib.sha256(archive).hexdigest()
    s3 = cloud.client("s3")
    s3.put_object(Bucket=STATE, Key=contract.code_key(ENV, digest), Body=archive)

    done = Launch(cloud, settings(1, "python3", "job.py", code=digest))

    assert (done.report["phase"], done.report["exit_code"]) == ("job", 65)
    assert done.report["instance_id"] == done.instance_id
    assert done.log == "from the machine\n"
    assert contract.CONSOLE_MARKER in done.console
    assert cloud.states(done.instance_id)[-1] == "terminated"
    s3.close()


def test_the_job_reads_its_own_payer_and_nobody_elses(cloud):
    tries = (f"get {DATA} incoming/acme/x", f"get {DATA} incoming/pea/x",
             f"put {DATA} roster/acme/y", f"put {DATA} roster/pea/y")  # fmt: skip

    done = Launch(cloud, settings(2, "python3", "-c", TRY, *tries, job_role="acme-data"))

    assert done.log.splitlines() == [
        "incoming/acme/x of acme",
        "incoming/pea/x AccessDenied",
        "roster/acme/y written",
        "roster/pea/y AccessDenied",
    ]


def test_R22_the_job_can_touch_neither_reports_nor_locks(cloud):
    """The job tries to write a report and a start lock with its own credentials."""
    arn = contract.instance_arn("us-east-1", cloud.account, "i-0abc")
    lock = contract.start_lock_key(ENV, "other", 1, NONCE)
    tries = (f"put {STATE} {contract.report_key(ENV, arn)}", f"put {STATE} {lock}")

    done = Launch(cloud, settings(3, "python3", "-c", TRY, *tries, job_role="acme-data"))

    assert [line.split()[1] for line in done.log.splitlines()] == ["AccessDenied"] * 2


def test_a_role_that_does_not_exist_keeps_the_job_from_starting(cloud):
    done = Launch(cloud, settings(4, "echo", "started", job_role="no-such-role"))

    assert done.report["phase"] == "secrets"
    assert done.report["error"]["kind"] in {contract.ERROR_DENIED, contract.ERROR_INTERNAL}
    assert done.log == ""

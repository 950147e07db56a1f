"""A bucket of record with Object Lock: everything works, and nothing that matters can go."""

import pytest
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, open_attempt
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.reaper import Reaper
from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.spec import Limits, LockFile
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread

AMI = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
BUCKET, ENVIRONMENT = "locked-records", "locked"
MODES = ("COMPLIANCE", "GOVERNANCE")


@pytest.fixture(scope="module", params=MODES)
def cloud(request):
    with local_ec2(pending=0.1, shutting_down=0.1) as cloud:
        s3 = cloud.client("s3")
        s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        forever = {"DefaultRetention": {"Mode": request.param, "Days": 400}}
        s3.put_object_lock_configuration(
            Bucket=BUCKET,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": forever},
        )
        cloud.seed(state_bucket=BUCKET, environment=ENVIRONMENT)
        yield cloud


def run_job(cloud, spec):
    """Run one job to its end, and let the reaper look."""
    clients = Clients(lambda service, config: cloud.client(service, config=config))
    store = JobStore(clients.s3, BUCKET, ENVIRONMENT)
    fleet = Fleet(clients, ENVIRONMENT, "us-east-1")
    order = LaunchOrder(
        spec=spec,
        lock=LockFile(),
        table="payers.yaml",
        table_version="t",
        limits=Limits(),
        identity=TaskIdentity("locked", "run 1", "job"),
        epoch="e",
        business_date="2026-03-01",
    )
    opened = open_attempt(store, fleet, order)
    controller = Controller(store, lambda *_: fleet)
    found = wait_in_this_thread(controller, opened.name, lambda _: None, poll_seconds=0.2).outcome
    for _ in range(2):
        Reaper(ReaperFleet(clients.ec2, ENVIRONMENT, "us-east-1"), store).make_pass()
    return store, opened, found


def test_a_job_runs_on_a_bucket_whose_objects_cannot_be_deleted(cloud, make_spec):
    store, opened, found = run_job(cloud, make_spec(ami=AMI, command=["echo", "done"]))

    assert (found.outcome, found.exit_code) == ("succeeded", 0)
    assert store.list_queue().entries == frozenset()
    deleted = {line["params"]["Key"] for line in cloud.calls("DeleteObject")}
    assert deleted == {
        f"{ENVIRONMENT}/queue/{opened.name}.json",
        f"{ENVIRONMENT}/queue/{opened.name}.kill.json",
    }
    # A delete only hides: what was written there is kept as long as the lock says.
    s3 = cloud.client("s3")
    versions = s3.list_object_versions(Bucket=BUCKET, Prefix=ENVIRONMENT)["Versions"]
    assert f"{ENVIRONMENT}/queue/{opened.name}.json" in {one["Key"] for one in versions}
    written = [line for line in cloud.calls("PutObject") if line["status"] == 200]
    ours = [line for line in written if line["params"]["Key"].startswith(f"{ENVIRONMENT}/")]
    assert len(versions) == len(ours)
    [launch] = [one for one in versions if one["Key"].endswith("/launch.json")]
    kept = {"Bucket": BUCKET, "Key": launch["Key"], "VersionId": launch["VersionId"]}
    with pytest.raises(ClientError) as refused:
        s3.delete_object(**kept)
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    # Governance yields to whoever may bypass it and says so (the engine does not: its versions are
    # all there); compliance to nobody.
    rule = s3.get_object_lock_configuration(Bucket=BUCKET)["ObjectLockConfiguration"]["Rule"]
    if rule["DefaultRetention"]["Mode"] == "GOVERNANCE":
        s3.delete_object(**kept, BypassGovernanceRetention=True)
    else:
        with pytest.raises(ClientError):
            s3.delete_object(**kept, BypassGovernanceRetention=True)

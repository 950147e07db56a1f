"""The reaper on the local EC2: what it ends, what it never touches."""

import json
import secrets
import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_ephemeral_ec2.cli.main import main
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.lifetime_schedule import LifetimeSchedule
from airflow_ephemeral_ec2.hooks.reaper import Reaper, describe_pass
from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.launch_request import render_request
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.reap import Suspicion

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
# A connection that a fault broke is closed when boto3's client is collected, in whatever test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
AT_ONCE = dict.fromkeys(Suspicion, 0.0)
"""Two sightings in two passes, however close: the time between them has unit tests."""


class Yard:
    """A local EC2, machines of the product's own shape, and reapers."""

    def __init__(self, cloud, make_record):
        self.cloud = cloud
        self.ec2 = cloud.client("ec2")
        self.clients = Clients(lambda service, config: cloud.client(service, config=config))
        self.store = JobStore(self.clients.s3, "records", "test")
        self.ami = cloud.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
        self._make_record = make_record
        self.made = []

    def launch(self, jobkey="a" * 40, environment="test", is_open=True, **changes):
        record = self._make_record(jobkey=jobkey, **changes)
        fields = {"environment": environment, "image_id": self.ami}
        record = record.model_copy(update=fields)
        if environment == self.store.environment:
            self.store.write_launch(record)
        if is_open:
            self.store.write_entry(plan_entry(record))
        own = {"UserData": b"#!/bin/sh\nexec sleep 60\n", "ClientToken": secrets.token_hex(16)}
        request = render_request(record, 0) | own
        [instance] = self.ec2.run_instances(**request)["Instances"]
        self.made.append(instance["InstanceId"])
        self.cloud.wait_for_state(self.made[-1], "running")
        return self.made[-1]

    def reaper(self, store=True, environment="test"):
        fleet = ReaperFleet(self.ec2, environment, "us-east-1")
        return Reaper(fleet, self.store if store else self._no_store(), AT_ONCE)

    def _no_store(self):
        return JobStore(self.clients.s3, "no-such-bucket", "test")

    def two_passes(self, **options):
        reaper = self.reaper(**options)
        first = reaper.make_pass()
        assert first.plan.orphans == ()
        return reaper.make_pass()

    def state(self, instance_id):
        return self.cloud.instances()[instance_id]


@pytest.fixture(scope="module")
def cloud():
    seed = {"state_bucket": "records", "environment": "test"}
    with local_ec2(seed=seed, pending=0.1, shutting_down=0.1, stop_grace=0.2) as cloud:
        yield cloud


@pytest.fixture
def yard(cloud, make_record):
    yard = Yard(cloud, make_record)
    yield yard
    cloud.clear_faults()
    cloud.clear_harms()
    for instance_id in yard.made:
        if yard.state(instance_id) != "terminated":
            cloud.kill(instance_id, "host")
            cloud.wait_for_state(instance_id, "terminated")
    s3 = cloud.client("s3")
    for item in s3.list_objects_v2(Bucket="records").get("Contents", ()):
        s3.delete_object(Bucket="records", Key=item["Key"])


def test_K11_an_orphan_is_gone_after_two_passes_and_another_environment_is_never_touched(yard):
    """A machine whose attempt is over, beside one of another environment that looks the same."""
    orphan = yard.launch(is_open=False)
    other = yard.launch(environment="other", is_open=False)
    wanted = yard.launch("b" * 40)

    result = yard.two_passes()

    yard.cloud.wait_for_state(orphan, "terminated")
    assert [one.resource_id for one in result.plan.orphans] == [orphan]
    assert result.new_orphans == result.plan.orphans
    assert (yard.state(other), yard.state(wanted)) == ("running", "running")
    touched = {
        line["params"].get("InstanceId.1") for line in yard.cloud.calls("TerminateInstances")
    }
    assert other not in touched
    assert wanted not in touched


def test_K8_age_is_counted_from_the_network_interface(yard):
    """LaunchTime starts again at a stop and start; the tag says 1,000 seconds."""
    young, old = yard.launch("a" * 40), yard.launch("b" * 40)
    yard.cloud.kill(old, "age", seconds=200_000)

    result = yard.two_passes(store=False)

    yard.cloud.wait_for_state(old, "terminated")
    assert [one.reason for one in result.plan.orphans] == [Suspicion.TOO_OLD]
    assert yard.state(young) == "running"


def test_the_reaper_works_when_the_bucket_cannot_be_read(yard):
    old, closed = yard.launch("a" * 40), yard.launch("b" * 40, is_open=False)
    yard.cloud.kill(old, "age", seconds=200_000)
    yard.cloud.add_fault(action="s3:*", code="AccessDenied", http=403, count=0)
    yard.cloud.add_fault(
        action="*", match={"Bucket": "records"}, code="AccessDenied", http=403, count=0
    )

    result = yard.two_passes()

    yard.cloud.wait_for_state(old, "terminated")
    assert result.is_bucket_readable is False
    assert "the bucket cannot be read" in describe_pass(result)[0]
    # Without the bucket nobody knows that its attempt is over.
    assert yard.state(closed) == "running"


def test_R13_a_stopped_machine_is_ended(yard):
    """An operator stops a machine: it keeps its disk."""
    instance_id = yard.launch()
    yard.cloud.kill(instance_id, "stop")
    yard.cloud.wait_for_state(instance_id, "stopped")

    yard.two_passes()

    yard.cloud.wait_for_state(instance_id, "terminated")


def test_E8_a_machine_stuck_in_shutting_down_is_ended_by_force(yard):
    """The machine does not come out of shutting-down."""
    instance_id = yard.launch()
    yard.cloud.kill(instance_id, "stuck")
    yard.ec2.terminate_instances(InstanceIds=[instance_id])
    yard.cloud.wait_for_state(instance_id, "shutting-down")

    yard.two_passes()

    yard.cloud.wait_for_state(instance_id, "terminated")


def test_K4_L38_K13_a_protected_machine_is_unprotected_and_the_others_end_with_it(yard):
    """Somebody switched termination protection on; one call has four machines."""
    machines = [yard.launch(letter * 40, is_open=False) for letter in "abcd"]
    yard.cloud.kill(machines[1], "protect")

    result = yard.two_passes()

    for instance_id in machines:
        yard.cloud.wait_for_state(instance_id, "terminated")
    assert result.problems == {}


def test_K13_K12_one_id_that_cannot_be_ended_holds_up_no_other(yard):
    """TerminateInstances is denied whenever one machine is among the ids."""
    machines = [yard.launch(letter * 40, is_open=False) for letter in "abc"]
    for number in range(1, 4):
        yard.cloud.add_fault(
            action="TerminateInstances",
            match={f"InstanceId.{number}": machines[2]},
            code="UnauthorizedOperation",
            http=403,
            count=0,
        )

    result = yard.two_passes()

    for instance_id in machines[:2]:
        yard.cloud.wait_for_state(instance_id, "terminated")
    assert list(result.problems) == [machines[2]]
    assert yard.state(machines[2]) == "running"


def test_K2_a_lost_answer_of_terminate_is_repeated_by_the_next_pass(yard):
    """TerminateInstances answers 500 before it did anything."""
    instance_id = yard.launch(is_open=False)
    reaper = yard.reaper()
    reaper.make_pass()
    yard.cloud.add_fault(action="TerminateInstances", code="InternalError", http=500, count=4)
    assert list(reaper.make_pass().problems) == [instance_id]
    yard.cloud.clear_faults()

    result = reaper.make_pass()

    yard.cloud.wait_for_state(instance_id, "terminated")
    assert result.new_orphans == ()


def test_K15_a_volume_and_an_interface_that_nothing_uses_are_deleted(yard):
    """A volume and a network interface of ours are left over, beside those of others."""

    def tags(resource, environment):
        own = [{"Key": "ephemeral-ec2:environment", "Value": environment}]
        return [{"ResourceType": resource, "Tags": own}]

    made = {}
    for environment in ("test", "other"):
        volume = yard.ec2.create_volume(
            AvailabilityZone="us-east-1a", Size=8, TagSpecifications=tags("volume", environment)
        )
        interface = yard.ec2.create_network_interface(
            SubnetId="subnet-0a1", TagSpecifications=tags("network-interface", environment)
        )
        made[environment] = (
            volume["VolumeId"],
            interface["NetworkInterface"]["NetworkInterfaceId"],
        )

    result = yard.two_passes()

    assert {one.resource_id for one in result.plan.orphans} == set(made["test"])
    volumes = {v["VolumeId"] for v in yard.ec2.describe_volumes()["Volumes"]}
    interfaces = {
        one["NetworkInterfaceId"]
        for one in yard.ec2.describe_network_interfaces()["NetworkInterfaces"]
    }
    assert made["test"][0] not in volumes
    assert made["test"][1] not in interfaces
    assert made["other"][0] in volumes
    assert made["other"][1] in interfaces


def test_a_dry_run_ends_and_remembers_nothing(yard):
    instance_id = yard.launch(is_open=False)
    reaper = yard.reaper()
    reaper.make_pass(is_dry_run=True)

    second = reaper.make_pass(is_dry_run=True)

    assert [one.resource_id for one in second.plan.orphans] == [instance_id]
    assert "would be ended" in describe_pass(second)[1]
    assert yard.state(instance_id) == "running"
    assert list(yard.store.list_keys("test/reaper/")) == []


def test_L34_a_schedule_that_cannot_be_made_is_told_and_fails_nothing(yard):
    """CreateSchedule is denied, then throttled, then answers that the name is taken."""
    schedule = LifetimeSchedule("arn:aws:iam::123456789012:role/ttl")
    later = time.time() + 600
    for code, http in (("AccessDeniedException", 403), ("ThrottlingException", 429)):
        # EventBridge Scheduler names its calls by path, so the rule says only: every POST.
        yard.cloud.add_fault(
            action="scheduler:", match={"method": "POST"}, code=code, http=http, count=0
        )
        problem = schedule.arm(yard.clients, "token", "i-1", later)
        assert "the reaper covers it" in problem
        yard.cloud.clear_faults()
    assert schedule.arm(yard.clients, "token", "i-1", later) is None
    assert schedule.arm(yard.clients, "token", "i-1", later) is None
    [made] = yard.cloud.client("scheduler").list_schedules()["Schedules"]
    assert made["Name"] == "token"
    schedule.disarm(yard.clients, "token")
    schedule.disarm(yard.clients, "token")
    assert yard.cloud.client("scheduler").list_schedules()["Schedules"] == []


def test_K9_K14_a_scheduled_end_needs_no_reaper_and_a_machine_that_is_gone_is_no_harm(yard):
    """Reaper and Airflow are down; a second schedule names a machine that is gone."""
    instance_id = yard.launch()
    schedule = LifetimeSchedule("arn:aws:iam::123456789012:role/ttl")
    soon = time.time() + 2
    assert schedule.arm(yard.clients, "alive", instance_id, soon) is None
    assert schedule.arm(yard.clients, "gone", "i-0123456789abcdef0", soon) is None

    yard.cloud.wait_for_state(instance_id, "terminated")

    yard.cloud.wait_for(
        lambda: (
            {"alive", "gone"}
            == {line["name"] for line in yard.cloud.lines() if line.get("event") == "schedule"}
        ),
        what="both schedules",
    )


def test_L32_a_machine_whose_tags_are_not_shown_yet_is_not_touched(yard):
    """EC2 does not show the tags of a new machine."""
    instance_id = yard.launch(is_open=False)
    yard.cloud.kill(instance_id, "untag")

    result = yard.two_passes()

    assert result.machines == 0
    assert yard.state(instance_id) == "running"


def test_the_command_reaps_in_two_passes_and_says_what_it_did(yard, capsys, monkeypatch):
    instance_id = yard.launch(is_open=False)
    for name, value in yard.cloud.environ.items():
        monkeypatch.setenv(name, value)
    where = ["--environment", "test", "--bucket", "records", "--region", "us-east-1"]

    assert main(["reap", "--dry-run", "--json", *where]) == 0

    [found] = json.loads(capsys.readouterr().out)["passes"]
    assert [one["id"] for one in found["suspects"]] == [instance_id]
    assert found["orphans"] == []
    assert yard.state(instance_id) == "running"


def test_a_lifecycle_rule_that_deletes_too_early_is_named(yard, capsys, monkeypatch):
    for name, value in yard.cloud.environ.items():
        monkeypatch.setenv(name, value)
    rule = {
        "ID": "too-eager",
        "Status": "Enabled",
        "Filter": {"Prefix": "test/jobs/"},
        "Expiration": {"Days": 7},
    }
    yard.cloud.client("s3").put_bucket_lifecycle_configuration(
        Bucket="records", LifecycleConfiguration={"Rules": [rule]}
    )
    where = ["--environment", "test", "--bucket", "records", "--region", "us-east-1"]

    assert main(["reap", *where]) == 0

    assert "'too-eager'" in capsys.readouterr().err
    yard.cloud.client("s3").delete_bucket_lifecycle(Bucket="records")


def test_a_scheduled_time_is_written_as_eventbridge_wants_it(yard):
    schedule = LifetimeSchedule("arn:aws:iam::123456789012:role/ttl")
    moment = datetime.now(UTC) + timedelta(hours=3)

    schedule.arm(yard.clients, "when", "i-1", moment.timestamp())

    found = yard.cloud.client("scheduler").get_schedule(Name="when")
    assert found["ScheduleExpression"] == f"at({moment:%Y-%m-%dT%H:%M:%S})"
    assert json.loads(found["Target"]["Input"]) == {"InstanceIds": ["i-1"]}
    assert found["ActionAfterCompletion"] == "DELETE"
    schedule.disarm(yard.clients, "when")


@pytest.fixture
def command(yard, monkeypatch, capsys):
    """Call ``ephemeral-ec2`` in this process; return exit status, stdout and stderr."""
    for name, value in yard.cloud.environ.items():
        monkeypatch.setenv(name, value)

    def call(*arguments, bucket="records"):
        where = ["--environment", "test", "--bucket", bucket, "--region", "us-east-1"]
        status = main([*arguments, *where])
        return status, *capsys.readouterr()

    return call


def test_two_calls_of_the_command_some_minutes_apart_end_an_orphan(yard, command):
    instance_id = yard.launch(is_open=False)
    first = command("reap", "--dry-run")
    command("reap")
    # As if the first call had been made five minutes earlier.
    notes = ReaperStore(yard.store, "test")
    seen = notes.read_sightings("us-east-1")
    earlier = {
        one: sighting.model_copy(update={"first_seen": sighting.first_seen - 300})
        for one, sighting in seen.of.items()
    }
    notes.write_sightings("us-east-1", seen.model_copy(update={"of": earlier}))

    status, out, _ = command("reap")

    yard.cloud.wait_for_state(instance_id, "terminated")
    assert (first[0], status) == (0, 0)
    assert f"suspected {instance_id} acme/claims, attempt 1" in first[1]
    assert f"orphan {instance_id} acme/claims, attempt 1" in out
    assert "its attempt is over; ended" in out


def test_the_command_says_what_it_could_not_end_and_exits_3(yard, command):
    yard.launch(is_open=False)
    yard.cloud.add_fault(action="DescribeInstances", code="UnauthorizedOperation", http=403)

    status, _, err = command("reap")

    assert status == 3
    assert "DescribeInstances" in err
    assert "docs/operating.md#iam" in err


def test_the_command_works_without_the_bucket(yard, command):
    """The bucket of record is gone."""
    instance_id = yard.launch()

    status, out, err = command("reap", bucket="no-such-bucket")

    assert status == 0
    assert "1 machines, 0 orphans, 0 suspected; the bucket cannot be read" in out
    assert "lifecycle" in err
    assert yard.state(instance_id) == "running"


def test_the_lifecycle_rules_that_it_writes_are_taken_by_s3_and_are_no_problem(yard, command):
    _, out, _ = command("reap", "--print-lifecycle")
    s3 = yard.cloud.client("s3")
    s3.put_bucket_lifecycle_configuration(Bucket="records", LifecycleConfiguration=json.loads(out))

    status, out, err = command("reap")

    s3.delete_bucket_lifecycle(Bucket="records")
    assert status == 0
    assert "retention" not in err


def test_a_job_of_the_command_line_is_awaited_by_no_task(yard, command, tmp_path):
    """The reaper would take it for abandoned: Airflow knows no such task."""
    table = tmp_path / "payers.yaml"
    table.write_text(
        f"version: 1\naws: {{region: us-east-1}}\n"
        f"defaults: {{ami: {yard.ami}, subnets: [subnet-0a1], security_groups: [sg-0c3],"
        " instance_profile: payer-machine}\n"
        "jobs: {echo: {instance_types: [m7i.large], command: [echo, hello]}}\n"
        "payers: {acme: {}}\n"
    )

    status, *_ = command("run", str(table), "acme", "echo", "--aws", "--date", "2026-03-01")

    [key] = [one for one in yard.store.list_keys("test/jobs/") if one.endswith("launch.json")]
    assert status == 0
    assert json.loads(yard.store.read(key))["is_awaited"] is False

"""Harming one instance of the local EC2, shown by EC2's answers and by its processes."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.local.testing import local_ec2

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
SLEEP = "#!/bin/sh\necho hello\nexec sleep 60\n"


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(pending=0.1, shutting_down=0.1, stop_grace=0.3) as cloud:
        yield cloud


@pytest.fixture
def launch(cloud):
    ec2 = cloud.client("ec2")
    ami = cloud.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
    made = []

    def launch(user_data=SLEEP, wait="running", **more):
        tags = [{"Key": "ephemeral-ec2:environment", "Value": "demo"}]
        request = {
            "ImageId": ami, "InstanceType": "m7i.large", "MinCount": 1, "MaxCount": 1,
            "SubnetId": "subnet-0a1", "UserData": user_data,
            "InstanceInitiatedShutdownBehavior": "terminate",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }  # fmt: skip
        [instance] = ec2.run_instances(**(request | more))["Instances"]
        made.append(instance["InstanceId"])
        if wait:
            cloud.wait_for_state(made[-1], wait)
        return made[-1]

    yield launch
    cloud.clear_harms()
    for instance_id in made:
        if cloud.instances().get(instance_id) == "terminated":
            continue
        cloud.kill(instance_id, "host")
        if describe(cloud, instance_id):
            ec2.terminate_instances(InstanceIds=[instance_id], Force=True)
        cloud.wait_for_state(instance_id, "terminated")


def describe(cloud, instance_id):
    found = cloud.client("ec2").describe_instances(
        Filters=[{"Name": "instance-id", "Values": [instance_id]}]
    )["Reservations"]
    return found[0]["Instances"][0] if found else None


@pytest.mark.parametrize(
    ("how", "code", "state"),
    [
        ("launch", "Client.InternalError", "terminated"),
        ("launch", "Client.InvalidSnapshot.NotFound", "terminated"),
        ("launch", "Client.VolumeLimitExceeded", "terminated"),
        ("host", "Server.InternalError", "terminated"),
        ("host", "Server.InsufficientInstanceCapacity", "terminated"),
        ("spot", "Server.SpotInstanceTermination", "terminated"),
        ("stop", "Server.ScheduledStop", "stopped"),
        ("stop", "Client.UserInitiatedShutdown", "stopped"),
    ],
)
def test_an_instance_ends_or_stops_with_any_reason(cloud, launch, how, code, state):
    instance_id = launch()

    cloud.kill(instance_id, how, code=code)

    cloud.wait_for_state(instance_id, state)
    assert describe(cloud, instance_id)["StateReason"]["Code"] == code


def test_a_harm_waits_for_the_next_instance_that_is_launched_like_that(cloud, launch):
    cloud.add_harm("launch", code="Client.InternalError", match={"instance_type": "^c7i"})

    spared = launch()
    struck = launch(InstanceType="c7i.large", wait="terminated")

    assert cloud.instances()[spared] == "running"
    assert describe(cloud, struck)["StateReason"]["Code"] == "Client.InternalError"
    assert cloud.harms() == []


def test_a_slow_boot_and_one_that_never_ends(cloud, launch):
    cloud.add_harm("slow-boot", seconds=0.6)
    began = time.monotonic()
    launch()
    assert time.monotonic() - began >= 0.6
    cloud.add_harm("stuck-pending")

    stuck = launch(wait=None)

    with pytest.raises(TimeoutError):
        cloud.wait_for_state(stuck, "running", 0.5)


def test_user_data_that_is_never_run(cloud, launch):
    cloud.add_harm("no-user-data")
    silent = launch()
    speaking = launch()

    def printed(instance_id):
        return cloud.client("ec2").get_console_output(InstanceId=instance_id).get("Output", "")

    cloud.wait_for(lambda: "hello" in printed(speaking), what="the console")
    assert printed(silent) == ""


def test_a_stuck_instance_needs_force(cloud, launch):
    instance_id = launch()
    ec2 = cloud.client("ec2")
    cloud.kill(instance_id, "stuck")
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "shutting-down")
    with pytest.raises(TimeoutError):
        cloud.wait_for_state(instance_id, "terminated", 0.8)

    ec2.terminate_instances(InstanceIds=[instance_id], Force=True)

    cloud.wait_for_state(instance_id, "terminated")


def test_an_instance_hangs_and_goes_on(cloud, launch):
    instance_id = launch("#!/bin/sh\nwhile :; do echo tick; sleep 0.05; done\n")
    ec2 = cloud.client("ec2")

    def ticks():
        return ec2.get_console_output(InstanceId=instance_id).get("Output", "").count("tick")

    cloud.wait_for(lambda: ticks() > 2, what="ticks")

    def is_quiet():
        """Eight ticks' time; what was printed before may still be on its way."""
        before = ticks()
        time.sleep(0.4)
        return ticks() == before

    cloud.kill(instance_id, "hang")
    cloud.wait_for(is_quiet, what="no more ticks")
    before = ticks()
    assert cloud.instances()[instance_id] == "running"

    cloud.kill(instance_id, "resume")

    cloud.wait_for(lambda: ticks() > before, what="more ticks")


def test_an_instance_is_hidden_for_a_while(cloud, launch):
    cloud.add_harm("hide", seconds=1.0)
    instance_id = launch(wait=None)
    ec2 = cloud.client("ec2")

    assert describe(cloud, instance_id) is None
    for call in (ec2.terminate_instances, ec2.describe_instances):
        with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
            call(InstanceIds=[instance_id])

    cloud.wait_for(lambda: describe(cloud, instance_id) is not None, what="it is shown")


def test_a_record_vanishes_while_the_machine_goes_on(cloud, launch):
    instance_id = launch()

    cloud.kill(instance_id, "vanish")

    assert describe(cloud, instance_id) is None
    assert cloud.instances()[instance_id] == "running"


def test_tags_fade(cloud, launch):
    instance_id = launch()

    cloud.kill(instance_id, "untag", seconds=0.5)

    assert describe(cloud, instance_id).get("Tags", []) == []
    cloud.wait_for(lambda: bool(describe(cloud, instance_id).get("Tags")), what="tags")


def test_a_host_is_impaired_for_a_while(cloud, launch):
    instance_id, other = launch(), launch()
    ec2 = cloud.client("ec2")
    wanted = [{"Name": "system-status.status", "Values": ["impaired"]}]
    assert ec2.describe_instance_status(Filters=wanted)["InstanceStatuses"] == []

    cloud.kill(instance_id, "impaired", seconds=1)

    found = ec2.describe_instance_status(Filters=wanted)["InstanceStatuses"]
    assert [one["InstanceId"] for one in found] == [instance_id] != [other]
    cloud.wait_for(
        lambda: ec2.describe_instance_status(Filters=wanted)["InstanceStatuses"] == [],
        what="recovery",
    )


def test_protection_is_switched_on_and_taken_off(cloud, launch):
    instance_id = launch()
    ec2 = cloud.client("ec2")
    cloud.kill(instance_id, "protect")
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[instance_id])

    ec2.modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[instance_id])

    cloud.wait_for_state(instance_id, "terminated")


def test_no_other_attribute_can_be_modified(cloud, launch):
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        cloud.client("ec2").modify_instance_attribute(
            InstanceId=launch(), InstanceInitiatedShutdownBehavior={"Value": "stop"}
        )


def test_an_instance_grows_old(cloud, launch):
    instance_id = launch()

    cloud.kill(instance_id, "age", seconds=7_200)

    found = describe(cloud, instance_id)
    attached = found["NetworkInterfaces"][0]["Attachment"]["AttachTime"]
    assert datetime.now(UTC) - attached > timedelta(hours=2)
    assert datetime.now(UTC) - found["LaunchTime"] > timedelta(hours=2)


@pytest.mark.parametrize(
    ("harm", "is_posted"),
    [({"how": "no-console"}, False), ({"how": "late-console", "seconds": 60}, False)],
)
def test_the_console_is_late_or_missing(cloud, launch, harm, is_posted):
    cloud.add_harm(**harm)
    instance_id = launch("#!/bin/sh\necho last words\n")
    ec2 = cloud.client("ec2")
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    found = ec2.get_console_output(InstanceId=instance_id)

    assert ("Output" in found, "Timestamp" in found) == (is_posted, is_posted)


def test_a_schedule_ends_an_instance_at_its_time(cloud, launch):
    instance_id = launch()
    moment = datetime.now(UTC) + timedelta(seconds=2)
    scheduler = cloud.client("scheduler")
    scheduler.create_schedule(
        Name="end-it",
        ScheduleExpression=f"at({moment:%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target={
            "Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": "arn:aws:iam::123456789012:role/ttl",
            "Input": f'{{"InstanceIds": ["{instance_id}", "i-0gone"]}}',
        },
    )

    cloud.wait_for_state(instance_id, "terminated")

    fired = [line for line in cloud.lines() if line.get("event") == "schedule"]
    assert [line["ended"] for line in fired] == [[instance_id]]
    assert scheduler.list_schedules()["Schedules"] == []


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"how": "hots"}, "Did you mean 'host'"),
        ({"how": "hide", "seconds": "soon"}, "not a number of seconds"),
        ({"how": "hide", "second": 1}, "unknown: second; allowed: how, seconds"),
    ],
)
def test_a_wrong_harm_is_refused_with_what_is_allowed(cloud, body, word):
    with pytest.raises(ValueError, match=word.replace("(", r"\(")):
        cloud.add_harm(**body)

"""The local EC2's API: what plain moto answers differently from EC2."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from airflow_ephemeral_ec2.local.testing import local_ec2

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{}"
SLEEP = "#!/bin/sh\nexec sleep 1000\n"


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(pending=0.2, shutting_down=0.2, stop_grace=1) as running:
        yield running


@pytest.fixture(scope="module")
def ec2(cloud):
    return cloud.client("ec2")


@pytest.fixture(scope="module")
def images(cloud):
    ssm = cloud.client("ssm")
    return {
        one: ssm.get_parameter(Name=AMI.format(one))["Parameter"]["Value"]
        for one in ("x86_64", "arm64")
    }


@pytest.fixture
def launch(cloud, ec2, images):
    cloud.clear_faults()
    made = []

    def run(**more):
        given = {
            "ImageId": images["x86_64"],
            "InstanceType": "m7i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": "subnet-0a1",
            "InstanceInitiatedShutdownBehavior": "terminate",
            "UserData": SLEEP,
            **more,
        }
        instance = ec2.run_instances(**{k: v for k, v in given.items() if v is not None})
        found = [one["InstanceId"] for one in instance["Instances"]]
        made.extend(found)
        return found[0]

    yield run
    for one in set(made) & set(cloud.instances()):
        cloud.kill(one)


def _describe(ec2, instance_id):
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def _code(error):
    return error.value.response["Error"]["Code"]


def _ids(ec2, **filters):
    asked = [
        {"Name": k.replace("__", ":").replace("_", "-"), "Values": v} for k, v in filters.items()
    ]
    found = ec2.describe_instances(Filters=asked)["Reservations"]
    return {one["InstanceId"] for group in found for one in group["Instances"]}


# -- client tokens ----------------------------------------------------------------------------


def test_the_same_token_and_parameters_return_the_same_instance(ec2, launch):
    first = launch(ClientToken="replay")

    assert launch(ClientToken="replay") == first
    assert _ids(ec2, client_token=["replay"]) == {first}


def test_a_replay_shows_the_state_of_now(cloud, ec2, launch, images):
    first = launch(ClientToken="state-of-now")
    cloud.wait_for_state(first, "running")

    answer = ec2.run_instances(
        ImageId=images["x86_64"], InstanceType="m7i.large", MinCount=1, MaxCount=1,
        SubnetId="subnet-0a1", InstanceInitiatedShutdownBehavior="terminate", UserData=SLEEP,
        ClientToken="state-of-now",
    )  # fmt: skip

    assert answer["Instances"][0]["State"]["Name"] == "running"


def test_the_same_token_with_other_parameters_is_a_mismatch(launch):
    launch(ClientToken="mismatch")

    with pytest.raises(ClientError) as error:
        launch(ClientToken="mismatch", InstanceType="c7i.large")

    assert _code(error) == "IdempotentParameterMismatch"


def test_the_same_token_in_another_zone_is_another_instance(launch):
    assert launch(ClientToken="zonal") != launch(ClientToken="zonal", SubnetId="subnet-0b2")


def test_the_token_of_a_terminated_instance_launches_nothing(cloud, ec2, launch):
    first = launch(ClientToken="terminated")
    ec2.terminate_instances(InstanceIds=[first])
    cloud.wait_for_state(first, "terminated")

    with pytest.raises(ClientError) as error:
        launch(ClientToken="terminated")

    assert _code(error) == "IdempotentInstanceTerminated"


def test_a_capacity_error_binds_the_token_to_its_parameters(cloud, launch):
    cloud.add_fault(action="RunInstances", code="InsufficientInstanceCapacity")
    with pytest.raises(ClientError) as refused:
        launch(ClientToken="bound")

    with pytest.raises(ClientError) as mismatch:
        launch(ClientToken="bound", InstanceType="c7i.large")

    assert (_code(refused), _code(mismatch)) == (
        "InsufficientInstanceCapacity",
        "IdempotentParameterMismatch",
    )
    assert launch(ClientToken="bound").startswith("i-")


def test_a_capacity_fault_does_not_hit_a_replay(cloud, launch):
    first = launch(ClientToken="survivor")
    cloud.add_fault(action="RunInstances", code="InsufficientInstanceCapacity")

    assert launch(ClientToken="survivor") == first
    assert cloud.faults()[0]["count"] == 1


def test_one_token_from_many_threads_launches_one_instance(ec2, launch):
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: launch(ClientToken="crowd"), range(8)))

    assert len(found) == 1
    assert _ids(ec2, client_token=["crowd"]) == found


# -- states -----------------------------------------------------------------------------------


def test_an_instance_goes_through_all_states_in_order(cloud, ec2, launch):
    instance_id = launch()
    at_first = _describe(ec2, instance_id)["State"]["Name"]
    cloud.wait_for_state(instance_id, "running")
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    assert at_first == "pending"
    assert cloud.states(instance_id) == ["pending", "running", "shutting-down", "terminated"]
    assert _describe(ec2, instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_terminating_twice_is_no_error_and_starting_a_dead_one_is(cloud, ec2, launch):
    instance_id = launch()
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    again = ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"][0]
    with pytest.raises(ClientError) as error:
        ec2.start_instances(InstanceIds=[instance_id])

    assert again["CurrentState"]["Name"] == "terminated"
    assert _code(error) == "IncorrectInstanceState"
    assert cloud.states(instance_id)[-1] == "terminated"


def test_a_terminated_instance_has_no_network_and_no_profile(cloud, ec2, launch):
    instance_id = launch(
        IamInstanceProfile={"Name": "payer-machine"}, SecurityGroupIds=["sg-0c3"], ClientToken="net"
    )
    alive = _describe(ec2, instance_id)
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")
    dead = _describe(ec2, instance_id)

    lost = {"SubnetId", "VpcId", "PrivateIpAddress", "IamInstanceProfile"}
    assert lost <= set(alive)
    assert not lost & set(dead)
    assert dead["NetworkInterfaces"] == dead["SecurityGroups"] == []
    assert dead["ClientToken"] == "net"


def test_stop_ends_the_guest_and_keeps_the_instance(cloud, ec2, launch):
    instance_id = launch()
    cloud.wait_for_state(instance_id, "running")

    ec2.stop_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "stopped")

    assert cloud.instances()[instance_id] == "stopped"


def test_shutdown_behaviour_stop_is_honoured(cloud, launch):
    instance_id = launch(
        InstanceInitiatedShutdownBehavior="stop", UserData="#!/bin/sh\npoweroff\nsleep 100\n"
    )

    cloud.wait_for_state(instance_id, "stopped")


def test_one_unknown_id_terminates_none(cloud, ec2, launch):
    instance_id = launch()

    with pytest.raises(ClientError) as error:
        ec2.terminate_instances(InstanceIds=[instance_id, "i-0123456789abcdef0"])

    assert _code(error) == "InvalidInstanceID.NotFound"
    assert cloud.instances()[instance_id] in {"pending", "running"}


@pytest.mark.parametrize(
    ("how", "code"),
    [("host", "Server.InternalError"), ("spot", "Server.SpotInstanceTermination")],
)
def test_a_death_from_outside_has_its_reason(cloud, ec2, launch, how, code):
    instance_id = launch()
    cloud.wait_for_state(instance_id, "running")

    cloud.kill(instance_id, how)
    cloud.wait_for_state(instance_id, "terminated")

    assert _describe(ec2, instance_id)["StateReason"]["Code"] == code


def test_a_launch_can_fail_after_it_was_accepted(cloud, ec2, launch):
    instance_id = launch()

    cloud.kill(instance_id, "launch", code="Client.InternalError", message="KMS")
    cloud.wait_for_state(instance_id, "terminated")

    assert _describe(ec2, instance_id)["StateReason"]["Code"] == "Client.InternalError"


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "resolve:ssm:/x"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "m7i.huge"}, "InvalidParameterValue"),
        ({"InstanceType": "m8g.large"}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-404"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-404"]}, "InvalidGroup.NotFound"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"UserData": "x" * 16_385}, "InvalidParameterValue"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"LaunchTemplate": {"LaunchTemplateName": "x"}}, "UnsupportedOperation"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_wrong_request_is_refused_and_launches_nothing(cloud, launch, wrong, code):
    before = cloud.instances()

    with pytest.raises(ClientError) as error:
        launch(**wrong)

    assert _code(error) == code
    assert cloud.instances() == before


def test_exactly_16384_bytes_of_user_data_are_accepted(launch):
    assert launch(UserData="#!/bin/sh\n".ljust(16_384, "#"))


def test_an_arm_image_runs_on_an_arm_type(launch, images):
    assert launch(ImageId=images["arm64"], InstanceType="m8g.large")


def test_a_fleet_is_said_to_be_not_imitated(ec2):
    with pytest.raises(ClientError) as error:
        ec2.create_fleet(
            LaunchTemplateConfigs=[], TargetCapacitySpecification={"TotalTargetCapacity": 1}
        )

    assert _code(error) == "UnsupportedOperation"


# -- looking ----------------------------------------------------------------------------------


def test_filters_find_by_token_lifecycle_profile_and_tag(ec2, launch):
    instance_id = launch(
        ClientToken="filters",
        InstanceMarketOptions={"MarketType": "spot"},
        IamInstanceProfile={"Name": "payer-machine"},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "payer", "Value": "acme-filters"}]}
        ],
    )

    for filters in (
        {"client_token": ["filters"]},
        {"instance_lifecycle": ["spot"], "client_token": ["filters"]},
        {"iam_instance_profile.arn": ["*/payer-machine"], "client_token": ["filters"]},
        {"tag__payer": ["acme-f*"]},
        {"instance_id": [instance_id], "instance_state_name": ["pending", "running"]},
    ):
        assert _ids(ec2, **filters) == {instance_id}
    assert _ids(ec2, client_token=["filters"], instance_state_name=["terminated"]) == set()


def test_an_unknown_filter_is_named_with_the_nearest(ec2):
    with pytest.raises(ClientError, match="Did you mean 'client-token'") as error:
        _ids(ec2, client_tokn=["x"])

    assert _code(error) == "InvalidParameterValue"


def test_pages_have_every_instance_once(ec2, launch):
    made = {launch(ClientToken=f"page-{number}") for number in range(7)}

    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    found = [i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]]

    assert len(pages) > 1
    assert len(found) == len(set(found))
    assert made <= set(found)


@pytest.mark.parametrize("size", [4, 1_001])
def test_page_sizes_outside_5_to_1000_are_refused(ec2, size):
    with pytest.raises(ClientError) as error:
        ec2.describe_instances(MaxResults=size)

    assert _code(error) == "InvalidParameterValue"


def test_instance_types_and_images_are_described(ec2, images):
    types = ec2.describe_instance_types(InstanceTypes=["c7i.16xlarge"])["InstanceTypes"]
    found = ec2.describe_images(ImageIds=[images["arm64"]])["Images"]

    assert types[0]["VCpuInfo"]["DefaultVCpus"] == 64
    assert found[0]["Architecture"] == "arm64"


def test_terminated_instances_vanish_after_a_while():
    with local_ec2(pending=0, shutting_down=0, visible=0.3) as cloud:
        ec2 = cloud.client("ec2")
        image = cloud.client("ssm").get_parameter(Name=AMI.format("x86_64"))["Parameter"]["Value"]
        instance_id = ec2.run_instances(
            ImageId=image, InstanceType="m7i.large", MinCount=1, MaxCount=1
        )["Instances"][0]["InstanceId"]
        cloud.kill(instance_id)
        cloud.wait_for_state(instance_id, "terminated")

        cloud.wait_for(lambda: not ec2.describe_instances()["Reservations"])

        with pytest.raises(ClientError) as error:
            _describe(ec2, instance_id)
        assert _code(error) == "InvalidInstanceID.NotFound"


# -- faults -----------------------------------------------------------------------------------


def test_an_answer_can_be_lost_after_the_launch(cloud, ec2, launch):
    cloud.add_fault(action="RunInstances", drop=True, after=True)

    with pytest.raises(HTTPClientError):
        launch(ClientToken="lost")
    found = _ids(ec2, client_token=["lost"])

    assert len(found) == 1
    assert launch(ClientToken="lost") in found


def test_an_error_can_come_after_the_launch(cloud, ec2, launch):
    cloud.add_fault(action="RunInstances", code="InternalError", http=500, after=True)

    with pytest.raises(ClientError) as error:
        launch(ClientToken="after")

    assert _code(error) == "InternalError"
    assert len(_ids(ec2, client_token=["after"])) == 1


def test_a_dropped_call_without_after_is_not_executed(cloud, ec2, launch):
    cloud.add_fault(action="RunInstances", drop=True)

    with pytest.raises(HTTPClientError):
        launch(ClientToken="never")

    assert _ids(ec2, client_token=["never"]) == set()


def test_a_delay_delays_and_does_not_hold_others_up(cloud, ec2, launch):
    cloud.add_fault(action="DescribeImages", delay=1.0)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        slow = pool.submit(lambda: ec2.describe_images(Owners=["self"]))
        launch()
        quick = time.monotonic() - began
        slow.result()

    assert quick < 1.0 <= time.monotonic() - began


def test_a_fault_hits_only_what_it_matches(cloud, launch):
    cloud.add_fault(
        action="RunInstances",
        match={"InstanceType": r"^c7i\."},
        code="InsufficientInstanceCapacity",
        count=0,
    )

    assert launch(InstanceType="m7i.large")
    with pytest.raises(ClientError):
        launch(InstanceType="c7i.large")


def test_a_wrong_fault_and_a_wrong_harm_are_explained(cloud, launch):
    instance_id = launch()

    with pytest.raises(ValueError, match="allowed: action"):
        cloud.add_fault(action="X", cod="y")
    with pytest.raises(ValueError, match="spot-notice"):
        cloud.kill(instance_id, "meteor")
    with pytest.raises(ValueError, match="no such instance"):
        cloud.kill("i-0123456789abcdef0")


# -- the log ----------------------------------------------------------------------------------


def test_the_log_has_every_call_and_every_state_with_what_a_checker_needs(cloud, ec2, launch):
    instance_id = launch(
        ClientToken="logged",
        UserData="#!/bin/sh\n# top-secret\nsleep 100\n",
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "payer", "Value": "acme"}]}
        ],
    )
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    calls = [one for one in cloud.calls("RunInstances") if one["instance_id"] == instance_id]
    states = [
        one for one in cloud.lines() if one.get("instance_id") == instance_id and "state" in one
    ]

    assert calls[0]["params"]["ClientToken"] == "logged"
    assert calls[0]["params"]["InstanceType"] == "m7i.large"
    assert calls[0]["status"] == 200
    assert [one["state"] for one in states] == cloud.states(instance_id)
    for one in states:
        found = (one["instance_type"], one["client_token"], one["tags"])
        assert found == ("m7i.large", "logged", {"payer": "acme"})
    assert states[-1]["reason"] == "Client.UserInitiatedShutdown"
    assert "top-secret" not in cloud.api_log.read_text()


def test_a_refused_call_is_logged_with_its_code(cloud, launch):
    with pytest.raises(ClientError):
        launch(InstanceType="m7i.huge", ClientToken="refused-in-log")

    found = [
        one
        for one in cloud.calls("RunInstances")
        if one["params"].get("ClientToken") == "refused-in-log"
    ]
    assert [(one["status"], one["code"]) for one in found] == [(400, "InvalidParameterValue")]

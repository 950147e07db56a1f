"""Same row and facts, same bytes; the shape of the machine is not negotiable."""

import base64
import random

import pytest

from airflow_ephemeral_ec2.exceptions import ConfigurationError, UserDataTooLargeError
from airflow_ephemeral_ec2.model.launch_request import render_request
from airflow_ephemeral_ec2.model.plan import LaunchRecord, plan_entry


def test_E7_L37_the_request_shuts_every_door(make_record):
    request = render_request(make_record(kms_key="key-1"), 0)

    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert request["MinCount"] == request["MaxCount"] == 1
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert request["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert request["MaintenanceOptions"] == {"AutoRecovery": "disabled"}
    assert request["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    ebs = request["BlockDeviceMappings"][0]["Ebs"]
    assert (ebs["Encrypted"], ebs["DeleteOnTermination"], ebs["KmsKeyId"]) == (True, True, "key-1")
    assert request["CapacityReservationSpecification"] == {"CapacityReservationPreference": "none"}
    assert "KeyName" not in request
    assert "LaunchTemplate" not in request


def test_E7_every_volume_of_the_ami_is_encrypted_and_ends_with_the_machine(make_record):
    """The AMI has further volumes, which it might leave behind."""
    record = make_record(kms_key="key-1", data_devices=("/dev/sdb", "/dev/sdc"))

    mappings = render_request(record, 0)["BlockDeviceMappings"]

    assert [one["DeviceName"] for one in mappings] == ["/dev/xvda", "/dev/sdb", "/dev/sdc"]
    shape = {"Encrypted": True, "DeleteOnTermination": True, "KmsKeyId": "key-1"}
    assert [one["Ebs"] for one in mappings[1:]] == [shape, shape]


def test_E7_a_record_from_before_further_volumes_gives_the_request_that_it_gave(make_record):
    record = make_record()
    old = record.model_dump(mode="json")
    del old["data_devices"]

    again = LaunchRecord.model_validate(old)

    assert render_request(again, 0) == render_request(record, 0)
    assert len(render_request(again, 0)["BlockDeviceMappings"]) == 1


def test_the_machine_and_what_hangs_on_it_carry_the_tags_from_birth(make_record):
    request = render_request(make_record(tags={"CostCenter": "4711"}), 0)

    resources = {s["ResourceType"]: s["Tags"] for s in request["TagSpecifications"]}
    assert set(resources) == {"instance", "volume", "network-interface"}
    tags = {t["Key"]: t["Value"] for t in resources["volume"]}
    assert tags["CostCenter"] == "4711"
    assert tags["ephemeral-ec2:environment"] == "test"
    assert tags["ephemeral-ec2:max-lifetime-seconds"] == str(600 + 3600 + 20 + 300)


def test_L33_a_spot_machine_is_asked_for_once(make_record):
    """A spot row: the request must be a one-time one."""
    request = render_request(make_record(capacity_type="spot"), 0)

    spot = request["InstanceMarketOptions"]["SpotOptions"]
    assert spot == {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    assert request["TagSpecifications"][-1]["ResourceType"] == "spot-instances-request"


def test_placements_go_by_capacity_type_then_instance_type_then_subnet(make_record):
    record = make_record(capacity_type="spot-then-on-demand")

    assert [str(p) for p in record.placements] == [
        "m7i.large spot subnet-0a1",
        "m7i.large spot subnet-0b2",
        "m6i.large spot subnet-0a1",
        "m6i.large spot subnet-0b2",
        "m7i.large on-demand subnet-0a1",
        "m7i.large on-demand subnet-0b2",
        "m6i.large on-demand subnet-0a1",
        "m6i.large on-demand subnet-0b2",
    ]


def test_each_placement_has_a_token_of_its_own_that_ec2_accepts(make_record):
    tokens = [p.client_token for p in make_record().placements]

    assert len(set(tokens)) == len(tokens)
    assert all(len(t) <= 64 and t.isascii() for t in tokens)


def test_L25_a_record_read_back_gives_the_same_request(make_record):
    """The record went through JSON and another process."""
    record = make_record(max_wait="2h", env={"A": "ü"}, data_devices=("/dev/sdb",))

    again = LaunchRecord.model_validate_json(record.model_dump_json())

    assert again == record
    assert render_request(again, 1) == render_request(record, 1)


def test_user_data_is_rendered_once_and_kept(make_record):
    record = make_record()

    assert render_request(record, 0)["UserData"] == base64.b64decode(record.user_data)


def test_types_and_ami_of_different_architecture_are_refused(make_record):
    with pytest.raises(ConfigurationError, match=r"m7i\.large is x86_64, AMI .* is arm64"):
        make_record(architecture="arm64")


def test_L24_too_much_user_data_is_refused_before_any_call(make_record):
    """The user data is over 16,384 bytes."""
    noise = random.Random(1).randbytes(20_000).hex()

    with pytest.raises(UserDataTooLargeError, match="of 16,384"):
        make_record(env={"NOISE": noise})


def test_the_queue_entry_reserves_the_largest_placement(make_record):
    record = make_record(instance_types=["m7i.large", "c7i.16xlarge"])

    assert plan_entry(record).vcpus == 64

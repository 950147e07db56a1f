"""A launch gets the devices of its AMI, changed by what it asks for."""

from airflow_ephemeral_ec2.local.image_devices import merge_devices

ROOT = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 15, "DeleteOnTermination": True}}
DATA = {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 4, "DeleteOnTermination": False}}


def test_a_launch_that_asks_for_nothing_gets_what_the_image_has():
    assert merge_devices([ROOT, DATA], []) == [ROOT, DATA]


def test_what_is_not_said_of_a_device_is_the_images():
    asked = [{"DeviceName": "/dev/sdb", "Ebs": {"DeleteOnTermination": True, "Encrypted": True}}]

    _, data = merge_devices([ROOT, DATA], asked)

    assert data["Ebs"] == {"VolumeSize": 4, "DeleteOnTermination": True, "Encrypted": True}
    assert DATA["Ebs"]["DeleteOnTermination"] is False


def test_a_device_that_the_image_has_not_is_added_and_one_can_be_left_out():
    more = {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 1}}

    merged = merge_devices([ROOT, DATA], [more, {"DeviceName": "/dev/sdb", "NoDevice": ""}])

    assert merged == [ROOT, more]


def test_disks_of_the_host_are_no_volumes():
    assert merge_devices([ROOT, {"DeviceName": "/dev/sdd", "VirtualName": "ephemeral0"}], []) == [
        ROOT
    ]

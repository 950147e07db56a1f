"""What DescribeImages says of an AMI, as far as a launch needs it."""

from airflow_ephemeral_ec2.model.image import is_of, read_image

ROOT = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": True}}
IMAGE = {
    "ImageId": "ami-1",
    "Architecture": "x86_64",
    "RootDeviceName": "/dev/xvda",
    "BlockDeviceMappings": [ROOT],
}


def test_an_ami_with_a_root_volume_only_has_no_further_ones():
    facts = read_image(IMAGE)

    assert (facts.architecture, facts.root_device, facts.data_devices) == (
        "x86_64",
        "/dev/xvda",
        (),
    )


def test_E7_further_volumes_are_named_in_one_order_and_disks_of_the_host_are_not():
    """Devices that the AMI leaves out (``NoDevice``) are no volumes either."""
    further = [
        {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-2", "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": "snap-1"}},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdd", "NoDevice": ""},
    ]

    found = read_image(IMAGE | {"BlockDeviceMappings": [*further, ROOT]})

    assert found.data_devices == ("/dev/sdb", "/dev/sdf")


def test_facts_are_of_one_ami_and_of_all_its_volumes():
    facts = read_image(IMAGE)

    assert is_of(facts, "ami-1")
    assert not is_of(facts, "ami-2")
    assert not is_of(facts.model_copy(update={"data_devices": None}), "ami-1")

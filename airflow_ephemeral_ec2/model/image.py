"""What EC2 says about an AMI -> the facts that a launch needs."""

from collections.abc import Mapping
from typing import Any

from airflow_ephemeral_ec2.model.spec import ImageFacts


def read_image(described: Mapping[str, Any]) -> ImageFacts:
    """
    Read one image of DescribeImages.

    Its EBS volumes beside the root are named: an AMI may let them outlive their machine, and leave
    them unencrypted. Disks of the host (``VirtualName``) end with the machine by nature.
    """
    root = described["RootDeviceName"]
    names = {
        mapping["DeviceName"]
        for mapping in described.get("BlockDeviceMappings", ())
        if "Ebs" in mapping
    }
    return ImageFacts(
        architecture=described["Architecture"],
        root_device=root,
        data_devices=tuple(sorted(names - {root})),
        image_id=described["ImageId"],
    )


def is_of(facts: ImageFacts, image_id: str) -> bool:
    """Say whether facts of a lock file are all that is needed of an AMI, and are of that one."""
    return facts.data_devices is not None and facts.image_id == image_id

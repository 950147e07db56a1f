"""What names of instance types and AMIs tell."""

import pytest

from airflow_ephemeral_ec2.config_table.instance_types import (
    find_architecture,
    find_image_architecture,
    find_vcpus,
)
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts, LockFile

NOTHING = LockFile()


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("m7i.large", "x86_64"),
        ("m7g.large", "arm64"),
        ("c7gn.16xlarge", "arm64"),
        ("im4gn.large", "arm64"),
        ("t4g.micro", "arm64"),
        ("a1.large", "arm64"),
        ("g4dn.xlarge", "x86_64"),
        ("g5g.xlarge", "arm64"),
        ("p6e-gb200.36xlarge", "arm64"),
        ("m7i-flex.large", "x86_64"),
        ("u-6tb1.56xlarge", None),
        ("mac2.metal", None),
    ],
)
def test_a_g_after_the_generation_means_arm(name, architecture):
    assert find_architecture(name, NOTHING) == architecture


@pytest.mark.parametrize(
    ("name", "vcpus"),
    [
        ("m7i.large", 2),
        ("m7g.medium", 1),
        ("t3.medium", 2),
        ("t4g.nano", 2),
        ("c7i.xlarge", 4),
        ("c7i.16xlarge", 64),
        ("m8g.48xlarge", 192),
        ("c4.8xlarge", None),
        ("m2.xlarge", None),
        ("hpc6a.48xlarge", None),
        ("m7i.metal-24xl", None),
    ],
)
def test_sizes_count_vcpus_where_the_family_is_regular(name, vcpus):
    assert find_vcpus(name, NOTHING) == vcpus


@pytest.mark.parametrize(
    ("ami", "architecture"),
    [
        ("ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64", "x86_64"),
        ("ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64", "arm64"),
        ("ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/x", "x86_64"),
        ("ssm:/company/charm64", None),
        ("ami-0abc", None),
    ],
)
def test_the_path_of_a_parameter_names_the_architecture(ami, architecture):
    assert find_image_architecture(ami, NOTHING) == architecture


def test_the_lock_file_comes_first():
    lock = LockFile(
        instance_types={"m7i.large": InstanceFacts(vcpus=3, memory_mib=1, architecture="arm64")},
        images={"ami-0abc": ImageFacts(architecture="arm64", root_device="/dev/xvda")},
    )

    assert find_vcpus("m7i.large", lock) == 3
    assert find_architecture("m7i.large", lock) == "arm64"
    assert find_image_architecture("ami-0abc", lock) == "arm64"

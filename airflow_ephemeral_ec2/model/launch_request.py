"""A launch record and one of its placements -> the arguments of RunInstances, always the same."""

import base64

from airflow_ephemeral_ec2.model.plan import (
    TAG_ATTEMPT,
    TAG_ENVIRONMENT,
    TAG_JOB,
    TAG_JOBKEY,
    TAG_MAX_LIFETIME,
    TAG_PAYER,
    LaunchRecord,
    Placement,
)


def render_request(record: LaunchRecord, placement_index: int) -> dict[str, object]:
    """
    Write the RunInstances arguments of one placement.

    The shape is not negotiable: it ends itself, keeps no disk, has no public address, no key pair
    and no second hop to its credentials.
    """
    placement, spec = record.placements[placement_index], record.spec
    request: dict[str, object] = {
        "ImageId": record.image_id,
        "InstanceType": placement.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": placement.client_token,
        # botocore encodes it again for the wire.
        "UserData": base64.b64decode(record.user_data),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "IamInstanceProfile": _profile(spec.instance_profile),
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": placement.subnet,
                "Groups": list(spec.security_groups),
                "AssociatePublicIpAddress": False,
                "DeleteOnTermination": True,
            }
        ],
        "BlockDeviceMappings": _volumes(record),
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
            "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": "disabled",
        },
        "MaintenanceOptions": {"AutoRecovery": "disabled"},
        "CapacityReservationSpecification": {"CapacityReservationPreference": "none"},
        "TagSpecifications": [
            {"ResourceType": resource, "Tags": _tags(record)}
            for resource in _tagged_resources(placement)
        ],
    }
    if placement.capacity_type == "spot":
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    return request


def _profile(name_or_arn: str) -> dict[str, str]:
    return {"Arn": name_or_arn} if name_or_arn.startswith("arn:") else {"Name": name_or_arn}


def _volumes(record: LaunchRecord) -> list[dict[str, object]]:
    """
    Let every volume be encrypted and end with the machine, whatever the AMI says of it.

    What is not said of a device comes from the AMI (EC2 user guide, "Block device mapping"). To
    name the snapshot of a public AMI is not allowed, and it may change neither size nor type.
    """
    shape: dict[str, object] = {"Encrypted": True, "DeleteOnTermination": True}
    if record.spec.kms_key:
        shape["KmsKeyId"] = record.spec.kms_key
    root = {"VolumeSize": record.spec.volume_gib, "VolumeType": "gp3"} | shape
    shapes = {record.root_device: root} | dict.fromkeys(record.data_devices, shape)
    return [{"DeviceName": name, "Ebs": ebs} for name, ebs in shapes.items()]


def _tagged_resources(placement: Placement) -> tuple[str, ...]:
    # Tagging a spot request that does not exist is an error, so only spot placements name it.
    spot = ("spot-instances-request",) if placement.capacity_type == "spot" else ()
    return ("instance", "volume", "network-interface", *spot)


def _tags(record: LaunchRecord) -> list[dict[str, str]]:
    spec = record.spec
    tags = dict(spec.tags) | {
        "Name": f"{record.environment}/{spec.payer}/{spec.job}",
        TAG_ENVIRONMENT: record.environment,
        TAG_JOBKEY: record.jobkey,
        TAG_ATTEMPT: str(record.attempt),
        TAG_PAYER: spec.payer,
        TAG_JOB: spec.job,
        TAG_MAX_LIFETIME: str(spec.max_lifetime_seconds),
    }
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]

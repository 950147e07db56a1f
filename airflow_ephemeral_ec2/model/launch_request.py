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
from airflow_ephemeral_ec2.model.spec import JobSpec


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
        "BlockDeviceMappings": [{"DeviceName": record.root_device, "Ebs": _volume(spec)}],
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


def _volume(spec: JobSpec) -> dict[str, object]:
    volume: dict[str, object] = {
        "VolumeSize": spec.volume_gib,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    return volume | ({"KmsKeyId": spec.kms_key} if spec.kms_key else {})


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
